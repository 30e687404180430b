"""Bits by context against dictionaries, base by base."""

import collections
import math

import numpy as np
import pytest

from scmdm_jax.domains.genomes.contexts import BEFORE, Following
from tests.domains.genomes import domain_test

rows = domain_test.rows
SPECIES = 2


def drawn(count, length, seed):
  rng = np.random.default_rng(seed)
  codes = rng.integers(0, 2, (count, length)).astype(np.uint8)
  codes[rng.random(codes.shape) < 0.1] = 4  # N.
  return codes, rng.integers(0, SPECIES, count)


def written_out(bases, species):
  """(place, species, the bases before, base) of every base of a stretch."""
  for place, base in enumerate(bases):
    before = [bases[i] if i >= 0 else 'edge' for i in range(place - BEFORE, place)]
    yield (place, species, *before, base)


def probability(met, context, base):
  """Witten and Bell's, of all stretches at once; five kinds of base with N."""
  followers = collections.Counter(
    m[-1] for m in met if not context or m[-1 - len(context) : -1] == context
  )
  shorter = probability(met, context[1:], base) if context else 1 / 5
  if not followers:
    return shorter
  kinds = len(followers)
  return (followers[base] + kinds * shorter) / (followers.total() + kinds)


def test_against_the_formula():
  train, samples = drawn(30, 11, seed=0), drawn(5, 11, seed=1)
  met = [w for pair in zip(*train, strict=True) for w in written_out(*pair)]
  wanted = [
    -math.log2(probability(met, window[:-1], window[-1]))
    for pair in zip(*samples, strict=True)
    for window in written_out(*pair)
  ]
  found = Following(*train, SPECIES).bits(*samples)
  assert found == pytest.approx(np.mean(wanted), rel=1e-12)


def read(tokens):
  """Codes and species as the tokenizer's own letters have it."""
  texts = [[domain_test.TOKENIZER.tokens[t] for t in row[1:]] for row in tokens]
  bases = np.array([['ACGTN'.index(letter) for letter in text] for text in texts])
  return bases.astype(np.uint8), tokens[:, 0] - domain_test.TOKENIZER.class_ids[0]


def test_samples_are_measured_where_it_is_asked_for(rows):
  train = domain_test.some(rows[0], len(rows[0]))
  assert 'context_bits' not in domain_test.measuring(rows).measures(train[:90])
  found = domain_test.measuring(rows, counted=100).measures(train[:90])
  # At even distances over all of them, whose halves may be the two strands.
  counted = train[np.arange(100) * len(train) // 100]
  model = Following(*read(counted), 3)
  assert found['context_bits'] == model.bits(*read(train[:90]))
  # Those that were counted cost less than others.
  assert model.bits(*read(counted)) < found['context_bits']


def test_real_bits_are_of_the_species_of_the_samples(rows):
  train, test = (domain_test.some(of, len(of)) for of in rows)
  model = Following(*read(train), 3)
  measures = domain_test.measuring(rows, counted=len(train)).measures
  first = domain_test.TOKENIZER.class_ids[0]
  own = {s: train[train[:, 0] == first + s] for s in (0, 2)}
  bits = {s: model.bits(*read(test[test[:, 0] == first + s])) for s in own}
  for s, some in own.items():
    assert measures(some[:20])['context_bits_real'] == pytest.approx(bits[s])
  mixed = measures(np.concatenate([own[0][:30], own[2][:10]]))
  assert mixed['context_bits_real'] == pytest.approx((3 * bits[0] + bits[2]) / 4)
  assert abs(bits[0] - bits[2]) > 0.01
