"""The host side of training: feeds steps, writes metrics, saves, resumes.

The host never waits for the step it has just launched: metrics are read one step late.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
import optax

from scmdm_jax.diffusion.checks import check
from scmdm_jax.errors import DamagedData, Stopped
from scmdm_jax.training.guards import Guard, GuardConfig, Watchdog
from scmdm_jax.training.profile import Trace
from scmdm_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long, how fast, and how often to report and save."""

  num_steps: int
  learning_rate: float
  final_learning_rate: float
  warmup_steps: int
  save_every: int
  log_every: int
  fall_back: bool = True  # From a damaged newest checkpoint to the one before it.
  guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)

  def __post_init__(self):
    for name in ('num_steps', 'learning_rate', 'save_every', 'log_every'):
      value = getattr(self, name)
      check(value > 0, name, value, 'a number above 0')
    for name in ('final_learning_rate', 'warmup_steps'):
      value = getattr(self, name)
      check(value >= 0, name, value, 'a number of at least 0')


class Store(Protocol):
  """Where checkpoints go; `checkpoints.store.TrainingStore` is one."""

  def save(self, step: int, state: Any, data_state: Any, metadata: dict) -> bool:
    """Keeps the state after `step` steps; returns once it may be donated."""
    ...

  def steps(self) -> list[int]:
    """Complete steps, oldest first."""
    ...

  def sound_step(self, fall_back: bool) -> int | None:
    """The newest step to resume from, if any; an earlier one if that is damaged."""
    ...

  def set_aside(self, step: int, damage: Exception, then: str) -> None:
    """Renames a damaged step and says so, and what the run does then."""
    ...

  def raise_if_failed(self) -> None:
    """Raises DamagedData if the save under way has failed."""
    ...

  def restore(self, step: int, abstract_state: Any) -> tuple[Any, Any, dict]:
    """The state, the data position and the metadata of `step`."""
    ...


class Writer(Protocol):
  """Where metrics go; `training.writer.MetricWriter` is one."""

  def begin(self, first_step: int) -> None:
    """Drops what an earlier run recorded after `first_step`."""
    ...

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Records the metrics of a step."""
    ...

  def progress(self, step: int, metrics: dict[str, float]) -> None:
    """Shows that a step is done."""
    ...


class Batches(Protocol):
  """An endless, checkpointable stream of batches, trees of [B, ...]."""

  def __next__(self) -> Any:
    """The next batch."""
    ...

  def get_state(self) -> Any:
    """Where the next batch starts."""
    ...

  def set_state(self, state: Any) -> None:
    """Continues exactly there."""
    ...


def learning_rates(config: LoopConfig) -> Callable[[int], float]:
  """Linear warm-up from 0, then a cosine to `final_learning_rate`, per step."""
  schedule = optax.schedules.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=config.warmup_steps,
    decay_steps=config.num_steps,
    end_value=config.final_learning_rate,
  )
  steps = np.arange(config.num_steps)
  values = np.asarray(jax.jit(jax.vmap(schedule))(steps), np.float32)
  return lambda step: values[step]


def _resumed(
  state: TrainState, batches: Batches, guard: Guard, store: Store, fall_back: bool
) -> tuple[int, TrainState]:
  """The newest sound step and its state, with `batches` and `guard` as they were then.

  0 and `state` itself without any; otherwise `state` is deleted.
  """
  if store.sound_step(fall_back) is None:
    return 0, state
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  jax.tree.map(lambda x: x.delete(), state)  # There may be no room for two.
  while True:
    step = store.sound_step(fall_back)
    assert step is not None
    try:
      state, data_state, metadata = store.restore(step, abstract)
      break
    except DamagedData as e:
      # Its digests were right, or it has none. One process may put it aside.
      if not fall_back or len(store.steps()) == 1 or jax.process_count() > 1:
        raise DamagedData(
          f'{e}; to go on from the one before it, delete it and run the same command '
          'again'
        ) from e
      store.set_aside(step, e, 'goes on from the one before it')
  batches.set_state(data_state)
  guard.restore(metadata.get('guard', {}), step)
  return step, state


def train(
  state: TrainState,
  train_step: Callable,
  batches: Batches,
  key: jax.Array,
  config: LoopConfig,
  *,
  store: Store | None = None,
  writer: Writer | None = None,
  place: Callable[[Any], Any] = lambda batch: batch,
  stop: Callable[[], bool] = lambda: False,
  trace: Trace | None = None,
) -> TrainState:
  """Runs `train_step` to `config.num_steps`, from the store's newest checkpoint if any.

  Args:
    state: the state at step 0; donated.
    train_step: `step.make_train_step`'s.
    batches: positioned at its start.
    key: the root key, the same for every step.
    config: see `LoopConfig`.
    store: None trains without checkpoints.
    writer: None trains silently.
    place: puts a batch where the step wants it.
    stop: asked after every step; True saves it and leaves.
    trace: called with every step.

  Raises:
    Stopped: `stop` asked for it; the newest checkpoint is of the last step.
    DamagedData: loss or gradient stopped being finite, and nothing was saved after
      that; or the newest checkpoint cannot be read.
  """
  guard, watchdog, start = Guard(config.guard), Watchdog(config.guard.step_timeout), 0
  if store is not None:
    start, state = _resumed(state, batches, guard, store, config.fall_back)
  if writer is not None:
    writer.begin(start)
  rates = learning_rates(config)
  pending: tuple[int, dict[str, jax.Array]] | None = None

  def report(item: tuple[int, dict[str, jax.Array]] | None) -> None:
    if item is None:
      return
    step, metrics = item[0], {k: float(v) for k, v in jax.device_get(item[1]).items()}
    sound = guard.judge(step, metrics)
    watchdog.step_ended()
    if writer is not None and sound:
      writer.progress(step, metrics)
      if guard.skipped:
        metrics['skipped'] = float(guard.skipped)
      if step % config.log_every == 0 or step == config.num_steps:
        writer.write(step, metrics)

  with contextlib.closing(watchdog):
    watchdog.step_ended()
    for step in range(start, config.num_steps):
      if store is not None:
        store.raise_if_failed()
      if trace is not None:
        trace.begin(step + 1)
      with jax.profiler.StepTraceAnnotation('train', step_num=step + 1):
        state, metrics = train_step(
          state, place(next(batches)), key, rates(step), guard.limits(step + 1)
        )
      if trace is not None:
        trace.end(step + 1, metrics)
      report(pending)
      pending = (step + 1, metrics)
      last = step + 1 == config.num_steps
      stopping = stop() and not last
      due = (step + 1) % config.save_every == 0 or last or stopping
      if store is not None and due:
        report(pending)  # What was skipped is saved with the state.
        pending = None
        store.save(step + 1, state, batches.get_state(), {'guard': guard.state()})
      if stopping:
        raise Stopped(
          f'training: stopped by SIGTERM, step {step + 1} of {config.num_steps} is '
          'saved; the same command resumes'
        )
    report(pending)
  return state
