"""Ratios of two computations' times, interleaved in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def _seconds(run: Callable[[], Any]) -> float:
  started = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - started


def interleaved_ratio(
  a: Callable[[], Any], b: Callable[[], Any], pairs: int
) -> dict[str, float]:
  """Time of `a` over time of `b`: median, lowest and highest of `pairs` ratios.

  Each is run twice to warm up; then a, b, b, a, ... so that a slow spell of the machine
  hits both, and neither always goes first.
  """
  for run in (a, b, a, b):
    _seconds(run)
  ratios = []
  for i in range(pairs):
    if i % 2:
      below, above = _seconds(b), _seconds(a)
    else:
      above, below = _seconds(a), _seconds(b)
    ratios.append(above / below)
  return {
    'median': statistics.median(ratios),
    'low': min(ratios),
    'high': max(ratios),
    'pairs': pairs,
  }
