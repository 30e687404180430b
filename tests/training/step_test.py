import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import noise
from scmdm_jax.training.step import OptimizerConfig, initial_state, make_train_step

KEY = jax.random.key(0)


def quadratic(key, params, tokens):
  """Mean over the batch of (w . x - b)^2; the key is ignored."""
  del key
  return jnp.mean((tokens @ params['w'] - params['b']) ** 2)


def start(dtype=np.float32):
  return {'w': jnp.array([0.3, -0.2, 0.5], dtype), 'b': jnp.array(0.1, dtype)}


def batches(count, size=8):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 5, (size, 3)).astype(np.int32) for _ in range(count)]


def numpy_adamw(params, batches, rates, config):
  """AdamW (Loshchilov & Hutter, algorithm 2) behind a clip, in float64.

  Returns parameters and warmed-up average after each step, and losses and norms.
  """
  p = np.array([*params['w'], params['b']], np.float64)
  m, v, ema = np.zeros(4), np.zeros(4), p.copy()
  history = []
  for n, (x, rate) in enumerate(zip(batches, rates, strict=True)):
    features = np.concatenate([x, -np.ones((len(x), 1))], axis=1)
    residual = features @ p
    loss, grad = np.mean(residual**2), 2 * features.T @ residual / len(x)
    norm = np.sqrt(np.sum(grad**2))
    grad = grad * min(1.0, config.clip / norm)
    m = config.b1 * m + (1 - config.b1) * grad
    v = config.b2 * v + (1 - config.b2) * grad**2
    m_hat, v_hat = m / (1 - config.b1 ** (n + 1)), v / (1 - config.b2 ** (n + 1))
    p = p - rate * (m_hat / (np.sqrt(v_hat) + config.eps) + config.weight_decay * p)
    decay = min(config.ema_decay, (1 + n) / (10 + n))
    ema = decay * ema + (1 - decay) * p
    history.append((p, ema, loss, norm))
  return history


def flat(tree):
  return np.array([*tree['w'], tree['b']], np.float64)


@pytest.mark.parametrize(
  'config',
  [
    OptimizerConfig(clip=1.0, weight_decay=0.1, ema_decay=0.15),
    OptimizerConfig(clip=1e6, weight_decay=0.0, ema_decay=0.9999),
    OptimizerConfig(clip=0.5, b1=0.8, b2=0.99, eps=1e-3, ema_decay=0.0),
  ],
)
def test_steps_equal_a_numpy_adamw(config):
  data, rates = batches(5), np.float32([0.1, 0.05, 0.0, 0.2, 0.01])
  wanted = numpy_adamw(start(), data, rates, config)
  step = make_train_step(quadratic, config)
  state = initial_state(start(), config)
  for n, (x, rate) in enumerate(zip(data, rates, strict=True)):
    state, metrics = step(state, x, KEY, rate)
    params, ema, loss, norm = wanted[n]
    # In float32 1 - 0.999^n is off by 6e-5 relative, so a step of 0.1 by some 3e-6;
    # a missing decay, clip or bias correction shows at 1e-3 and more.
    np.testing.assert_allclose(flat(state.params), params, rtol=0, atol=2e-5)
    np.testing.assert_allclose(flat(state.ema), ema, rtol=0, atol=2e-5)
    np.testing.assert_allclose(metrics['loss'], loss, rtol=2e-4)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=2e-4)
    assert metrics['learning_rate'] == rate
    assert metrics.keys() == {'loss', 'grad_norm', 'learning_rate'}
    assert state.step == n + 1


def test_a_group_may_have_a_faster_rate():
  # Adam divides by the gradient's size: the first update of a parameter is the rate.
  config = OptimizerConfig(rate_factors=(('w', 3.0), ('absent', 9.0)), eps=1e-12)
  step = make_train_step(quadratic, config)
  before = flat(start())
  state, metrics = step(initial_state(start(), config), batches(1)[0], KEY, 0.01)
  moved = np.abs(flat(state.params) - before)
  np.testing.assert_allclose(moved, [0.03, 0.03, 0.03, 0.01], rtol=1e-4)
  np.testing.assert_allclose(metrics['learning_rate'], 0.01, rtol=1e-6)


def test_the_norm_is_reported_before_the_clip():
  config = OptimizerConfig(clip=1e-3)
  step = make_train_step(quadratic, config)
  _, metrics = step(initial_state(start(), config), batches(1)[0], KEY, np.float32(0))
  assert metrics['grad_norm'] > 1


