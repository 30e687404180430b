"""Guards of a training run: steps that are skipped, and steps that never end.

The compiled step leaves parameters, moments and average as they were where `is_sound`
says no. The host comes to the same verdict from the same numbers, counts, and gives up
after too many in a row.
"""

import dataclasses
import faulthandler
import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.diffusion.checks import check
from scmdm_jax.errors import DamagedData

# Loss and gradient norm of a step are known while the next one runs.
_LAG = 2
_WATCHED = ('loss', 'grad_norm')


@dataclasses.dataclass(frozen=True)
class GuardConfig:
  """Which steps are skipped, how many, and how long one may take."""

  skip_limit: int = 10  # Skipped steps in a row; one more ends the run.
  spike_window: int = 0  # Sound steps that a spike is judged by; 0: no spike is.
  spike_sigma: float = 6.0  # A spike is so many standard deviations above their mean.
  step_timeout: int = 1800  # Seconds without a step until stacks are dumped; 0: never.

  def __post_init__(self):
    for name in ('skip_limit', 'spike_window', 'step_timeout'):
      value = getattr(self, name)
      check(value >= 0, name, value, 'a number of at least 0')
    sigma = self.spike_sigma
    check(0 < sigma < math.inf, 'spike_sigma', sigma, 'a number above 0')


def is_sound(
  loss: jax.Array, grad_norm: jax.Array, limits: jax.Array | np.ndarray
) -> jax.Array:
  """Returns whether a step may change the state, as a boolean scalar.

  Args:
    loss: float32 scalar.
    grad_norm: float32 scalar, not finite where a gradient is not.
    limits: float32 [2], the largest loss and the largest norm; infinite for none.
  """
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  return finite & (loss <= limits[0]) & (grad_norm <= limits[1])


class Guard:
  """Judges every step of a run, in order; what it remembers is saved with the state."""

  def __init__(self, config: GuardConfig):
    self._config = config
    self.skipped = 0
    self._in_a_row = 0
    self._why = 'before the run was resumed'
    self._good = 0  # The last step that was not skipped.
    self._history: list[tuple[int, float, float]] = []  # Sound: step, loss, norm.

  def limits(self, step: int) -> np.ndarray:
    """Returns the largest loss and norm that `step` may have, float32 [2].

    They come from sound steps up to `step - 2`, whatever more is known already, so
    that a resumed run has the same ones.
    """
    window = self._config.spike_window
    known = [entry[1:] for entry in self._history if entry[0] <= step - _LAG]
    if not window or len(known) < window:
      return np.full(2, np.inf, np.float32)
    values = np.asarray(known[-window:], np.float64)
    limits = values.mean(0) + self._config.spike_sigma * values.std(0)
    return limits.astype(np.float32)

  def judge(self, step: int, metrics: Mapping[str, float]) -> bool:
    """Returns whether `step` was sound.

    Raises:
      DamagedData: too many steps in a row were not.
    """
    values = np.asarray([metrics[name] for name in _WATCHED], np.float32)
    limits = self.limits(step)
    bad = ~np.isfinite(values) | (values > limits)
    if not bad.any():
      if self._in_a_row:  # Told once it is over: too many end in an error.
        logging.warning(
          'up to step %d: %d steps skipped, %s; %d in all',
          *(step - 1, self._in_a_row, self._why, self.skipped),
        )
      self._in_a_row, self._good = 0, step
      if self._config.spike_window:
        self._history.append((step, float(values[0]), float(values[1])))
        self._history = self._history[-(self._config.spike_window + _LAG) :]
      return True
    self.skipped += 1
    self._in_a_row += 1
    which = int(bad.argmax())
    what = f'{_WATCHED[which]} is {metrics[_WATCHED[which]]}'
    if np.isfinite(values[which]):
      what += f', above {limits[which]}'
    if self._in_a_row > self._config.skip_limit:
      raise DamagedData(
        f'training stopped at step {step}: {what}; {self._in_a_row} steps in a row '
        f'were skipped, the last good one is {self._good}; the checkpoints before it '
        'are intact; lower train.learning_rate or check the data'
      )
    self._why = f'the last since {what}'
    return False

  def state(self) -> dict[str, Any]:
    """Returns what it remembers as plain JSON data."""
    return {
      'skipped': self.skipped,
      'in_a_row': self._in_a_row,
      'good': self._good,
      'history': [list(entry) for entry in self._history],
    }

  def restore(self, state: Mapping[str, Any], step: int) -> None:
    """Goes on from `state`; from nothing where a checkpoint has none, after `step`."""
    self.skipped = int(state.get('skipped', 0))
    self._in_a_row = int(state.get('in_a_row', 0))
    self._good = int(state.get('good', step))
    history = state.get('history', [])
    self._history = [(int(n), float(loss), float(norm)) for n, loss, norm in history]


class Watchdog:
  """Dumps the stacks of all threads whenever no step ends for so many seconds.

  The dump comes from a thread of C, so that a main thread that holds the interpreter
  is seen, too. The run goes on: several processes have `processes.watch` to end it.
  """

  def __init__(self, seconds: int):
    self._seconds = seconds
    self._armed = -math.inf

  def step_ended(self) -> None:
    """Starts the time again."""
    if self._seconds and time.monotonic() - self._armed > min(1, self._seconds / 4):
      self._armed = time.monotonic()
      faulthandler.dump_traceback_later(
        self._seconds, repeat=True, file=sys.__stderr__ or sys.stderr
      )

  def close(self) -> None:
    """Ends the watching."""
    if self._seconds:
      faulthandler.cancel_dump_traceback_later()
