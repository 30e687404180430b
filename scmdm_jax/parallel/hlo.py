"""What a compiled program sends between devices, read off its text.

The text is XLA's: computations in braces, an instruction a line. Counted per device.
"""

import math
import re
from typing import NamedTuple

_KINDS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_COLLECTIVE = re.compile(rf' = (.*?) ({_KINDS})(-start)?\(')
_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$')
_ARRAY = re.compile(r'\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')
_CHANNEL = re.compile(r'channel_id=(\d+)')
_WHILE = re.compile(r' while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)')
_CALLED = re.compile(
  r'(?:calls|to_apply|(?:true|false)_computation|(?:branch|called)_computations)='
  r'(\{[^}]*\}|%?[\w.-]+)'
)
_FUSED = re.compile(r' fusion\(.*calls=%?([\w.-]+)')
_BOUND = re.compile(r' = [su]32\[\]\S* constant\((\d+)\)')
# What the program calls a loop whose end is known only when it runs.
_AT_MOST = re.compile(r'op_name="[^"]*\bat_most_(\d+)\)*/while"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
  """One collective of a program."""

  kind: str
  sizes: tuple[int, ...]  # Elements of its results.
  bytes: int  # Of its results.
  runs: int  # How often, at most: loops run to their bound, both branches are taken.


def parsed(text: str) -> dict[str, list[str]]:
  """Returns lines by the name of their computation; the last is the whole program."""
  found: dict[str, list[str]] = {}
  lines: list[str] = []
  entry = ''
  for line in text.splitlines():
    if line.startswith(' '):
      lines.append(line)
    elif match := _COMPUTATION.match(line):
      lines = found[match[1]] = []
      if line.startswith('ENTRY'):
        entry = match[1]
  if entry:
    found[entry] = found.pop(entry)
  return found


def _calls(
  computations: dict[str, list[str]], lines: list[str]
) -> list[tuple[str, int]]:
  """Returns what the lines of a computation call, and how often when they run."""
  found = []
  for line in lines:
    if loop := _WHILE.search(line):
      condition, body = loop.groups()
      # On GPUs the bound is inside a fusion, but the compiler writes down the count.
      bounds = (
        _TRIPS.findall(line)
        or _AT_MOST.findall(line)
        or _BOUND.findall('\n'.join(computations.get(condition, ())))
      )
      # One until nothing is left has no other number than 0, and runs all the same.
      found.append((body, max(map(int, bounds), default=1) or 1))
    for names in _CALLED.findall(line):
      found += [(name, 1) for name in re.findall(r'[\w.-]+', names)]
  return found


def executions(computations: dict[str, list[str]]) -> dict[str, int]:
  """Counts how often each computation runs when the program does."""
  calls = {
    name: [(callee, n) for callee, n in _calls(computations, lines) if callee != name]
    for name, lines in computations.items()
  }
  callers: dict[str, list[tuple[str, int]]] = {name: [] for name in computations}
  for name, called in calls.items():
    for callee, times in called:
      if callee in callers:
        callers[callee].append((name, times))
  runs: dict[str, int] = {}

  def count(name: str) -> int:
    if name not in runs:
      runs[name] = sum(times * count(caller) for caller, times in callers[name])
    return runs[name]

  runs[list(computations)[-1]] = 1
  return {name: count(name) for name in computations}


def fused(text: str) -> set[str]:
  """Returns the names of computations that are fused into one instruction."""
  return set(_FUSED.findall(text))


def collectives(text: str) -> list[Collective]:
  """Returns all collectives of a compiled program, in computations that run."""
  computations = parsed(text)
  if not computations:
    return []
  runs, seen, found = executions(computations), set(), []
  inside = fused(text)
  for name, lines in computations.items():
    for line in lines:
      match = _COLLECTIVE.search(line)
      if match is None or not runs[name]:
        continue
      result, kind, start = match.groups()
      channel = _CHANNEL.search(line)
      if name in inside and channel is not None:
        # TPU: beginning, middle and end of one that is on its way meanwhile.
        if channel[1] in seen:
          continue
        seen.add(channel[1])
      arrays = [
        (math.prod(int(n) for n in dims.split(',') if n), max(int(bits or 0) // 8, 1))
        for bits, dims in _ARRAY.findall(result)
      ]
      if start and result.startswith('('):
        # Of a start: its operands, its results and, sometimes, what it waits on.
        arrays = [a for a in arrays if a[0] > 1] or arrays
        arrays = arrays[len(arrays) // 2 :]
      sizes = tuple(size for size, _ in arrays)
      total = sum(size * width for size, width in arrays)
      found.append(Collective(kind, sizes, total, runs[name]))
  return found


def totals(found: list[Collective]) -> dict[str, dict[str, int]]:
  """Counts by kind: how many there are, how often they run, and their bytes."""
  by_kind: dict[str, dict[str, int]] = {}
  for one in found:
    entry = by_kind.setdefault(one.kind, {'count': 0, 'runs': 0, 'bytes': 0})
    entry['count'] += 1
    entry['runs'] += one.runs
    entry['bytes'] += one.runs * one.bytes
  return by_kind


def largest_gather(found: list[Collective]) -> int:
  """Elements of the largest array that an all-gather makes; 0 without any."""
  gathers = (max(one.sizes) for one in found if one.kind == 'all-gather')
  return max(gathers, default=0)
