"""Schedules against formulas worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion.masking import mask_tokens
from scmdm_jax.diffusion.schedules import (
  Cosine,
  LogLinear,
  Polynomial,
  antithetic_times,
  nelbo_weight,
  noise_level,
  reverse_alphas,
)
from tests.compiling import quick_jit, split_key

EPS = 1e-3
T = np.array([0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
# (schedule, alpha, -d alpha / dt), by hand.
BY_HAND = [
  (LogLinear(), lambda t: 1 - (1 - EPS) * t, lambda t: (1 - EPS) * np.ones_like(t)),
  (
    Cosine(),
    lambda t: 1 - (1 - EPS) * np.cos(np.pi / 2 * (1 - t)),
    lambda t: (1 - EPS) * np.pi / 2 * np.sin(np.pi / 2 * (1 - t)),
  ),
  (
    Polynomial(power=3.0),
    lambda t: 1 - (1 - EPS) * t * t * t,
    lambda t: 3 * (1 - EPS) * t * t,
  ),
  (
    Polynomial(power=0.5, eps=0.0),
    lambda t: 1 - np.sqrt(t),
    lambda t: np.where(t > 0, 0.5 / np.sqrt(np.maximum(t, 1e-300)), np.inf),
  ),
]
SCHEDULES = [row[0] for row in BY_HAND]


quick_times = quick_jit(antithetic_times, static_argnums=1)


@pytest.mark.parametrize(('schedule', 'alpha', '_slope'), BY_HAND)
def test_alpha(schedule, alpha, _slope):
  found = schedule(jnp.asarray(T, jnp.float32))
  # alpha is 1 minus a number of order 1 in float32: a few ulp of 1.
  np.testing.assert_allclose(found, alpha(T), atol=5e-7, rtol=0)
  assert found[0] == 1


@pytest.mark.parametrize(('schedule', 'alpha', 'slope'), BY_HAND)
def test_weight_is_slope_over_masked_fraction(schedule, alpha, slope):
  t = T[1:]
  found = quick_jit(nelbo_weight, static_argnums=0)(schedule, np.float32(t))
  # 1 - alpha loses digits near t = 0: 1e-7 / (1 - alpha) relative.
  rtol = 1e-6 + 5e-7 / (1 - alpha(t))
  wanted = slope(t) / (1 - alpha(t))
  assert np.all(np.abs(found - wanted) <= rtol * wanted + 1e-6), (found, wanted)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_weight_at_zero_times_nothing_masked_is_zero(schedule):
  t = jnp.zeros(2)
  weight = nelbo_weight(schedule, t)
  assert np.all(np.isfinite(weight))
  x_0 = np.zeros((2, 64), np.int32)
  threshold = jax.random.uniform(jax.random.key(0), x_0.shape)
  x_t = quick_jit(mask_tokens)(threshold, x_0, schedule(t), 1)
  assert np.all(np.asarray(weight) * np.sum(np.asarray(x_t) == 1, axis=-1) == 0)


@pytest.mark.parametrize(('schedule', 'alpha', '_slope'), BY_HAND[:3])
def test_noise_level(schedule, alpha, _slope):
  found = noise_level(schedule, jnp.asarray(T, jnp.float32))
  # 1e-7 absolute on alpha, divided by the smallest alpha: EPS.
  np.testing.assert_allclose(found, -np.log(alpha(T)), atol=1e-3 * EPS, rtol=2e-4)
  assert found[0] == 0


def test_noise_level_is_finite_where_nothing_is_visible():
  assert np.isfinite(noise_level(LogLinear(eps=0.0), jnp.ones(1))).all()


@pytest.mark.parametrize(('schedule', 'alpha', '_slope'), BY_HAND)
@pytest.mark.parametrize('num_steps', [1, 2, 7])
def test_reverse_alphas(schedule, alpha, _slope, num_steps):
  found = reverse_alphas(schedule, num_steps)
  wanted = alpha(1 - np.arange(num_steps + 1) / num_steps)
  wanted[0] = 0
  assert found.shape == (num_steps + 1,) and found.dtype == jnp.float32
  assert found[0] == 0 and found[-1] == 1
  np.testing.assert_allclose(found, wanted, atol=5e-7, rtol=0)
  assert np.all(np.diff(found) > 0)


def test_long_chains_never_hide_again():
  # Flat near t = 0: alpha rounds to 1 long before the last step.
  alphas = reverse_alphas(Polynomial(power=4.0), 2000)
  assert np.all(np.diff(alphas) >= 0)
  assert np.sum(np.asarray(alphas) == 1) > 1


@pytest.mark.parametrize('batch', [1, 7, 64])
def test_one_time_per_stratum(batch):
  t_min = 0.1
  t = np.asarray(quick_times(jax.random.key(3), batch, t_min))
  unit = (np.sort(t) - t_min) / (1 - t_min)
  assert t.shape == (batch,) and t.min() >= t_min and t.max() <= 1
  # Float32 may put a time on the far edge of its slice.
  edges = np.arange(batch) / batch
  assert np.all(unit >= edges - 1e-6)
  assert np.all(unit <= edges + 1 / batch + 1e-6)


def test_every_example_has_a_uniform_time():
  t_min = 1e-3
  keys = split_key(jax.random.key(4), 4000)
  many = quick_jit(jax.vmap(lambda key: antithetic_times(key, 4, t_min)))
  t = np.asarray(many(keys))
  for i in range(4):
    # A fixed seed; a false alarm would have had probability 1e-4.
    assert stats.kstest((t[:, i] - t_min) / (1 - t_min), 'uniform').pvalue > 1e-4
  # Dealt at random: the first example is as often below the second as above.
  below = np.mean(t[:, 0] < t[:, 1])
  assert abs(below - 0.5) < 4 * 0.5 / np.sqrt(len(t))


@pytest.mark.parametrize('kind', [LogLinear, Cosine, Polynomial])
@pytest.mark.parametrize('eps', [-0.25, 1.0, float('nan')])
def test_eps_out_of_range(kind, eps):
  with pytest.raises(
    ValueError, match=f'eps: found {eps}; wanted a number from 0, below 1'
  ):
    kind(eps=eps)


@pytest.mark.parametrize('power', [0.0, -2.0, float('nan')])
def test_power_out_of_range(power):
  with pytest.raises(ValueError, match=f'power: found {power}; wanted'):
    Polynomial(power=power)


def test_schedules_can_be_static_arguments():
  assert hash(Cosine(eps=0.1)) == hash(Cosine(eps=0.1))
  assert Cosine(eps=0.1) == Cosine(eps=0.1) != Cosine(eps=0.2)
  assert LogLinear() != Cosine()
