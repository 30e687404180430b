"""Figures of finished runs, as read back from their JSON files."""

from collections.abc import Mapping
from typing import Any

# Names that files written earlier have -> today's.
_RENAMED = {'carried_elbo': 'carried_nelbo'}


def renamed(figures: Any) -> Any:
  """Returns `figures`, read from JSON, with today's names instead of earlier ones."""
  if isinstance(figures, dict):
    return {_RENAMED.get(k, k): renamed(v) for k, v in figures.items()}
  return [renamed(x) for x in figures] if isinstance(figures, list) else figures


def updated(result: Mapping[str, Any]) -> dict[str, Any]:
  """An arm's `result.json`, which earlier code may have written, as today's has it.

  Temperatures used to be swept after one number of steps, without a word which: it is
  that whose samples have all measures of the sweep's point at temperature 1.
  """
  found = renamed(result)
  curve = found['temperature_curve']
  if any('num_steps' not in point for point in curve):
    [natural] = [point for point in curve if point['temperature'] == 1]
    [steps] = [
      steps
      for steps, sample in found['samples'].items()
      if all(sample.get(name, value) == value for name, value in natural.items())
    ]
    found['temperature_curve'] = [{'num_steps': int(steps), **p} for p in curve]
  return found
