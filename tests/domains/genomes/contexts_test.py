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


def test_samples_are_measured_where_it_is_asked_for(rows):
  some, test = domain_test.some(rows[0], 200), domain_test.some(rows[1], len(rows[1]))
  assert 'context_bits' not in domain_test.measuring(rows).measures(some)
  found = domain_test.measuring(rows, counted=100).measures(some[100:])
  codes = {'AGCTN'[i]: 'ACGTN'.index('AGCTN'[i]) for i in range(5)}

  def read(tokens):
    """Codes and species as the tokenizer's own letters have it."""
    texts = [[domain_test.TOKENIZER.tokens[t] for t in row[1:]] for row in tokens]
    bases = np.array([[codes[letter] for letter in text] for text in texts], np.uint8)
    return bases, tokens[:, 0] - domain_test.TOKENIZER.class_ids[0]

  model = Following(*read(some[:100]), 3)
  assert found['context_bits'] == model.bits(*read(some[100:]))
  assert found['context_bits_real'] == model.bits(*read(test))
  # Those that were counted cost less than others.
  assert model.bits(*read(some[:100])) < model.bits(*read(some[100:]))
