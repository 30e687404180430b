import contextlib
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.checkpoints.training_store import TrainingStore
from scmdm_jax.errors import DamagedData, Stopped
from scmdm_jax.training import guards, loop
from scmdm_jax.training.loop import LoopConfig
from scmdm_jax.training.step import OptimizerConfig, initial_state, make_train_step

CONFIG = LoopConfig(
  num_steps=10,
  learning_rate=0.1,
  final_learning_rate=0.01,
  warmup_steps=2,
  save_every=3,
  log_every=2,
)
OPTIMIZER = OptimizerConfig(weight_decay=0.1)


def loss(key, params, tokens):
  """Noisy least squares, so that keys, data and optimizer all matter."""
  noise = jax.random.normal(key, (tokens.shape[0],))
  return jnp.mean((tokens @ params['w'] - noise) ** 2)


STEP = make_train_step(loss, OPTIMIZER)


def start():
  return initial_state({'w': jnp.array([0.3, -0.2, 0.5])}, OPTIMIZER)


class Interrupted(Exception):
  pass


class Batches:
  """Batch n is drawn from seed n; may be told to fail."""

  def __init__(self, fail_at=None):
    self.position = 0
    self.fail_at = fail_at

  def __next__(self):
    if self.position == self.fail_at:
      raise Interrupted
    rng = np.random.default_rng(self.position)
    self.position += 1
    return rng.integers(0, 5, (4, 3)).astype(np.int32)

  def get_state(self):
    return {'position': self.position}

  def set_state(self, state):
    self.position = state['position']


class Writer:
  def __init__(self):
    self.lines, self.steps = {}, []

  def begin(self, first_step):
    assert not self.steps

  def write(self, step, metrics):
    assert step not in self.lines
    self.lines[step] = dict(metrics)

  def progress(self, step, metrics):
    assert metrics.keys() == {'loss', 'grad_norm', 'learning_rate'}
    assert all(isinstance(value, float) for value in metrics.values())
    self.steps.append(step)


class MemoryStore:
  def __init__(self):
    self.saved, self.metadata = {}, {}

  def sound_step(self, fall_back):
    return self.latest_step()

  def raise_if_failed(self):
    pass

  def save(self, step, state, data_state, metadata):
    # Copies: the loop donates the state to the next step. JSON: what a file keeps.
    self.saved[step] = (jax.tree.map(np.array, state), data_state)
    self.metadata[step] = json.dumps(metadata, allow_nan=False)

  def latest_step(self):
    return max(self.saved, default=None)

  def restore(self, step, abstract_state):
    state, data_state = self.saved[step]
    for leaf, abstract in zip(
      jax.tree.leaves(state), jax.tree.leaves(abstract_state), strict=True
    ):
      assert (leaf.shape, leaf.dtype) == (abstract.shape, abstract.dtype)
    metadata = json.loads(self.metadata[step])
    return jax.tree.map(jnp.asarray, state), data_state, metadata


def keyed(step):
  """A step of the compiled kind as the loop takes it."""
  key = jax.random.key(7)
  return lambda state, tokens, *rest: step(state, tokens, key, *rest)


def train(store=None, *, fail_at=None, step=STEP, config=CONFIG, stop=lambda: False):
  """Trains in a fresh process, as it were; returns the state (or None) and writer."""
  writer, state = Writer(), None
  with contextlib.suppress(Interrupted):
    state = loop.train(
      start(),
      keyed(step),
      Batches(fail_at),
      config,
      store=store,
      writer=writer,
      stop=stop,
    )
  return state, writer