def test_average_of_bfloat16_parameters_does_not_freeze():
  # At decay 0.9999 a bfloat16 average would stand still: 1 + 1e-4 rounds to 1.
  config = OptimizerConfig(ema_decay=0.9999)
  params = start(jnp.bfloat16)
  state = initial_state(params, config)
  assert {x.dtype for x in jax.tree.leaves(state.ema)} == {np.dtype(np.float32)}
  # Beyond the warm-up: (1 + n) / (10 + n) > 0.9999 from n = 89,990 on.
  state = state._replace(step=jnp.int32(10**6))
  before = flat(state.ema)
  step = make_train_step(quadratic, config)
  state, _ = step(state, batches(1)[0], KEY, np.float32(0.1))
  moved = 1e-4 * (flat(state.params) - before)
  assert state.params['w'].dtype == jnp.bfloat16
  assert np.all(flat(state.ema) != before)
  # The change is 1e-5 on values below 1, each with 6e-8 of rounding.
  np.testing.assert_allclose(flat(state.ema) - before, moved, rtol=0, atol=2e-7)


@pytest.mark.parametrize('accumulate', [2, 4, 8])
def test_accumulated_micro_batches_equal_the_whole_batch(accumulate):
  (x,) = batches(1)
  results = []
  for count in (1, accumulate):
    config = OptimizerConfig(accumulate=count, weight_decay=0.1)
    step = make_train_step(quadratic, config)
    results.append(step(initial_state(start(), config), x, KEY, np.float32(0.1)))
  (whole, whole_metrics), (parts, parts_metrics) = results
  np.testing.assert_allclose(flat(parts.params), flat(whole.params), atol=1e-6)
  for name in whole_metrics:
    np.testing.assert_allclose(parts_metrics[name], whole_metrics[name], rtol=1e-6)


def noisy(key, params, batch):
  """A loss whose gradient is the noise of its examples."""
  return noise.thresholds(key, batch).mean() * params['b']


def test_noise_follows_the_examples_whatever_the_step_and_the_micro_batch():
  tokens = jnp.zeros((8, 3), jnp.int32)
  batch = noise.batch_of(tokens, epoch=2)
  turned = batch.number[::-1]
  found = []
  for accumulate, number in [(1, batch.number), (4, batch.number), (2, turned)]:
    config = OptimizerConfig(accumulate=accumulate)
    step = make_train_step(noisy, config)
    state = initial_state(start(), config)._replace(step=jnp.int32(len(found)))
    _, metrics = step(state, batch._replace(number=number), KEY, np.float32(0))
    found.append(float(metrics['loss']))
  # Means of the same 24 numbers, summed in another order.
  np.testing.assert_allclose(found, found[0], rtol=1e-6)
  other = noise.batch_of(tokens, epoch=3)
  assert abs(noisy(KEY, start(), other) - found[0]) > 1e-4


def test_the_share_of_padding_is_reported():
  config = OptimizerConfig()
  step = make_train_step(noisy, config)
  batch = noise.batch_of(jnp.zeros((4, 10), jnp.int32))
  padded = batch._replace(padding=jnp.array([0, 1, 2, 5]))
  state = initial_state(start(), config)
  _, metrics = step(state, padded, KEY, np.float32(0))
  assert metrics['padding'] == pytest.approx(0.2)


def test_the_state_is_donated():
  config = OptimizerConfig()
  state = initial_state(start(), config)
  step = make_train_step(quadratic, config)
  new, _ = step(state, batches(1)[0], KEY, np.float32(0.1))
  for name in ('params', 'opt_state', 'ema'):
    leaves = jax.tree.leaves(getattr(state, name))
    assert all(leaf.is_deleted() for leaf in leaves), name
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_the_average_starts_as_a_copy():
  params = start()
  state = initial_state(params, OptimizerConfig())
  for leaf, average in zip(
    jax.tree.leaves(params), jax.tree.leaves(state.ema), strict=True
  ):
    assert leaf.unsafe_buffer_pointer() != average.unsafe_buffer_pointer()
    np.testing.assert_array_equal(leaf, average)


def test_one_compilation_for_all_learning_rates():
  traces = []

  def counted(key, params, tokens):
    traces.append(1)
    return quadratic(key, params, tokens)

  config = OptimizerConfig()
  step = make_train_step(counted, config)
  state = initial_state(start(), config)
  for x, rate in zip(batches(4), np.float32([0, 0.1, 0.2, 1e-5]), strict=True):
    state, _ = step(state, x, KEY, rate)
  assert len(traces) == 1


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'accumulate': 0}, 'accumulate: found 0; wanted a number above 0'),
    ({'ema_decay': 3}, 'ema_decay: found 3; wanted a number from 0, below 1'),
    ({'clip': float('nan')}, 'clip: found nan; wanted a number above 0'),
    ({'weight_decay': -1.0}, 'weight_decay: found -1.0; wanted a number of at least 0'),
  ],
)
def test_an_optimizer_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    OptimizerConfig(**changes)
