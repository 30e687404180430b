"""Strategies whose law is known exactly: ancestral and first-hitting sampling."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.diffusion.strategies import (
  Ancestral,
  FirstHitting,
)
from tests.compiling import quick_jit
from tests.diffusion import exact

# Failures of a right program: fewer than one run in a thousand over all tests here.
P_VALUE = 1e-5
EPS = 1e-3
JOINT = exact.random_joint(1, 2, 3)


@functools.partial(quick_jit, static_argnums=(1, 2))
def sample_table(key, strategy, num_steps):
  network = exact.table_network(jnp.asarray(exact.posterior_table(JOINT)))
  keys = jax.random.split(key, 2**14)
  x_init = jnp.full((len(keys), 3), 2, jnp.int32)
  return sample(keys, network, x_init, Sampler(num_steps, strategy), mask_id=2)


def p_value(tokens, law):
  cells = np.ravel_multi_index(np.asarray(tokens).T, law.shape)
  counts = np.bincount(cells, minlength=law.size)
  return stats.chisquare(counts, counts.sum() * law.ravel()).pvalue


def ancestral_law(joint, alphas):
  """The law of ancestral sampling in few steps: what a step reveals is independent.

  Sum over the step at which each position is revealed.
  """
  table = exact.posterior_table(joint)
  length, clean = joint.ndim, joint.shape[0]
  law = np.zeros(joint.shape)
  steps = range(len(alphas) - 1)
  for path in itertools.product(steps, repeat=length):
    weight = np.prod(np.diff(alphas)[list(path)])
    for x in itertools.product(range(clean), repeat=length):
      p = 1.0
      for i, at in enumerate(path):
        seen = tuple(v if when < at else clean for v, when in zip(x, path, strict=True))
        p *= np.exp(np.float64(table[seen][i, x[i]]))
      law[x] += weight * p
  return law


def test_first_hitting_draws_from_the_joint_law():
  found = sample_table(jax.random.key(14), FirstHitting(), 3)
  assert found.evaluations == 3
  assert p_value(found.tokens, JOINT) > P_VALUE


def test_ancestral_draws_from_its_exact_law():
  alphas = np.array([0, 1 - (1 - EPS) * 2 / 3, 1 - (1 - EPS) / 3, 1])
  law = ancestral_law(JOINT, alphas)
  np.testing.assert_allclose(law.sum(), 1, rtol=1e-6)
  found = sample_table(jax.random.key(15), Ancestral(), 3)
  assert p_value(found.tokens, law) > P_VALUE
  # Three steps are not the joint law, and the test can tell.
  assert p_value(found.tokens, JOINT) < 1e-20


@pytest.mark.long
def test_ancestral_with_many_steps_draws_from_the_joint_law():
  steps = 256
  # All bias comes from two positions in one step: 3 pairs, each 1 in 256. Of 16,384
  # samples that moves at most 192, while their noise is about 45 per cell.
  found = sample_table(jax.random.key(16), Ancestral(), steps)
  alphas = np.array([0, 1 - (1 - EPS) * 0.5, 1])
  assert p_value(found.tokens, JOINT) > P_VALUE
  assert p_value(found.tokens, ancestral_law(JOINT, alphas)) < 1e-20


def test_first_hitting_order_is_a_random_permutation():
  count, masked = 20_000, np.array([True, True, False, True])
  start = quick_jit(
    lambda key: FirstHitting().start(
      jax.random.split(key, count), jnp.tile(masked[None], (count, 1)), LogLinear(), 5
    )
  )
  turns = np.asarray(start(jax.random.key(17)).reveal_step)
  orders, counts = np.unique(turns[:, masked], axis=0, return_counts=True)
  assert sorted(map(tuple, orders)) == sorted(itertools.permutations(range(3)))
  assert stats.chisquare(counts).pvalue > P_VALUE
  # What is not to be written comes after everything that is.
  assert np.all(turns[:, ~masked] == 3)


@pytest.mark.parametrize('number', [1, 4])
def test_first_hitting_times_are_order_statistics(number):
  # alpha = 1 - t: positions are masked until independent uniform times, so event i of
  # n happens at the (n - i)-th smallest, of law Beta(n - i, i + 1).
  batch, steps = 4096, 6
  masked = jnp.tile(jnp.arange(5)[None] < number, (batch, 1))
  schedule = LogLinear(eps=1e-6)
  plan = quick_jit(
    lambda key: FirstHitting().start(
      jax.random.split(key, batch), masked, schedule, steps
    )
  )(jax.random.key(18))
  sigmas = np.float64(plan.sigmas)
  assert sigmas.shape == (steps, batch)
  times = -np.expm1(-sigmas) / (1 - 1e-6)
  assert np.all(np.diff(sigmas, axis=0) <= 0)
  for i in range(number):
    law = stats.beta(number - i, i + 1)
    assert stats.kstest(times[i], law.cdf).pvalue > P_VALUE
    assert abs(times[i].mean() - law.mean()) < 4 * law.std() / np.sqrt(batch)
  assert sigmas.max() <= -np.log(1e-6) + 1e-2
