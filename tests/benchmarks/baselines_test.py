"""The straightforward samplers draw from the same law as the package's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.benchmarks import baselines
from scmdm_jax.diffusion.schedules import LogLinear
from tests.compiling import quick_jit, split_key
from tests.diffusion import exact, toys

PROBS = np.array([0.5, 0.3, 0.0, 0.199, 1e-3])


def test_marginals():
  batch, length = 256, 64
  network = toys.fixed_network(np.maximum(PROBS, 1e-38))
  x_init = jnp.full((batch, length), 2, jnp.int32)
  found = quick_jit(
    lambda keys: baselines.scanned(keys, network, x_init, LogLinear(), 2, 5)
  )(split_key(jax.random.key(0), batch))
  counts = np.bincount(np.ravel(found), minlength=5)
  real = PROBS > 0
  assert counts[2] == 0
  wanted = counts.sum() * PROBS[real]
  assert stats.chisquare(counts[real], wanted).pvalue > 1e-4


@pytest.mark.parametrize('wait', [True, False])
def test_the_python_loop_is_the_scan(wait):
  network = toys.network(toys.weights(1))
  keys = split_key(jax.random.key(2), 6)
  x_init = jnp.full((6, toys.LENGTH), toys.MASK, jnp.int32)
  step = quick_jit(lambda *inputs: baselines.vanilla_step(network, *inputs, toys.MASK))
  looped = baselines.python_loop(step, keys, x_init, LogLinear(), 4, wait=wait)
  scanned = quick_jit(
    lambda keys: baselines.scanned(keys, network, x_init, LogLinear(), toys.MASK, 4)
  )(keys)
  np.testing.assert_array_equal(looped, scanned)


def test_exact_joint_with_many_steps():
  joint = exact.random_joint(3, clean=2, length=2)
  network = exact.table_network(jnp.asarray(exact.posterior_table(joint)))
  n = 20_000
  x_init = jnp.full((n, 2), 2, jnp.int32)
  found = np.asarray(
    quick_jit(
      lambda keys: baselines.scanned(keys, network, x_init, LogLinear(), 2, 64)
    )(split_key(jax.random.key(4), n))
  )
  counts = np.bincount(found[:, 0] * 2 + found[:, 1], minlength=4)
  # Both revealed in one of 64 steps, as if independent: a bias of 1/64 at most.
  wanted = n * joint.ravel()
  assert np.all(np.abs(counts - wanted) < 4 * np.sqrt(wanted) + wanted / 64)
