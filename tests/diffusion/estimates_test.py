"""Recipes against a loop over examples with NumPy; their counts and costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import estimates
from scmdm_jax.diffusion.estimates import Estimate, mixed_signal, passes_taken
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.diffusion.schedules import LogLinear
from tests.compiling import quick_jit, split_key
from tests.diffusion import drawn, toys

WEIGHTS = toys.weights(0)
SCHEDULE = LogLinear()
quick_gap = quick_jit(
  lambda key, low, high: jax.random.uniform(key, minval=low, maxval=high)
)


def written_out_loss(key, batch, rate, estimate):
  """Example by example, pass by pass."""
  network = toys.network_np(WEIGHTS)
  key_t, key_mask, key_rate, key_gap, _ = split_key(key, 5)
  x_0, times = batch.tokens, drawn.times(key_t, batch)
  threshold = drawn.thresholds(key_mask, batch)
  taken = drawn.taken(key_rate, batch, rate, estimate.passes)
  gaps = np.zeros(len(x_0))
  if estimate.high:
    low, high = math.log(estimate.low), math.log(estimate.high)
    keys = drawn.keys_of(key_gap, batch)
    gaps = np.exp([float(quick_gap(key, low, high)) for key in keys])
  total = 0.0
  for b in range(len(x_0)):

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


@pytest.mark.slow
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
    lambda key, batch: diffusion_loss(
      key,
      network,
      network,
      batch,
      schedule=SCHEDULE,
      mask_id=toys.MASK,
      rate=rate,
      estimate=estimate,
    )
  )
  for seed in range(4):
    batch = drawn.clean(toys.clean_tokens(seed, 6), seed % 2, first=10 * seed)
    key = jax.random.key(seed)
    # Float32 logits times weights up to 1 / T_MIN.
    wanted = written_out_loss(key, batch, rate, estimate)
    assert loss(key, batch) == pytest.approx(wanted, rel=2e-4)


def test_recipes_differ():
  batch, key = drawn.clean(toys.clean_tokens(1, 6)), jax.random.key(1)
  texts = ['same_t', 'unrolled', 'unrolled:passes=2', 'earlier_t']
  found = {written_out_loss(key, batch, 1.0, estimates.parse(text)) for text in texts}
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
  batch = drawn.clean(toys.clean_tokens(7, 6))
  jax.eval_shape(
    lambda key: diffusion_loss(
      key,
      network,
      network,
      batch,
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


@pytest.mark.parametrize(('rate', 'passes'), [(1.0, 3), (0.9, 3), (0.5, 1), (0.37, 5)])
def test_passes_are_shared_out_evenly_and_the_same_in_any_cut(rate, passes):
  n = 3000
  batch = drawn.clean(np.zeros((n, 1), np.int32), epoch=4)
  taking = quick_jit(lambda key, b: passes_taken(key, b, rate, passes))
  key = jax.random.key(3)
  taken = np.asarray(taking(key, batch))
  assert taken.tolist() == drawn.taken(key, batch, rate, passes)
  # Any run of examples has its share, so that shards and micro-batches are alike.
  for run in (5, 16, 100):
    for i in range(passes):
      share = run * rate * (passes - i) / passes
      counts = np.convolve(taken > i, np.ones(run), 'valid')
      most = estimates.most_taking(rate, passes, i, run)
      assert counts.max() <= most
      assert share - 2 < counts.min() and most < share + 2
  # What an example draws does not depend on the rows beside it.
  part = jax.tree.map(lambda x: x[7:2000:5], batch)
  np.testing.assert_array_equal(taking(key, part), taken[7:2000:5])


def test_one_example_takes_every_number_of_passes_over_the_epochs():
  n, rate, passes = 4000, 0.9, 3
  place = np.full(n, 17, np.int32)
  epochs = Batch(np.zeros((n, 1)), place, np.arange(n, dtype=np.int32), place)
  taking = quick_jit(lambda key, b: passes_taken(key, b, rate, passes))
  taken = np.asarray(taking(jax.random.key(5), epochs))
  for count, share in [(0, 0.1), (1, 0.3), (2, 0.3), (3, 0.3)]:
    error = np.sqrt(share * (1 - share) / n)
    assert abs((taken == count).mean() - share) < 4 * error


def test_no_gradient_flows_into_any_pass():
  # Not even through a signal table that learns: all but the last pass is constant.
  x_t = jnp.full((3, toys.LENGTH), toys.MASK, jnp.int32)
  sigma = jnp.ones(3)

  def signal(w, passes):
    frozen = toys.network(jax.lax.stop_gradient(w))
    taken = jnp.array([3, 2, 1])
    return mixed_signal(
      toys.network(w), frozen, [(x_t, sigma)] * passes, toys.MASK, taken, 1.0
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
