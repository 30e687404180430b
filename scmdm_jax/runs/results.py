"""Figures of finished runs, as read back from their JSON files."""

from typing import Any

# Names that files written earlier have -> today's.
_RENAMED = {'carried_elbo': 'carried_nelbo'}


def renamed(figures: Any) -> Any:
  """Returns `figures`, read from JSON, with today's names instead of earlier ones."""
  if isinstance(figures, dict):
    return {_RENAMED.get(k, k): renamed(v) for k, v in figures.items()}
  return [renamed(x) for x in figures] if isinstance(figures, list) else figures
