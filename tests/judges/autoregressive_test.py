from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.judges.autoregressive import causal_nll, score, windows
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import DecoderConfig, ModelDescription

VOCAB = 7


class Toy(NamedTuple):
  """Scores the next token by the running sum of the embeddings so far."""

  table: jax.Array
  head: jax.Array

  @property
  def signal_dim(self):
    return self.table.shape[1]

  def encode(self, tokens, signal, sigma):
    assert signal.shape == (*tokens.shape, self.signal_dim)
    assert sigma.shape == tokens.shape[:1]
    return jnp.cumsum(self.table[tokens], axis=1)

  def logits(self, hidden):
    return hidden @ self.head


def make_toy():
  rng = np.random.default_rng(0)
  table, head = rng.normal(size=(VOCAB, 4)), rng.normal(size=(4, VOCAB))
  return Toy(jnp.asarray(table, jnp.float32), jnp.asarray(head, jnp.float32))


TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, 6)).astype(np.int32)


def test_nll_equals_the_chain_rule_by_hand():
  toy = make_toy()
  table, head = np.asarray(toy.table, np.float64), np.asarray(toy.head, np.float64)
  wanted = np.zeros((3, 5))
  for row in range(3):
    for i in range(5):
      scores = sum(table[token] for token in TOKENS[row, : i + 1]) @ head
      probability = np.exp(scores)[TOKENS[row, i + 1]] / np.exp(scores).sum()
      wanted[row, i] = -np.log(probability)
  found = causal_nll(toy, TOKENS)
  assert found.shape == (3, 5)
  assert found.dtype == jnp.float32
  # Float32 sums of up to five terms of order one.
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_probabilities_of_all_continuations_sum_to_one():
  prefix = [3, 1]
  tails = [(a, b) for a in range(VOCAB) for b in range(VOCAB)]
  tokens = np.array([[*prefix, *tail] for tail in tails], np.int32)
  nll = causal_nll(make_toy(), tokens)
  log_probs = -np.asarray(nll[:, 1:], np.float64).sum(axis=1)
  assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)


def test_perplexity_of_a_uniform_model_is_the_vocabulary():
  toy = Toy(jnp.zeros((VOCAB, 4)), jnp.zeros((4, VOCAB)))
  nll = causal_nll(toy, TOKENS)
  assert np.exp(np.mean(nll)) == pytest.approx(VOCAB, rel=1e-6)


def test_half_precision_scores_are_normalised_in_float32():
  toy = make_toy()
  half = Toy(toy.table.astype(jnp.bfloat16), toy.head.astype(jnp.bfloat16))
  scores = half.logits(half.encode(TOKENS[:, :-1], np.zeros((3, 5, 4)), np.zeros(3)))
  assert scores.dtype == jnp.bfloat16
  scores = np.asarray(scores, np.float64)
  log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
  wanted = -np.take_along_axis(log_probs, TOKENS[:, 1:, None], -1)[..., 0]
  found = causal_nll(half, TOKENS)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_decoder_sees_no_later_token():
  description = ModelDescription(
    DecoderConfig(VOCAB, 6, 8, 1, 2, 2, 16), mask_id=None, tokenizer=''
  )

  @jax.jit
  def nll(tokens):
    params = denoiser.init_params(jax.random.key(0), description)
    return causal_nll(denoiser.bind(params, description), tokens)

  before = nll(TOKENS)
  changed = TOKENS.copy()
  changed[:, 4] = (changed[:, 4] + 1) % VOCAB
  after = nll(changed)
  # Targets 1 to 3 are predicted from tokens 0 to 2: the very same numbers.
  np.testing.assert_array_equal(after[:, :3], before[:, :3])
  assert np.all(after[:, 3:] != before[:, 3:])


@pytest.mark.parametrize('count', [0, 1, 2, 5, 6, 7, 8, 11, 30])
@pytest.mark.parametrize(('length', 'stride'), [(5, 5), (5, 2), (5, 1), (1, 1)])
def test_windows_score_every_token_but_the_first_once(count, length, stride):
  text = np.arange(count, dtype=np.int32)
  seen = []
  for window in windows(text, length, stride):
    assert 2 <= len(window.tokens) <= length + 1
    assert len(window.scored) == len(window.tokens) - 1
    np.testing.assert_array_equal(np.diff(window.tokens), 1)  # A stretch.
    for place, target in enumerate(window.tokens[1:], 1):
      if window.scored[place - 1]:
        seen.append(int(target))
        # All of the text before it, or what the overlap guarantees.
        assert place >= min(target, length + 1 - stride)
  assert seen == list(range(1, count))


@pytest.mark.parametrize('stride', [0, 6])
def test_a_stride_that_skips_or_stands_still_is_refused(stride):
  with pytest.raises(ValueError, match=f'stride is {stride}'):
    next(windows(np.arange(9), 5, stride))


@pytest.mark.parametrize(('length', 'stride', 'batch_size'), [(4, 2, 3), (4, 4, 1)])
def test_score_of_long_and_short_texts_token_by_token(length, stride, batch_size):
  toy = make_toy()
  table, head = np.asarray(toy.table, np.float64), np.asarray(toy.head, np.float64)
  rng = np.random.default_rng(2)
  texts = [rng.integers(0, VOCAB, n).astype(np.int32) for n in (13, 2, 1, 5, 0, 6)]
  nll, count = 0.0, 0
  for text in texts:
    for target in range(1, len(text)):
      # The window that reaches the target first, counting from the text's start.
      start = 0
      while target > start + length:
        start += stride
      scores = table[text[start:target]].sum(0) @ head
      nll -= scores[text[target]] - np.log(np.exp(scores).sum())
      count += 1
  found = score(
    jax.jit(lambda tokens: causal_nll(toy, tokens)),
    texts,
    length=length,
    stride=stride,
    batch_size=batch_size,
  )
  assert found.tokens == count == 12 + 1 + 4 + 5
  assert found.nll == pytest.approx(nll, rel=1e-5)  # Float32 log-probabilities.
  assert found.perplexity == pytest.approx(np.exp(nll / count), rel=1e-5)


def test_texts_weigh_by_their_tokens():
  # The uniform model of a vocabulary: log V for every token, whatever the texts.
  toy = Toy(jnp.zeros((VOCAB, 4)), jnp.zeros((4, VOCAB)))
  texts = [TOKENS[0], TOKENS[1, :2]]
  found = score(
    lambda tokens: causal_nll(toy, tokens), texts, length=3, stride=2, batch_size=2
  )
  assert found.tokens == 6
  assert found.perplexity == pytest.approx(VOCAB, rel=1e-6)


def test_nothing_to_score_has_no_perplexity():
  found = score(pytest.fail, [], length=3, stride=2, batch_size=2)
  assert found.tokens == 0
  assert np.isnan(found.perplexity)
