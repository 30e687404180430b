"""What a run found out about its data: kept for its metadata, printed once.

As logs do, it lives beside the functions that read, so that they need not hand it up:
which rule made a split, what was left out, how much of a text a tokenizer knows.
"""

import sys
from typing import Any

_entries: dict[str, Any] = {}
_unsaid: dict[str, str] = {}


def begin() -> None:
  """Forgets what an earlier run of this process found."""
  _entries.clear()
  _unsaid.clear()


def note(name: str, value: Any, line: str) -> None:
  """Keeps a finding under its name, and the line that says it to people."""
  if _entries.get(name) != value:
    _entries[name] = value
    _unsaid[name] = line


def say() -> None:
  """Prints what was not printed yet; a run calls it once its data are accepted."""
  for line in _unsaid.values():
    print(line, file=sys.stderr, flush=True)
  _unsaid.clear()


def entries() -> dict[str, Any]:
  """Returns everything found so far, by name."""
  return dict(_entries)
