"""Bounds against every trajectory enumerated, and against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion.likelihood import carried_nelbo, nelbo
from scmdm_jax.diffusion.objectives import T_MIN
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, antithetic_times
from tests.compiling import quick_jit, split_key, uniform
from tests.diffusion import exact, toys

# Two clean tokens around the mask, two positions: everything can be enumerated.
SMALL = {'vocab': 3, 'length': 2, 'dim': 3}
SMALL_MASK = 1
LOG_LINEAR = LogLinear()
WEIGHTS = toys.weights(0, **SMALL)
ALL_X_0 = [(0, 0), (0, 2), (2, 0), (2, 2)]
quick_times = quick_jit(antithetic_times, static_argnums=(1, 2))


def alphas_of(schedule, num_steps):
  t = 1 - np.arange(num_steps + 1) / num_steps
  if isinstance(schedule, LogLinear):
    alphas = 1 - (1 - schedule.eps) * t
  else:
    alphas = 1 - (1 - schedule.eps) * np.cos(np.pi / 2 * (1 - t))
  alphas[0], alphas[-1] = 0, 1
  return alphas


def enumerated(x_0, num_steps, schedule=LOG_LINEAR, self_conditioning=True):
  """(expected bound, exact log-likelihood of the chain) of one `x_0`."""
  paths = exact.chain_paths(
    toys.network_np(WEIGHTS),
    x_0,
    alphas_of(schedule, num_steps),
    SMALL_MASK,
    self_conditioning,
  )
  forward, bound, reverse = np.array(list(paths)).T
  assert forward.sum() == pytest.approx(1)
  return np.sum(forward * bound), np.log(reverse.sum())


@pytest.mark.parametrize(
  ('num_steps', 'schedule', 'self_conditioning'),
  [(2, LOG_LINEAR, True), (3, Cosine(), True), (3, LOG_LINEAR, False)],
)
def test_carried_nelbo_against_all_trajectories(num_steps, schedule, self_conditioning):
  network = toys.network(WEIGHTS)
  repeats = 20_000
  x_0 = np.repeat(np.array(ALL_X_0, np.int32), repeats, axis=0)
  found = quick_jit(
    lambda key, x_0: carried_nelbo(
      key,
      network,
      x_0,
      schedule=schedule,
      mask_id=SMALL_MASK,
      num_steps=num_steps,
      self_conditioning=self_conditioning,
    )
  )(jax.random.key(1), x_0)
  found = np.asarray(found, np.float64).reshape(4, repeats)
  for row, tokens in zip(found, ALL_X_0, strict=True):
    wanted, _ = enumerated(tokens, num_steps, schedule, self_conditioning)
    error = row.std(ddof=1) / np.sqrt(repeats)
    assert 0 < error < 0.02 * wanted
    assert abs(row.mean() - wanted) < 4 * error


def test_the_signal_changes_the_bound():
  # Otherwise the test above could not tell a carried from a dropped signal.
  for tokens in ALL_X_0:
    carried, _ = enumerated(tokens, 3)
    vanilla, _ = enumerated(tokens, 3, self_conditioning=False)
    assert abs(carried - vanilla) > 0.05 * vanilla


@pytest.mark.parametrize('self_conditioning', [True, False])
def test_bounds_the_likelihood_of_the_chain(self_conditioning):
  total = 0.0
  for tokens in ALL_X_0:
    bound, log_p = enumerated(tokens, 2, self_conditioning=self_conditioning)
    assert bound >= -log_p
    total += np.exp(log_p)
  assert total == pytest.approx(1)


def test_the_enumerated_chain_is_the_sampler():
  batch, num_steps = 20_000, 3
  found = quick_jit(
    lambda keys: (
      sample(
        keys,
        toys.network(WEIGHTS),
        jnp.full((batch, 2), SMALL_MASK, jnp.int32),
        Sampler(num_steps, schedule=LOG_LINEAR),
        mask_id=SMALL_MASK,
      ).tokens
    )
  )(split_key(jax.random.key(2), batch))
  found = np.asarray(found)
  counts = [np.sum(np.all(found == tokens, axis=1)) for tokens in ALL_X_0]
  probs = np.exp([enumerated(tokens, num_steps)[1] for tokens in ALL_X_0])
  assert sum(counts) == batch
  assert stats.chisquare(counts, batch * probs / probs.sum()).pvalue > 1e-4


@pytest.mark.parametrize('self_conditioning', [True, False])
@pytest.mark.parametrize('num_steps', [1, 4])
def test_carried_nelbo_against_a_plain_loop(num_steps, self_conditioning):
  w = toys.weights(3)
  key, x_0 = jax.random.key(4), toys.clean_tokens(5, 6)
  found = quick_jit(
    lambda key, x_0: carried_nelbo(
      key,
      toys.network(w),
      x_0,
      schedule=LOG_LINEAR,
      mask_id=toys.MASK,
      num_steps=num_steps,
      self_conditioning=self_conditioning,
    )
  )(key, x_0)
  threshold = np.asarray(uniform(key, x_0.shape))
  network, alphas = toys.network_np(w), alphas_of(LOG_LINEAR, num_steps)
  wanted = np.zeros(len(x_0))
  signal = np.zeros((*x_0.shape, toys.DIM), np.float32)
  for alpha_t, alpha_s in itertools.pairwise(alphas):
    x_t = np.where(threshold < alpha_t, x_0, toys.MASK)
    sigma = -np.log(max(alpha_t, 1e-3))  # alpha(1) is eps, where the chain has 0.
    hidden = network.encode(x_t, signal, np.full(len(x_0), sigma, np.float32))
    probs = toys.softmax_np(network.logits(hidden), toys.MASK)
    loss = np.where(x_t == toys.MASK, toys.nll_np(probs, x_0), 0).sum(-1)
    wanted += (alpha_s - alpha_t) / (1 - alpha_t) * loss
    if self_conditioning:
      signal = np.float32(network.signal(probs))
  assert found.shape == (6,) and found.dtype == jnp.float32
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize('passes', [1, 2, 3])
def test_nelbo_against_a_plain_loop(passes):
  w = toys.weights(6)
  key, x_0 = jax.random.key(7), toys.clean_tokens(8, 6)
  found = quick_jit(
    lambda key, x_0: nelbo(
      key,
      toys.network(w),
      x_0,
      schedule=LOG_LINEAR,
      mask_id=toys.MASK,
      passes=passes,
    )
  )(key, x_0)
  key_t, key_mask = split_key(key, 2)
  t = np.asarray(quick_times(key_t, 6, T_MIN), np.float64)
  alpha = 1 - (1 - LOG_LINEAR.eps) * t
  u = np.asarray(uniform(key_mask, x_0.shape))
  x_t = np.where(u < alpha[:, None], x_0, toys.MASK)
  network = toys.network_np(w)
  signal = np.zeros((*x_0.shape, toys.DIM), np.float32)
  for _ in range(passes):
    hidden = network.encode(x_t, signal, np.float32(-np.log(alpha)))
    probs = toys.softmax_np(network.logits(hidden), toys.MASK)
    signal = np.float32(network.signal(probs))
  nll = np.where(x_t == toys.MASK, toys.nll_np(probs, x_0), 0).sum(-1)
  wanted = (1 - LOG_LINEAR.eps) / (1 - alpha) * nll
  assert found.shape == (6,) and np.any(wanted > 0)
  # 1 - alpha loses digits where little is masked.
  np.testing.assert_allclose(found, wanted, rtol=2e-4)


def test_nelbo_of_independent_tokens():
  probs = np.array([0.6, 0.3, 1e-38, 0.1])
  x_0 = np.tile(np.int32([0, 1, 3]), (2**14, 1))
  found = quick_jit(
    lambda key, x_0: nelbo(
      key,
      toys.fixed_network(probs),
      x_0,
      schedule=LOG_LINEAR,
      mask_id=2,
      passes=1,
    )
  )(jax.random.key(9), x_0)
  found = np.asarray(found, np.float64)
  # Up to the mass that the schedule leaves visible at t = 1.
  wanted = (1 - LOG_LINEAR.eps) * -np.log(probs[[0, 1, 3]]).sum()
  error = found.std(ddof=1) / np.sqrt(len(found))
  assert error < 0.02 * wanted
  assert abs(found.mean() - wanted) < 4 * error


def test_equal_keys_give_common_masks():
  seen = {}

  def watched(name, seed):
    def note(x_t):
      seen.setdefault(name, []).append(np.asarray(x_t))

    return toys.network(
      toys.weights(seed),
      lambda x_t, *_: jax.debug.callback(note, x_t, ordered=True),
    )

  common = {'schedule': LOG_LINEAR, 'mask_id': toys.MASK}

  @quick_jit
  def run(key, x_0):
    return (
      nelbo(key, watched('two', 1), x_0, passes=2, **common),
      nelbo(key, watched('one', 2), x_0, passes=1, **common),
      carried_nelbo(key, watched('carried', 1), x_0, num_steps=3, **common),
      carried_nelbo(
        key, watched('vanilla', 2), x_0, num_steps=3, self_conditioning=False, **common
      ),
    )

  jax.block_until_ready(run(jax.random.key(10), toys.clean_tokens(11, 6)))
  jax.effects_barrier()
  # Both passes at the same x_t, and the same for another network.
  assert len(seen['two']) == 2 and len(seen['one']) == 1
  assert np.array_equal(*seen['two'])
  assert np.array_equal(seen['two'][0], seen['one'][0])
  assert len(seen['carried']) == 3
  assert np.array_equal(seen['carried'], seen['vanilla'])
  assert np.all(seen['carried'][0] == toys.MASK)
