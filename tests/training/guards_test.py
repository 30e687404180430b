"""Steps that are skipped, against the same run without their batches."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scmdm_jax.errors import DamagedData
from scmdm_jax.training import guards, loop
from scmdm_jax.training.guards import Guard, GuardConfig
from scmdm_jax.training.step import (
  OptimizerConfig,
  TrainState,
  initial_state,
  make_optimizer,
  make_train_step,
)
from tests.training import loop_test

KEY = jax.random.key(0)
OPTIMIZER = OptimizerConfig(weight_decay=0.1)


def cubic(key, params, tokens):
  """A loss that overflows where a token is huge, and NaN where one is negative."""
  del key
  x = tokens.astype(jnp.float32)
  return jnp.mean((jnp.sqrt(x) @ params['w']) ** 2)


STEP = make_train_step(cubic, OPTIMIZER)


def start():
  return initial_state({'w': jnp.array([0.3, -0.2, 0.5])}, OPTIMIZER)


def batch(seed):
  return np.random.default_rng(seed).integers(0, 5, (4, 3)).astype(np.int32)


BAD = np.full((4, 3), -1, np.int32)


def as_bytes(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
  state, _ = STEP(start(), batch(0), KEY, np.float32(0.1))
  before = as_bytes(state[1:])
  state, metrics = STEP(state, BAD, KEY, np.float32(0.1))
  assert np.isnan(metrics['loss'])
  assert as_bytes(state[1:]) == before
  assert state.step == 2


def test_sound_steps_have_the_bits_of_a_step_without_a_guard():
  """The reference is the same formulas without the choice between old and new."""
  optimizer = make_optimizer(OPTIMIZER)

  @jax.jit
  def plain(state, tokens, rate):
    loss, grads = jax.value_and_grad(cubic, argnums=1)(KEY, state.params, tokens)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(
      state.params, jax.tree.map(lambda u: rate * 1.0 * u, updates)
    )
    n = state.step.astype(jnp.float32)
    decay = jnp.minimum(OPTIMIZER.ema_decay, (1 + n) / (10 + n))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    return TrainState(state.step + 1, params, opt_state, ema), loss

  ours, wanted = start(), start()
  for seed in range(20):
    rate = np.float32(0.01 * seed)
    wanted, _ = plain(wanted, batch(seed), rate)
    ours, _ = STEP(ours, batch(seed), KEY, rate, np.full(2, np.inf, np.float32))
    assert as_bytes(ours) == as_bytes(wanted)


def test_one_program_with_and_without_limits():
  step = make_train_step(cubic, OPTIMIZER)
  state = start()
  for seed, limit in enumerate((np.inf, 3.0, 0.0, np.inf)):
    limits = np.full(2, limit, np.float32)
    state, _ = step(state, batch(seed), KEY, np.float32(0.1), limits)
  assert step._cache_size() == 1


@pytest.mark.parametrize('which', [0, 1])
def test_a_step_above_its_limit_changes_nothing(which):
  _, metrics = STEP(start(), batch(0), KEY, np.float32(0.1))
  value = float(metrics[('loss', 'grad_norm')[which]])
  before = as_bytes(start()[1:])
  for limit, stays in ((np.nextafter(np.float32(value), 0), True), (value, False)):
    limits = np.full(2, np.inf, np.float32)
    limits[which] = limit
    state, _ = STEP(start(), batch(0), KEY, np.float32(0.1), limits)
    assert (as_bytes(state[1:]) == before) == stays


def metrics_of(loss, norm=1.0):
  return {'loss': loss, 'grad_norm': norm}


def test_so_many_in_a_row_and_no_more(caplog):
  guard = Guard(GuardConfig(skip_limit=3))
  assert guard.judge(1, metrics_of(1.0))
  for step in (2, 3, 4):
    assert not guard.judge(step, metrics_of(float('nan')))
  assert guard.judge(5, metrics_of(1.0))
  assert caplog.messages == [
    'up to step 4: 3 steps skipped, the last since loss is nan; 3 in all'
  ]
  for step in (6, 7, 8):
    assert not guard.judge(step, metrics_of(1.0, float('inf')))
  with pytest.raises(DamagedData) as caught:
    guard.judge(9, metrics_of(1.0, float('inf')))
  assert str(caught.value).startswith(
    'training stopped at step 9: grad_norm is inf; 4 steps in a row were skipped, the '
    'last good one is 5; the checkpoints before it are intact'
  )
  assert guard.skipped == 7


def test_limits_are_those_of_a_plain_loop():
  config = GuardConfig(spike_window=5, spike_sigma=2.5)
  rng = np.random.default_rng(0)
  values = rng.normal(3, 1, (60, 2)).astype(np.float32)
  values[[20, 33, 34]] *= 50
  guard, sound, skipped = Guard(config), [], []
  for step, (loss, norm) in enumerate(values, 1):
    # Known when the step is launched: sound steps up to the one before the last.
    window = [values[n - 1].astype(float) for n in sound if n <= step - 2][-5:]
    wanted = np.full(2, np.inf)
    if len(window) == 5:
      wanted = np.mean(window, 0) + 2.5 * np.std(window, 0)
    np.testing.assert_allclose(guard.limits(step), wanted, rtol=1e-6)
    if guard.judge(step, metrics_of(float(loss), float(norm))):
      sound.append(step)
    else:
      skipped.append(step)
    guard_state = json.loads(json.dumps(guard.state(), allow_nan=False))
    if step % 7 == 0:  # As if resumed.
      guard = Guard(config)
      guard.restore(guard_state, step)
  assert {21, 34, 35} <= set(skipped)
  assert guard.skipped == len(skipped)


def test_a_checkpoint_without_a_guard_is_taken():
  guard = Guard(GuardConfig())
  guard.restore({}, 40)
  assert guard.state() == {'skipped': 0, 'in_a_row': 0, 'good': 40, 'history': []}


class SomeBad(loop_test.Batches):
  """Batches of which some are not finite and one is a spike."""

  def __next__(self):
    tokens = super().__next__()
    if self.position in (4, 5):
      return np.full_like(tokens, -1)
    return tokens * 1000 if self.position == 8 else tokens


def test_a_run_with_skipped_steps_is_resumed_in_the_same_bits():
  config = dataclasses.replace(
    loop_test.CONFIG, guard=GuardConfig(spike_window=2, spike_sigma=50.0)
  )

  def train(store, fail_at=None):
    state = None
    with contextlib.suppress(loop_test.Interrupted):
      state = loop.train(
        start(), loop_test.keyed(STEP), SomeBad(fail_at), config, store=store
      )
    return state

  whole = loop_test.MemoryStore()
  wanted = train(whole)
  assert json.loads(whole.metadata[10])['guard']['skipped'] == 3
  for fail_at in range(10):
    store = loop_test.MemoryStore()
    train(store, fail_at)
    assert as_bytes(train(store)) == as_bytes(wanted)
    assert store.metadata == whole.metadata


@pytest.mark.parametrize(
  'values', [{'skip_limit': -1}, {'spike_sigma': 0.0}, {'step_timeout': -1}]
)
def test_a_guard_that_cannot_be(values):
  with pytest.raises(ValueError, match='wanted'):
    GuardConfig(**values)


@pytest.mark.slow
def test_stacks_are_dumped_where_a_step_hangs():
  program = (
    'import time\n'
    'from scmdm_jax.training import guards\n'
    'dog = guards.Watchdog(1)\n'
    'dog.step_ended()\n'
    'def hanging(): time.sleep(1.9)\n'
    'hanging()\n'
    'dog.close()\n'
    'time.sleep(1.2)\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=100,
    check=True,
  )
  assert result.stderr.count('Timeout (0:00:01)!') == 1
  assert 'in hanging' in result.stderr


def test_verdicts_of_host_and_device_agree():
  values = np.float32([0, 1, 3e38, np.inf, np.nan, -np.inf])
  limits = np.float32([1, np.inf])
  for loss in values:
    for norm in values:
      guard = Guard(GuardConfig(skip_limit=1))
      guard.limits = lambda step: limits
      device = bool(guards.is_sound(loss, norm, limits))
      assert guard.judge(1, metrics_of(float(loss), float(norm))) == device
