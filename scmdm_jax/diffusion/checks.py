"""One sentence for every value that is out of range."""

from typing import Any


def check(holds: bool, name: str, value: Any, wanted: str) -> None:
  """Raises ValueError('name: found value; wanted ...') unless the check `holds`."""
  if not holds:
    raise ValueError(f'{name}: found {value!r}; wanted {wanted}')
