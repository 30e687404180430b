"""Ratios of computations' times, interleaved in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from scmdm_jax.processes import multihost


def seconds(run: Callable[[], Any]) -> float:
  """Time until what `run` returns is there."""
  multihost.leave_if_asked('timing')
  started = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - started


def interleaved(
  contenders: Mapping[str, Callable[[], Any]], rounds: int, warm: int = 2
) -> dict[str, list[float]]:
  """Seconds of every contender in every round, by name.

  Each is run `warm` times to warm up. Then a round runs all of them, forwards or
  backwards in turn, so that a slow spell of the machine hits all and none always goes
  first.
  """
  names = list(contenders)
  for name in names * warm:
    seconds(contenders[name])
  times: dict[str, list[float]] = {name: [] for name in names}
  for i in range(rounds):
    for name in names if i % 2 == 0 else reversed(names):
      times[name].append(seconds(contenders[name]))
  return times


def ratio_of(above: list[float], below: list[float]) -> dict[str, float]:
  """Median, lowest and highest of the ratios of two contenders, round by round."""
  ratios = [a / b for a, b in zip(above, below, strict=True)]
  return {
    'median': statistics.median(ratios),
    'low': min(ratios),
    'high': max(ratios),
    'pairs': len(ratios),
  }


def interleaved_ratio(
  a: Callable[[], Any], b: Callable[[], Any], pairs: int
) -> dict[str, float]:
  """Time of `a` over time of `b`, of `pairs` interleaved pairs."""
  times = interleaved({'a': a, 'b': b}, pairs)
  return ratio_of(times['a'], times['b'])
