"""Witten-Bell by recursion over Python dictionaries; the distribution sums to one."""

import collections
import itertools
import json
import math

import numpy as np
import pytest

from scmdm_jax.domains import registry
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.domains.text.rows import read_rows
from scmdm_jax.errors import BadInput
from scmdm_jax.judges import ngrams
from scmdm_jax.runs.measuring import measure_of
from scmdm_jax.settings.options import EvaluateSettings, Settings

STREAM = np.random.default_rng(0).integers(0, 3, 60)


def written_out(stream, vocab_size, context, token):
  """p(token | context), as the module's formula says, over all stretches anew."""
  if context is None:
    return 1 / vocab_size
  followers = collections.Counter(
    int(stream[i + len(context)])
    for i in range(len(stream) - len(context))
    if tuple(stream[i : i + len(context)]) == context
  )
  shorter = written_out(stream, vocab_size, context[1:] if context else None, token)
  if not followers:
    return shorter
  kinds = len(followers)
  return (followers[token] + kinds * shorter) / (followers.total() + kinds)


def test_against_the_formula():
  model = ngrams.NGrams(STREAM, 3, 4)
  samples = np.random.default_rng(1).integers(0, 3, (5, 9))
  found = model.log_probs(samples)
  for row, values in zip(samples, found, strict=True):
    for i, token in enumerate(row):
      context = tuple(row[max(i - 3, 0) : i])
      wanted = written_out(STREAM, 3, context, token)
      assert values[i] == pytest.approx(math.log(wanted), rel=1e-12)
  assert model.bits(samples) == pytest.approx(
    -np.mean(found[:, 3:]) / math.log(2), rel=1e-12
  )


def test_sums_to_one():
  model = ngrams.NGrams(STREAM, 4, 3)  # Token 3 was never met.
  rows = np.array(list(itertools.product([0, 1, 3], [0, 2, 3], range(4))))
  last = np.exp(model.log_probs(rows)[:, -1]).reshape(-1, 4)
  np.testing.assert_allclose(last.sum(-1), 1, rtol=1e-12)
  assert np.all(last > 0)


def test_a_known_repetition_costs_little():
  stream = np.tile([0, 1, 2, 3], 1000)
  model = ngrams.NGrams(stream, 4, 4)
  # Of a context with one follower, met C times: p = (C + p') / (C + 1).
  assert model.bits(np.tile([0, 1, 2, 3], 5)[None]) < 1e-6
  assert model.bits(np.tile([0, 2, 1, 3], 5)[None]) > 5


def test_what_does_not_fit_is_refused():
  assert ngrams.fits(35, 8)
  assert not ngrams.fits(512, 8)
  with pytest.raises(ValueError, match='63 bits'):
    ngrams.NGrams(STREAM, 512, 8)


def test_word_rate():
  known = {'a', 'word'}
  # The ends are left out: a, word, x of the first; nothing of the second.
  assert ngrams.word_rate(['cut a word x cu', 'one two'], known) == pytest.approx(2 / 3)
  assert ngrams.word_rate([], known) == 0


def test_measures_of_the_domain(tmp_path):
  source = tmp_path / 'letters.jsonl'
  texts = [f'{a} cat sat on the mat ' for a in ('a', 'the', 'one', 'no')] * 20
  source.write_text(''.join(json.dumps({'text': t}) + '\n' for t in texts))
  settings = Settings(
    data=registry.data_settings()(
      name='text',
      source=str(source),
      directory=str(tmp_path / 'prepared'),
      tokenizer='text8',
      length=16,
      frame=False,
    ),
    evaluate=registry.with_own_evaluation(EvaluateSettings)(
      ngram_order=3, num_examples=4
    ),
  )
  tokenizer = get_tokenizer('text8')
  measure = measure_of(settings, tmp_path, tokenizer)
  rows = read_rows(settings.data, tokenizer, 'train')
  samples = np.stack(
    [tokenizer.encode(t, 16) for t in ('a cat on the zat', 'mat the the sat ')]
  )
  found = measure(samples)
  stream = np.concatenate([rows[i] for i in range(len(rows))])
  model = ngrams.NGrams(stream, tokenizer.vocab_size, 3)
  assert found['ngram_bits'] == pytest.approx(model.bits(samples), rel=1e-12)
  assert found['word_rate'] == 1.0  # The ends, `zat` among them, do not count.
  # Beside them four held-out rows, a quarter of the split apart.
  rows = read_rows(settings.data, tokenizer, 'test')
  apart = np.stack([rows[int(i)] for i in np.floor(np.arange(4) / 4 * len(rows))])
  assert found['ngram_bits_real'] == pytest.approx(model.bits(apart), rel=1e-12)
  assert 0 < found['word_rate_real'] <= 1


def test_too_many_pieces_to_count(tmp_path):
  settings = Settings(
    data=registry.data_settings()(name='text', tokenizer='text8'),
    evaluate=registry.with_own_evaluation(EvaluateSettings)(ngram_order=20),
  )
  with pytest.raises(BadInput, match=r'evaluate\.ngram_order: found 20'):
    measure_of(settings, tmp_path, get_tokenizer('text8'))
