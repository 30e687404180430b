import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.training.losses import causal_nll, class_nll
from tests.compiling import quick_jit
from tests.models.parameters import random_params

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

  params = random_params(description)

  @quick_jit
  def nll(tokens):
    return causal_nll(denoiser.bind(params, description), tokens)

  before = nll(TOKENS)
  changed = TOKENS.copy()
  changed[:, 4] = (changed[:, 4] + 1) % VOCAB
  after = nll(changed)
  # Targets 1 to 3 are predicted from tokens 0 to 2: the very same numbers.
  np.testing.assert_array_equal(after[:, :3], before[:, :3])
  assert np.all(after[:, 3:] != before[:, 3:])


def test_class_nll_of_known_scores():
  scores = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 3
  rows = np.array([[8, 0, 1], [9, 1, 1]], np.int32)
  found = class_nll(lambda tokens: jnp.asarray(scores[: len(tokens)]), rows, 7)
  np.testing.assert_allclose(found, [math.log(4), math.log(1 / 0.8)], rtol=1e-6)
