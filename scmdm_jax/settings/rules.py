"""Rules of options: a default, what is wanted instead, and whether a value obeys."""

import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any


def option(default: Any, wanted: str, check: Callable[[Any], bool]) -> Any:
  """A field with a rule; `wanted` completes the sentence "wanted ..."."""
  return dataclasses.field(default=default, metadata={'rule': (wanted, check)})


def above(default: Any, low: float) -> Any:
  """A field whose value is a number above `low`."""
  return option(default, f'a number above {low:g}', lambda x: x > low)


def at_least(default: Any, low: float) -> Any:
  """A field whose value is a number of at least `low`."""
  return option(default, f'a number of at least {low:g}', lambda x: x >= low)


def within(default: float, low: float, high: float) -> Any:
  """A field whose value is a number from `low` to `high`."""
  return option(
    default, f'a number from {low:g} to {high:g}', lambda x: low <= x <= high
  )


def one_of(default: str, choices: Collection[str]) -> Any:
  """A field whose value is one of `choices`."""
  return option(default, f'one of {", ".join(choices)}', lambda x: x in choices)


def is_seed(value: Any) -> bool:
  """Whether JAX keeps seeds apart: it drops all but the lowest 32 bits."""
  return 0 <= value < 2**32


def each(default: tuple, kind: type, wanted: str, check: Callable[[Any], bool]) -> Any:
  """A tuple of one or more different entries, every one of `kind` and by the rule."""
  return option(
    default,
    f'a tuple of different {wanted}',
    lambda xs: (
      0 < len(xs) == len(set(xs)) and all(is_kind(x, kind) and check(x) for x in xs)
    ),
  )


def is_kind(value: Any, kind: type) -> bool:
  """Whether `value` is of `kind`; a truth value is no number, an int is a float."""
  if isinstance(value, bool):
    return kind is bool
  return isinstance(value, kind) or (kind is float and isinstance(value, int))


def axis(default: int) -> Any:
  """A field whose value is the size of a mesh axis; -1: what the others leave."""
  return option(default, 'a whole number above 0, or -1', lambda x: x > 0 or x == -1)


def sizes(*default: int) -> Any:
  """A tuple of any number of different sizes."""
  return option(
    default,
    'a tuple of different whole numbers above 0',
    lambda xs: len(xs) == len(set(xs)) and all(is_kind(x, int) and x > 0 for x in xs),
  )


def steps_of(text: str) -> tuple[int, int] | None:
  """First and last of FIRST:LAST; None if it is something else."""
  match = re.fullmatch(r'([1-9]\d*):([1-9]\d*)', text)
  if match is None or int(match[1]) > int(match[2]):
    return None
  return int(match[1]), int(match[2])