def as_bytes(state):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize('warmup', [0, 1, 20])
def test_learning_rates_follow_the_formula(warmup):
  config = LoopConfig(100, 0.3, 0.05, warmup, save_every=1, log_every=1)
  rates = loop.learning_rates(config)
  for step in (0, warmup // 2, warmup, (100 + warmup) // 2, 99):
    if step < warmup:
      wanted = 0.3 * step / warmup
    else:
      phase = math.pi * (step - warmup) / (100 - warmup)
      wanted = 0.05 + (0.3 - 0.05) * 0.5 * (1 + math.cos(phase))
    assert rates(step) == pytest.approx(wanted, rel=1e-5, abs=1e-7)
  # A strongly typed scalar: a Python float would be another compiled step.
  assert rates(0).dtype == np.float32


@pytest.mark.parametrize('log_every', [1, 3, 4, 100])
@pytest.mark.parametrize('save_every', [1, 3, 100])
@pytest.mark.slow
def test_every_logged_step_appears_once_with_its_own_numbers(log_every, save_every):
  config = dataclasses.replace(CONFIG, log_every=log_every, save_every=save_every)
  _, writer = train(MemoryStore(), config=config)
  assert writer.steps == list(range(1, 11))
  logged = sorted({*range(log_every, 11, log_every), 10})
  assert list(writer.lines) == logged
  # The reference runs the steps by hand: metrics of step n are those after n steps.
  state, batches, rates = start(), Batches(), loop.learning_rates(config)
  for n in range(10):
    state, metrics = STEP(state, next(batches), jax.random.key(7), rates(n))
    if n + 1 in writer.lines:
      assert writer.lines[n + 1] == {k: float(v) for k, v in metrics.items()}


def test_metrics_are_read_one_step_late():
  events = []

  def step(state, tokens, key, rate, limits):
    events.append(('launch', int(state.step) + 1))
    return STEP(state, tokens, key, rate, limits)

  class Log(Writer):
    def progress(self, step, metrics):
      events.append(('read', step))

  config = dataclasses.replace(CONFIG, num_steps=4)
  loop.train(start(), keyed(step), Batches(), config, writer=Log())
  assert events == [
    ('launch', 1),
    *[('launch', 2), ('read', 1)],
    *[('launch', 3), ('read', 2)],
    *[('launch', 4), ('read', 3)],
    ('read', 4),
  ]


def test_saves_at_multiples_and_at_the_end():
  store = MemoryStore()
  state, _ = train(store)
  assert sorted(store.saved) == [3, 6, 9, 10]
  assert as_bytes(store.saved[10][0]) == as_bytes(state)
  assert [store.saved[n][1]['position'] for n in (3, 6, 9, 10)] == [3, 6, 9, 10]


@pytest.mark.parametrize('fail_at', range(10))
def test_resumed_run_equals_an_uninterrupted_one(fail_at):
  wanted, whole = train()
  store = MemoryStore()
  _, before = train(store, fail_at=fail_at)
  saved = store.latest_step() or 0
  assert saved == fail_at // 3 * 3
  state, after = train(store)
  assert as_bytes(state) == as_bytes(wanted)
  assert after.steps == list(range(saved + 1, 11))
  # What the first run wrote up to its last checkpoint, and the second from there on.
  kept = {n: line for n, line in before.lines.items() if n <= saved}
  assert {**kept, **after.lines} == whole.lines
  assert not kept.keys() & after.lines.keys()


@pytest.mark.parametrize('after', [1, 3, 4, 9])
def test_stopped_run_saves_its_step_and_resumes_as_if_nothing_had_been(after):
  state, _ = train()
  store, asked = MemoryStore(), iter(range(1, 100))
  with pytest.raises(Stopped, match=f'step {after} of 10 is saved; the same command'):
    train(store, stop=lambda: next(asked) >= after)
  assert max(store.saved) == after
  resumed, _ = train(store)
  assert as_bytes(resumed) == as_bytes(state)


def test_run_that_is_stopped_in_its_last_step_is_finished():
  asked = iter(range(1, 100))
  state, _ = train(MemoryStore(), stop=lambda: next(asked) >= CONFIG.num_steps)
  assert as_bytes(state) == as_bytes(train()[0])


def test_resume_through_the_real_store(tmp_path):
  wanted, _ = train()
  with TrainingStore(tmp_path / 'checkpoints', 2) as store:
    train(store, fail_at=8)
  with TrainingStore(tmp_path / 'checkpoints', 2) as store:
    assert store.steps() == [3, 6]
    state, writer = train(store)
  assert as_bytes(state) == as_bytes(wanted)
  assert writer.steps == [7, 8, 9, 10]


def test_a_damaged_checkpoint_says_how_to_go_on(tmp_path):
  wanted, _ = train()
  with TrainingStore(tmp_path / 'checkpoints', 2) as store:
    train(store, fail_at=8)
  for file in (tmp_path / 'checkpoints' / '6').rglob('d/*'):
    file.write_bytes(file.read_bytes()[:-10])
  with (
    TrainingStore(tmp_path / 'checkpoints', 2) as store,
    pytest.raises(DamagedData) as caught,
  ):
    train(store, config=dataclasses.replace(CONFIG, fall_back=False))
  message = str(caught.value)
  assert message.startswith(f'{tmp_path}/checkpoints/6: ')
  assert 'not what was written: state/' in message
  assert message.endswith('delete it and run the same command again')
  # By itself it falls back to step 3, and keeps step 6 under another name.
  with TrainingStore(tmp_path / 'checkpoints', 2) as store:
    state, writer = train(store)
    store.wait()
    assert store.steps() == [9, 10]
  assert as_bytes(state) == as_bytes(wanted)
  assert writer.steps == [4, 5, 6, 7, 8, 9, 10]
  (aside,) = (tmp_path / 'checkpoints').glob('6.damaged-????????')
  assert (aside / '_CHECKPOINT_METADATA').exists()
  assert aside.with_name(f'{aside.name}.digests.json').exists()


@pytest.mark.parametrize('steps_left', [1, 2])
def test_damage_that_only_reading_finds(tmp_path, steps_left):
  wanted, _ = train()
  with TrainingStore(tmp_path / 'checkpoints', steps_left) as store:
    train(store, fail_at=8)
  for file in (tmp_path / 'checkpoints' / '6').rglob('d/*'):
    file.write_bytes(file.read_bytes()[:-10])
  (tmp_path / 'checkpoints' / '6.digests.json').unlink()
  with TrainingStore(tmp_path / 'checkpoints', 2) as store:
    if steps_left == 1:  # Nothing to fall back to: it stays where it is.
      with pytest.raises(DamagedData, match=r'6: .*cannot be read'):
        train(store)
      assert store.steps() == [6]
    else:
      assert as_bytes(train(store)[0]) == as_bytes(wanted)


def test_resume_of_a_finished_run_does_nothing():
  store = MemoryStore()
  wanted, _ = train(store)
  saved = dict(store.saved)

  def step(*_):
    raise AssertionError('a step was taken')

  state, writer = train(store, step=step)
  assert as_bytes(state) == as_bytes(wanted)
  assert (writer.lines, writer.steps) == ({}, [])
  assert store.saved.keys() == saved.keys()


@pytest.mark.parametrize('bad_step', [1, 2, 3, 7, 10])
@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_step_that_is_not_finite_stops_the_run(bad_step, name, value):
  def spoiled(state, tokens, key, rate, limits):
    number = int(state.step) + 1
    state, metrics = STEP(state, tokens, key, rate, limits)
    if number == bad_step:
      metrics = metrics | {name: jnp.float32(value)}
    return state, metrics

  store = MemoryStore()
  config = dataclasses.replace(CONFIG, guard=guards.GuardConfig(skip_limit=0))
  with pytest.raises(DamagedData) as caught:
    train(store, step=spoiled, config=config)
  message = str(caught.value)
  assert f'training stopped at step {bad_step}: {name} is {value}' in message
  assert '\n' not in message
  # Nothing from the bad step on was saved, and nothing good before it is missing.
  assert sorted(store.saved) == [n for n in (3, 6, 9) if n < bad_step]


def test_run_of_one_step():
  config = LoopConfig(1, 0.1, 0.0, 0, save_every=5, log_every=5)
  store = MemoryStore()
  _, writer = train(store, config=config)
  assert list(store.saved) == [1] == list(writer.lines)


@pytest.mark.parametrize(
  'name', [f.name for f in dataclasses.fields(LoopConfig) if f.type in (int, float)]
)
def test_a_loop_that_cannot_be_is_refused(name):
  values = dataclasses.asdict(LoopConfig(10, 1e-3, 0.0, 2, 5, 5)) | {name: -1}
  with pytest.raises(ValueError, match=f'{name}: found -1; wanted a number'):
    LoopConfig(**values)
