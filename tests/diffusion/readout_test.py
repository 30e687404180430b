"""Draws against exact probabilities; nuclei against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion.masking import BANNED
from scmdm_jax.diffusion.readout import (
  draw_tokens,
  keep_nucleus,
  read_logits,
  read_signal,
)
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys

quick_draw = quick_jit(draw_tokens, static_argnames='top_p')


@functools.partial(quick_jit, static_argnames=('shape', 'top_p'))
def draws(key, logits, shape, temperature, top_p=1.0):
  """Draws of `shape` [B, L] from one distribution given by `logits` [V]."""
  keys = jax.random.split(key, shape[0])
  many = jnp.broadcast_to(logits, (*shape, logits.shape[-1]))
  return draw_tokens(keys, many, temperature, top_p)


def nucleus_np(probs, top_p):
  """The shortest list of most probable tokens that reaches `top_p`."""
  keep = np.zeros(probs.shape, bool)
  total = 0.0
  for token in np.argsort(-probs, kind='stable'):
    keep[token] = True
    total += probs[token]
    if total >= top_p:
      return keep
  return keep


def test_read_logits_and_signal():
  w = toys.weights(0)
  network = toys.network(w)
  hidden = np.random.default_rng(1).standard_normal((2, toys.LENGTH, toys.DIM))
  hidden = hidden.astype(np.float32)
  logits = read_logits(network, hidden, toys.MASK)
  signal = read_signal(network, logits)
  assert logits.shape == (2, toys.LENGTH, toys.VOCAB) and logits.dtype == jnp.float32
  probs = toys.softmax_np(toys.network_np(w).logits(hidden), toys.MASK)
  np.testing.assert_allclose(jax.nn.softmax(logits, axis=-1), probs, atol=1e-6)
  # Signals are of order 1; float32 sums over V.
  np.testing.assert_allclose(signal, probs @ w['table'], atol=1e-5)


def test_bfloat16_networks_are_read_in_float32():
  network = toys.network(toys.weights(0))
  half = network._replace(logits=lambda h: network.logits(h).astype(jnp.bfloat16))
  assert read_logits(half, jnp.ones((1, 2, toys.DIM)), toys.MASK).dtype == jnp.float32


def test_no_gradient_through_the_prediction():
  network = toys.network(toys.weights(0))
  logits = jnp.ones((1, 2, toys.VOCAB))
  gradient = jax.grad(lambda logits: read_signal(network, logits).sum())(logits)
  assert np.all(gradient == 0)


@pytest.mark.parametrize('top_p', [1e-9, 0.2, 0.5, 0.9, 0.999])
def test_nucleus(top_p):
  rng = np.random.default_rng(2)
  logits = (2 * rng.standard_normal((20, 3, 11))).astype(np.float32)
  logits[..., 4] = BANNED
  probs = toys.softmax_np(logits, 4)
  wanted = np.apply_along_axis(nucleus_np, -1, probs, top_p)
  found = np.asarray(quick_jit(keep_nucleus, static_argnums=1)(logits, top_p))
  assert np.array_equal(found > BANNED, wanted)
  assert np.array_equal(found[wanted], logits[wanted])
  assert np.all(wanted.sum(-1) >= 1)
  if top_p == 1e-9:
    assert np.all(wanted.sum(-1) == 1)


def test_nucleus_of_equal_tokens():
  # The token that crosses the line stays: 3 of 8 reach 0.25 + something.
  nucleus = quick_jit(keep_nucleus)
  kept = np.asarray(nucleus(np.zeros((1, 8), np.float32), 0.26)) > BANNED
  assert kept.sum() == 3
  kept = np.asarray(nucleus(np.zeros((1, 8), np.float32), 1e-12)) > BANNED
  assert kept.sum() == 1


def test_two_stage_draws_reach_rare_tokens():
  # Two tokens rarer than 1e-5: of 2^21 draws 10 and 19 are expected.
  rare = [5e-6, 9e-6]
  probs = np.array([0.6, 0.4 - sum(rare), 0.0, *rare])
  logits = np.where(probs > 0, np.log(np.maximum(probs, 1e-30)), BANNED)
  shape = (2**11, 2**10)
  tokens = np.asarray(draws(jax.random.key(3), np.float32(logits), shape, 1.0))
  counts = np.bincount(tokens.ravel(), minlength=len(probs))
  n = tokens.size
  assert tokens.dtype == np.int32 and counts[2] == 0
  real = probs > 0
  assert stats.chisquare(counts[real], n * probs[real]).pvalue > 1e-4
  # None of them at all would have had a probability of 3e-5.
  assert np.all(counts[3:] > 0)


@pytest.mark.parametrize('temperature', [0.5, 2.0])
def test_temperature(temperature):
  logits = np.float32([1.0, 0.0, BANNED, -1.0, 0.5])
  tokens = draws(jax.random.key(4), logits, (256, 256), temperature)
  counts = np.bincount(np.ravel(tokens), minlength=5)
  probs = toys.softmax_np(logits / temperature, 2)
  assert counts[2] == 0
  real = probs > 0
  assert stats.chisquare(counts[real], counts.sum() * probs[real]).pvalue > 1e-4


@pytest.mark.parametrize('top_p', [1.0, 0.7])
def test_temperature_zero_is_greedy(top_p):
  rng = np.random.default_rng(5)
  logits = rng.standard_normal((16, toys.LENGTH, toys.VOCAB)).astype(np.float32)
  logits[..., toys.MASK] = BANNED
  keys = split_key(jax.random.key(6), 16)
  found = quick_draw(keys, logits, 0.0, top_p=top_p)
  assert np.array_equal(found, logits.argmax(-1))


@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_top_p_comes_after_the_temperature(temperature):
  probs = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
  logits = np.float32([*np.log(probs[:4]), BANNED])
  tokens = draws(jax.random.key(7), logits, (256, 256), temperature, 0.65)
  counts = np.bincount(np.ravel(tokens), minlength=5)
  tempered = probs ** (1 / temperature)
  tempered /= tempered.sum()
  # 0.4 + 0.3 either way; at temperature 0.5: 0.53 + 0.30.
  keep = nucleus_np(tempered, 0.65)
  assert keep.sum() == 2
  assert np.all(counts[~keep] == 0)
  wanted = np.where(keep, tempered, 0)
  wanted = wanted[keep] / wanted.sum() * counts.sum()
  assert stats.chisquare(counts[keep], wanted).pvalue > 1e-4


def test_tiny_top_p_is_greedy():
  logits = np.random.default_rng(8).standard_normal((64, 3, 6)).astype(np.float32)
  keys = split_key(jax.random.key(9), 64)
  found = quick_draw(keys, logits, 3.0, top_p=1e-9)
  assert np.array_equal(found, logits.argmax(-1))


def test_gumbel_max_with_a_key_per_example():
  rng = np.random.default_rng(10)
  logits = rng.standard_normal((4, toys.LENGTH, toys.VOCAB)).astype(np.float32)
  keys = split_key(jax.random.key(11), 4)
  found = quick_draw(keys, logits, 0.7)
  shape = (toys.LENGTH, toys.VOCAB)
  gumbel = quick_jit(lambda key: jax.random.gumbel(key, shape, mode='high'))
  for b in range(4):
    noise = np.asarray(gumbel(keys[b]))
    assert np.array_equal(found[b], (logits[b] / 0.7 + noise).argmax(-1))
