"""Rules of options: a default, what is wanted instead, and whether a value obeys.

Ranges that a value of the package checks itself (a sampler's, a schedule's, an
optimizer's) are not repeated here; see `building`.
"""

import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any


def option(
  default: Any, wanted: str, check: Callable[[Any], bool], meaning: str
) -> Any:
  """Returns a field with a rule; `wanted` completes the sentence "wanted ..."."""
  metadata = {'rule': (wanted, check), 'meaning': meaning}
  return dataclasses.field(default=default, metadata=metadata)


def plain(default: Any, meaning: str) -> Any:
  """Returns a field whose value may be any of its type, here."""
  return option(default, '', lambda _: True, meaning)


def above(default: Any, low: float, meaning: str) -> Any:
  """Returns a field whose value is a number above `low`."""
  return option(default, f'a number above {low:g}', lambda x: x > low, meaning)


def at_least(default: Any, low: float, meaning: str) -> Any:
  """Returns a field whose value is a number of at least `low`."""
  return option(default, f'a number of at least {low:g}', lambda x: x >= low, meaning)


def within(default: float, low: float, high: float, meaning: str) -> Any:
  """Returns a field whose value is a number from `low` to `high`."""
  wanted = f'a number from {low:g} to {high:g}'
  return option(default, wanted, lambda x: low <= x <= high, meaning)


def one_of(default: str, choices: Collection[str], meaning: str) -> Any:
  """Returns a field whose value is one of `choices`."""
  wanted = f'one of {", ".join(choices)}'
  return option(default, wanted, lambda x: x in choices, meaning)


def axis(default: int, meaning: str) -> Any:
  """Returns a field whose value is the size of a mesh axis; -1: the rest."""
  wanted = 'a whole number above 0, or -1'
  return option(default, wanted, lambda x: x > 0 or x == -1, meaning)


def each(
  default: tuple,
  kind: type,
  wanted: str,
  check: Callable[[Any], bool],
  meaning: str,
  least: int = 1,
) -> Any:
  """Returns a field of `least` or more different entries of `kind`, by the rule."""
  return option(
    default,
    f'a tuple of different {wanted}',
    lambda xs: (
      least <= len(xs) == len(set(xs))
      and all(is_kind(x, kind) and check(x) for x in xs)
    ),
    meaning,
  )


def sizes(meaning: str) -> Any:
  """Returns a field of any number of different sizes."""
  return each((), int, 'whole numbers above 0', lambda x: x > 0, meaning, least=0)


def is_seed(value: Any) -> bool:
  """Returns whether JAX keeps seeds apart: it drops all but the lowest 32 bits."""
  return 0 <= value < 2**32


def is_kind(value: Any, kind: type) -> bool:
  """Returns whether `value` is of `kind`: a bool is no number, an int is a float."""
  if isinstance(value, bool):
    return kind is bool
  return isinstance(value, kind) or (kind is float and isinstance(value, int))


def steps_of(text: str) -> tuple[int, int] | None:
  """Returns first and last of FIRST:LAST; None if it is something else."""
  match = re.fullmatch(r'([1-9]\d*):([1-9]\d*)', text)
  if match is None or int(match[1]) > int(match[2]):
    return None
  return int(match[1]), int(match[2])
