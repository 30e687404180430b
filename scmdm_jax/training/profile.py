"""A trace of some training steps, for xprof: where the time of a step goes."""

import pathlib
from typing import Any

import jax


class Trace:
  """Traces steps `first` to `last`, both included, into `directory`.

  A run that resumes among them traces what is left.
  """

  def __init__(self, directory: pathlib.Path, first: int, last: int):
    self._directory = directory
    self._first, self._last = first, last
    self._running = False

  def begin(self, step: int) -> None:
    """Step number `step`, counted from 1, is about to be launched."""
    if not self._running and self._first <= step <= self._last:
      jax.profiler.start_trace(str(self._directory))
      self._running = True

  def end(self, step: int, result: Any) -> None:
    """It was launched, and makes `result`; the last one is waited for."""
    if self._running and step >= self._last:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Writes the trace that is under way, if any."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
