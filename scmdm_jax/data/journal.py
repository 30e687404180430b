"""What a run found out about its data: said once on standard error, then kept.

As logs do, it lives beside the functions that read, so that they need not hand it up:
which rule made a split, what was left out, how much of a text a tokenizer knows. A run
keeps it in `metadata.json`.
"""

import sys
from typing import Any

_entries: dict[str, Any] = {}


def note(name: str, value: Any, line: str) -> None:
  """Keeps a finding under its name, and says it where it is new."""
  if _entries.get(name) != value:
    _entries[name] = value
    print(line, file=sys.stderr, flush=True)


def entries() -> dict[str, Any]:
  """Everything found so far, by name."""
  return dict(_entries)
