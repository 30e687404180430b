"""Recipes against a loop over examples with NumPy; their counts and costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import estimates
from scmdm_jax.diffusion.estimates import Estimate, mixed_signal, passes_taken
from scmdm_jax.diffusion.objectives import T_MIN, diffusion_loss
from scmdm_jax.diffusion.schedules import LogLinear, antithetic_times
from tests.compiling import quick_jit, split_key, uniform
from tests.diffusion import toys

WEIGHTS = toys.weights(0)
SCHEDULE = LogLinear()
quick_times = quick_jit(antithetic_times, static_argnums=(1, 2))
quick_fold = quick_jit(jax.random.fold_in, static_argnums=1)
quick_gap = quick_jit(
  lambda key, size, low, high: jax.random.uniform(
    key, (size,), minval=low, maxval=high
  ),
  static_argnums=1,
)


def numbers(u, batch, rate, passes):
  """n of each example by the documented rule: nested shares, the last by chance."""
  return [
    sum(i + u < rate * (passes - k) / passes * batch for k in range(passes))
    for i in range(batch)
  ]


def written_out_loss(key, x_0, rate, estimate):
  """Example by example, pass by pass."""
  network = toys.network_np(WEIGHTS)
  key_t, key_mask, key_rate = split_key(key, 3)
  batch = len(x_0)
  times = np.asarray(quick_times(key_t, batch, T_MIN), np.float64)
  threshold = np.asarray(uniform(key_mask, x_0.shape))
  taken = numbers(float(uniform(key_rate, ())), batch, rate, estimate.passes)
  gaps = np.zeros(batch)
  if estimate.high:
    low, high = math.log(estimate.low), math.log(estimate.high)
    key_gap = quick_fold(key_rate, 1)
    gaps = np.exp(np.asarray(quick_gap(key_gap, batch, low, high), np.float64))
  total = 0.0
  for b in range(batch):

    def predict(t, signal, b=b):
      alpha = 1 - (1 - SCHEDULE.eps) * t
      x = np.where(threshold[b : b + 1] < alpha, x_0[b : b + 1], toys.MASK)
      sigma = np.float32([-np.log(alpha)])
      logits = network.logits(network.encode(x, signal, sigma))
      return x, toys.softmax_np(logits, toys.MASK)

    signal = np.zeros((1, toys.LENGTH, toys.DIM))
    for k in range(taken[b]):
      t = min(times[b] + (taken[b] - k) * gaps[b], 1)
      _, probs = predict(t, signal)
      signal = network.signal(probs)
    x_t, probs = predict(times[b], signal)
    weight = 1 / times[b]  # Log-linear: -alpha' / (1 - alpha).
    total += weight * toys.nll_np(probs, x_0[b : b + 1])[x_t == toys.MASK].sum()
  return total / x_0.size


@pytest.mark.parametrize('rate', [1.0, 0.9, 0.5])
@pytest.mark.parametrize(
  'text',
  [
    'same_t',
    'unrolled',
    'unrolled:passes=2',
    'earlier_t',
    'earlier_t:passes=2,low=0.1',
  ],
)
def test_equals_a_loop_over_examples(text, rate):
  estimate = estimates.parse(text)
  network = toys.network(WEIGHTS)
  loss = quick_jit(
    lambda key, x_0: diffusion_loss(
      key,
      network,
      network,
      x_0,
      schedule=SCHEDULE,
      mask_id=toys.MASK,
      rate=rate,
      estimate=estimate,
    )
  )
  for seed in range(4):
    x_0 = toys.clean_tokens(seed, 6)
    key = jax.random.key(seed)
    # Float32 logits times weights up to 1 / T_MIN.
    wanted = written_out_loss(key, x_0, rate, estimate)
    assert loss(key, x_0) == pytest.approx(wanted, rel=2e-4)


def test_recipes_differ():
  x_0, key = toys.clean_tokens(1, 6), jax.random.key(1)
  texts = ['same_t', 'unrolled', 'unrolled:passes=2', 'earlier_t']
  found = {written_out_loss(key, x_0, 1.0, estimates.parse(text)) for text in texts}
  assert len(found) == len(texts)


@pytest.mark.parametrize(
  ('rate', 'passes', 'batches'),
  [
    (1.0, 1, [6, 6]),
    (1.0, 3, [6, 4, 2, 6]),
    (0.5, 3, [3, 2, 1, 6]),
    (0.9, 3, [6, 4, 2, 6]),
  ],
)
def test_passes_cover_only_what_they_must(rate, passes, batches):
  seen = []
  network = toys.network(WEIGHTS, lambda x_t, *_: seen.append(x_t.shape[0]))
  x_0 = jnp.asarray(toys.clean_tokens(7, 6))
  jax.eval_shape(
    lambda key: diffusion_loss(
      key,
      network,
      network,
      x_0,
      schedule=SCHEDULE,
      mask_id=toys.MASK,
      rate=rate,
      estimate=Estimate(passes),
    ),
    jax.random.key(0),
  )
  assert seen == batches
  if rate != 0.9:  # Whole numbers: the stated cost is what is done.
    cost = (sum(batches[:-1]) + 3 * batches[-1]) / (3 * batches[-1])
    assert Estimate(passes).cost(rate) == pytest.approx(cost)


def test_numbers_of_passes_are_uniform_on_the_conditioned():
  n, batch, rate, passes = 4000, 5, 0.9, 3
  taken = quick_jit(
    jax.vmap(lambda key: passes_taken(key, 2 * batch, 2, rate, passes))
  )(split_key(jax.random.key(3), n))
  taken = np.asarray(taken)
  assert np.array_equal(taken[:, :batch], taken[:, batch:])  # Shards alike.
  assert np.all(np.diff(taken[:, :batch], axis=1) <= 0)
  for count, share in [(0, 0.1), (1, 0.3), (2, 0.3), (3, 0.3)]:
    # Nested shares of one draw: between 0 and 1 of 5 examples by chance.
    assert abs((taken == count).mean() - share) < 4 * 0.5 / batch / np.sqrt(n)


def test_no_gradient_flows_into_any_pass():
  # Not even through a signal table that learns: all but the last pass is constant.
  x_t = jnp.full((3, toys.LENGTH), toys.MASK, jnp.int32)
  sigma = jnp.ones(3)

  def signal(w, passes):
    frozen = toys.network(jax.lax.stop_gradient(w))
    return mixed_signal(
      jax.random.key(0),
      toys.network(w),
      frozen,
      passes * [(x_t, sigma)],
      toys.MASK,
      1.0,
    ).sum()

  def last_only(w):
    """Example 2 takes one pass, example 1 two, example 0 three."""
    network = toys.network_np(WEIGHTS)
    total = 0.0
    for b, n in enumerate([3, 2, 1]):
      told = np.zeros((1, toys.LENGTH, toys.DIM))
      for _ in range(n):
        logits = network.logits(
          network.encode(np.asarray(x_t[b : b + 1]), told, np.ones(1))
        )
        probs = toys.softmax_np(logits, toys.MASK)
        told = network.signal(probs)
      total += (probs @ w['table']).sum()
    return total

  found = quick_jit(jax.grad(signal), static_argnums=1)(WEIGHTS, 3)
  wanted = jax.grad(last_only)(jax.tree.map(jnp.asarray, WEIGHTS))
  np.testing.assert_allclose(found['table'], wanted['table'], rtol=1e-4, atol=1e-5)
  assert not any(np.any(g) for name, g in found.items() if name != 'table')


@pytest.mark.parametrize(
  'text',
  [
    'chain',
    'same_t:passes=2',
    'unrolled:passes=0',
    'unrolled:passes=1.5',
    'unrolled:low=0.1',
    'earlier_t:low=0',
    'earlier_t:low=0.5,high=0.1',
    'earlier_t:high=nan',
  ],
)
def test_what_is_no_recipe(text):
  assert not estimates.is_estimate(text)
