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


def updated(result: Mapping[str, Any], swept_at: int) -> dict[str, Any]:
  """An arm's `result.json`, which earlier code may have written, as today's has it.

  Args:
    result: as read from JSON.
    swept_at: the number of steps that earlier sweeps were after, without a word of it:
      the run's `sample.num_steps`.
  """
  found = renamed(result)
  curve = found['temperature_curve']
  found['temperature_curve'] = [{'num_steps': swept_at, **point} for point in curve]
  return found
