"""The forward process against binomials and Bayes; SUBS against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.masking import (
  clean_logits,
  mask_tokens,
  reveal_probability,
  subs_log_probs,
)
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial
from tests.compiling import quick_jit
from tests.diffusion import toys


@quick_jit
def mask_quickly(key, x_0, alpha, mask_id):
  return mask_tokens(jax.random.uniform(key, x_0.shape), x_0, alpha, mask_id)


def test_mask_counts_are_binomial():
  batch, length = 6, 20_000
  alpha = np.array([0.02, 0.2, 0.5, 0.5, 0.8, 0.999])
  x_0 = toys.clean_tokens(0, batch, length)
  x_t = np.asarray(mask_quickly(jax.random.key(1), x_0, alpha, toys.MASK))
  masked = x_t == toys.MASK
  assert np.all(x_t[~masked] == x_0[~masked])
  sigma = np.sqrt(length * alpha * (1 - alpha))
  assert np.all(np.abs(masked.sum(-1) - length * (1 - alpha)) < 4 * sigma)
  # Each token alone: neighbours in a row and across rows share nothing.
  for one, other in [(masked[2, 1:], masked[2, :-1]), (masked[2], masked[3])]:
    both = np.mean(one & other)
    assert abs(both - 0.25) < 4 * np.sqrt(0.25 * 0.75 / length)


@pytest.mark.parametrize('schedule', [LogLinear(), Cosine(), Polynomial(2.0)])
def test_ends_of_time(schedule):
  length = 100_000
  x_0 = np.zeros((2, length), np.int32)
  alpha = schedule(jnp.array([0.0, 1.0]))
  x_t = np.asarray(mask_quickly(jax.random.key(2), x_0, alpha, 1))
  masked = np.sum(x_t == 1, axis=-1)
  assert masked[0] == 0
  eps = 1e-3  # What every schedule leaves visible at t = 1.
  assert abs(masked[1] - length * (1 - eps)) < 4 * np.sqrt(length * eps * (1 - eps))


def test_alpha_zero_masks_everything():
  x_0 = np.zeros((2, 100_000), np.int32)
  x_t = mask_quickly(jax.random.key(3), x_0, np.zeros(2, np.float32), 1)
  assert np.all(np.asarray(x_t) == 1)


def test_reveal_probability_is_the_posterior_by_bayes():
  grid = np.linspace(0, 1, 9)
  cases = []
  for alpha_t in grid[:-1]:
    for alpha_s in grid[grid > alpha_t]:
      # States (visible?) at s, then at t; a masked token never comes back.
      joint = {
        (True, True): alpha_t,
        (True, False): alpha_s * (1 - alpha_t / alpha_s),
        (False, True): 0.0,
        (False, False): 1 - alpha_s,
      }
      assert sum(joint.values()) == pytest.approx(1)
      hidden_at_t = joint[True, False] + joint[False, False]
      wanted = joint[True, False] / hidden_at_t
      cases.append((alpha_t, alpha_s, wanted))
  # The ends; at alpha_t = 1 nothing is masked and anything is right but NaN.
  cases += [(0.3, 1.0, 1.0), (0.3, 0.3, 0.0), (1.0, 1.0, 1.0)]
  alpha_t, alpha_s, wanted = np.array(cases, np.float32).T
  found = np.asarray(reveal_probability(alpha_t, alpha_s))
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  # The last step of a chain reveals whatever is left.
  assert np.all(found[alpha_s == 1] == 1)


def test_clean_logits_upcasts_and_bans_the_mask():
  rng = np.random.default_rng(4)
  logits = jnp.asarray(rng.standard_normal((2, 3, 5)), jnp.bfloat16)
  found = clean_logits(logits, 2)
  assert found.dtype == jnp.float32
  others = np.array([0, 1, 3, 4])
  wanted = np.asarray(logits.astype(jnp.float32))[..., others]
  assert np.array_equal(np.asarray(found)[..., others], wanted)
  assert np.all(np.exp(found)[..., 2] == 0)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_subs(dtype):
  rng = np.random.default_rng(5)
  raw = (4 * rng.standard_normal((3, toys.LENGTH, toys.VOCAB))).astype(dtype)
  # The mask's own score is the largest of all, and must not matter.
  raw[..., toys.MASK] = 50
  x_t = toys.clean_tokens(6, 3)
  x_t[:, ::2] = toys.MASK
  found = quick_jit(subs_log_probs)(raw, x_t, toys.MASK)
  assert found.dtype == jnp.float32
  probs = np.exp(np.asarray(found, np.float64))
  np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)
  assert np.all(probs[..., toys.MASK] == 0)
  wanted = toys.softmax_np(raw, toys.MASK)
  hidden = x_t == toys.MASK
  np.testing.assert_allclose(probs[hidden], wanted[hidden], rtol=1e-5)
  # Carry-over: a visible position is certain of its token.
  assert np.array_equal(probs[~hidden], np.eye(toys.VOCAB)[x_t[~hidden]])


def test_subs_gradients_are_finite():
  x_t = jnp.array([[toys.MASK, 0]])
  x_0 = jnp.array([[1, 0]])

  def loss(logits):
    log_probs = subs_log_probs(logits, x_t, toys.MASK)
    return -jnp.take_along_axis(log_probs, x_0[..., None], axis=-1).sum()

  gradient = np.asarray(quick_jit(jax.grad(loss))(jnp.ones((1, 2, toys.VOCAB))))
  # Softmax minus one-hot where masked; nothing where the token is given.
  wanted = np.full(toys.VOCAB, 1 / (toys.VOCAB - 1))
  wanted[toys.MASK] = 0
  wanted[1] -= 1
  np.testing.assert_allclose(gradient[0, 0], wanted, atol=1e-6)
  assert np.all(gradient[0, 1] == 0)
