"""The host side of training: feeds steps, writes metrics, saves, resumes.

The host never waits for the step it has just launched: metrics are read one step late.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
import optax

from scmdm_jax.errors import DamagedData, Stopped
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


class Store(Protocol):
  """Where checkpoints go; `checkpoints.store.TrainingStore` is one."""

  def save(self, step: int, state: Any, data_state: Any, metadata: dict) -> bool:
    """Keeps the state after `step` steps; returns once it may be donated."""
    ...

  def latest_step(self) -> int | None:
    """The newest step to resume from, if any."""
    ...

  def restore(self, step: int, abstract_state: Any) -> tuple[Any, Any, dict]:
    """The state, the data position and the metadata of `step`."""
    ...


class Writer(Protocol):
  """Where metrics go; `training.writer.MetricWriter` is one."""

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Records the metrics of a step."""
    ...

  def progress(self, step: int, metrics: dict[str, float]) -> None:
    """Shows that a step is done."""
    ...


class Batches(Protocol):
  """An endless, checkpointable stream of int32 [B, L] tokens."""

  def __next__(self) -> np.ndarray:
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


def _require_finite(step: int, metrics: dict[str, float]) -> None:
  for name in ('loss', 'grad_norm'):
    if not math.isfinite(metrics[name]):
      raise DamagedData(
        f'training stopped at step {step}: {name} is {metrics[name]}; the checkpoints '
        'before it are intact; lower train.learning_rate or check the data'
      )


def train(
  state: TrainState,
  train_step: Callable,
  batches: Batches,
  key: jax.Array,
  config: LoopConfig,
  *,
  store: Store | None = None,
  writer: Writer | None = None,
  place: Callable[[np.ndarray], Any] = np.asarray,
  stop: Callable[[], bool] = lambda: False,
  trace: Trace | None = None,
) -> TrainState:
  """Runs `train_step` to `config.num_steps`, from the store's newest checkpoint if any.

  Args:
    state: the state at step 0; donated.
    train_step: `step.make_train_step`'s.
    batches: positioned at its start.
    key: the root key; each step folds in its own number.
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
  start = store.latest_step() if store is not None else None
  if store is not None and start is not None:
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    jax.tree.map(lambda x: x.delete(), state)  # There may be no room for two.
    try:
      state, data_state, _ = store.restore(start, abstract)
    except DamagedData as e:
      raise DamagedData(
        f'{e}; to go on from the one before it, delete it and run the same command '
        'again'
      ) from e
    batches.set_state(data_state)
  rates = learning_rates(config)
  pending: tuple[int, dict[str, jax.Array]] | None = None

  def report(item: tuple[int, dict[str, jax.Array]] | None) -> None:
    if item is None:
      return
    step, metrics = item[0], {k: float(v) for k, v in jax.device_get(item[1]).items()}
    _require_finite(step, metrics)
    if writer is not None:
      writer.progress(step, metrics)
      if step % config.log_every == 0 or step == config.num_steps:
        writer.write(step, metrics)

  for step in range(start or 0, config.num_steps):
    if trace is not None:
      trace.begin(step + 1)
    with jax.profiler.StepTraceAnnotation('train', step_num=step + 1):
      state, metrics = train_step(state, place(next(batches)), key, rates(step))
    if trace is not None:
      trace.end(step + 1, metrics)
    report(pending)
    pending = (step + 1, metrics)
    last = step + 1 == config.num_steps
    stopping = stop() and not last
    due = (step + 1) % config.save_every == 0 or last or stopping
    if store is not None and due:
      report(pending)  # A checkpoint is only worth keeping if its step was sound.
      pending = None
      store.save(step + 1, state, batches.get_state(), {})
    if stopping:
      raise Stopped(
        f'training: stopped by SIGTERM, step {step + 1} of {config.num_steps} is '
        'saved; the same command resumes'
      )
  report(pending)
  return state
