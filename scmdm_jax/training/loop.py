"""The host side of training: feeds steps, writes metrics, saves, resumes.

The host never waits for the step it has just launched: metrics are read one step late.
"""

import dataclasses
from collections.abc import Callable, Mapping
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
  evaluate_every: int = 0  # Steps between evaluations; 0: none.
  fall_back: bool = True  # From a damaged newest checkpoint to the one before it.
  guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)

  def __post_init__(self):
    for name in ('num_steps', 'learning_rate', 'save_every', 'log_every'):
      value = getattr(self, name)
      check(value > 0, name, value, 'a number above 0')
    for name in ('final_learning_rate', 'warmup_steps', 'evaluate_every'):
      value = getattr(self, name)
      check(value >= 0, name, value, 'a number of at least 0')

  def evaluates(self, step: int) -> bool:
    """Returns whether the state after `step` is evaluated: the last one always."""
    every = self.evaluate_every
    return every > 0 and (step % every == 0 or step == self.num_steps)


# (state, batch of the host, learning rate, limits of the guard) -> state and metrics:
# `step.make_train_step`'s with its key and a place for the batch.
Step = Callable[
  [TrainState, Any, float, np.ndarray], tuple[TrainState, dict[str, jax.Array]]
]


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


class _Reporter:
  """Judges finished steps, a step late, and hands the metrics to the writer."""

  def __init__(self, config: LoopConfig, guard: Guard, writer: Writer | None):
    self._config, self._guard, self._writer = config, guard, writer
    self._watchdog = Watchdog(config.guard.step_timeout)
    self._pending: tuple[int, Mapping[str, jax.Array | float]] | None = None

  def __enter__(self) -> '_Reporter':
    self._watchdog.step_ended()
    return self

  def __exit__(self, *exception: object) -> None:
    self._watchdog.close()

  def launched(self, step: int, metrics: Mapping[str, jax.Array | float]) -> None:
    """Reports the step before `step`, which is under way."""
    self.flush()
    self._pending = step, metrics

  def flush(self) -> None:
    """Waits for the step launched last, if it is not reported yet, and reports it."""
    if self._pending is None:
      return
    (step, launched), self._pending = self._pending, None
    metrics = {k: float(v) for k, v in jax.device_get(launched).items()}
    sound = self._guard.judge(step, metrics)
    self._watchdog.step_ended()
    if self._writer is None or not sound:
      return
    self._writer.progress(step, metrics)
    if self._guard.skipped:
      metrics['skipped'] = float(self._guard.skipped)
    last = step == self._config.num_steps
    if step % self._config.log_every == 0 or last or self._config.evaluates(step):
      self._writer.write(step, metrics)


def train(
  state: TrainState,
  train_step: Step,
  batches: Batches,
  config: LoopConfig,
  *,
  store: Store | None = None,
  writer: Writer | None = None,
  stop: Callable[[], bool] = lambda: False,
  trace: Trace | None = None,
  evaluate: Callable[[TrainState], dict[str, float]] | None = None,
) -> TrainState:
  """Runs `train_step` to `config.num_steps`, from the store's newest checkpoint if any.

  It has nine parameters, because a run may do without any of the last five.

  Args:
    state: the state at step 0; donated.
    train_step: see `Step`.
    batches: positioned at its start.
    config: see `LoopConfig`.
    store: None trains without checkpoints.
    writer: None trains silently.
    stop: asked after every step; True saves it and leaves.
    trace: called with every step.
    evaluate: makes figures of the state, every `evaluate_every` steps and at the end.

  Raises:
    Stopped: `stop` asked for it; the newest checkpoint is of the last step.
    DamagedData: loss or gradient stopped being finite, and nothing was saved after
      that; or the newest checkpoint cannot be read.
  """
  guard, start = Guard(config.guard), 0
  if store is not None:
    start, state = _resumed(state, batches, guard, store, config.fall_back)
  if writer is not None:
    writer.begin(start)
  rates = learning_rates(config)
  with _Reporter(config, guard, writer) as reporter:
    for step in range(start + 1, config.num_steps + 1):
      if store is not None:
        store.raise_if_failed()
      if trace is not None:
        trace.begin(step)
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        state, metrics = train_step(
          state, next(batches), rates(step - 1), guard.limits(step)
        )
      if trace is not None:
        trace.end(step, metrics)
      if evaluate is not None and config.evaluates(step):
        reporter.flush()  # Its time is not that of the step before.
        reporter.launched(step, {**metrics, **evaluate(state)})
      else:
        reporter.launched(step, metrics)
      last = step == config.num_steps
      stopping = stop() and not last
      if store is not None and (step % config.save_every == 0 or last or stopping):
        reporter.flush()  # What was skipped is saved with the state.
        store.save(step, state, batches.get_state(), {'guard': guard.state()})
      if stopping:
        raise Stopped(
          f'training: stopped by SIGTERM, step {step} of {config.num_steps} is saved; '
          'the same command resumes'
        )
    reporter.flush()
  return state
