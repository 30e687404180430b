"""What the compiler says of a program: its memory, its work, what it communicates."""

import math
import re
import time
from typing import Any, NamedTuple

import jax

_COLLECTIVES = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_OPERATION = re.compile(rf' = (.*?) ({_COLLECTIVES})(-start)?\(')
_ARRAY = re.compile(r'([a-z]+)(\d+)\w*\[([\d,]*)\]')
_NO_ROOM = re.compile(r'Used ([\d.]+)([KMG]) of')


class Facts(NamedTuple):
  """Per device; of loops XLA counts operations and collectives of one pass."""

  seconds: float  # Of compilation.
  arguments: int  # Bytes.
  temporaries: int
  peak: int  # Arguments, outputs that reuse none of them, and temporaries.
  flops: float
  # By kind: how many, and the bytes of their results; None if it cannot be read.
  collectives: dict[str, dict[str, int]] | None


def collectives(text: str) -> dict[str, dict[str, int]]:
  """Counts and bytes of the collectives in a compiled program's text."""
  found: dict[str, dict[str, int]] = {}
  for shape, kind, start in _OPERATION.findall(text):
    sizes = [
      max(int(bits) // 8, 1) * math.prod(int(n) for n in dims.split(',') if n)
      for _, bits, dims in _ARRAY.findall(shape)
    ]
    entry = found.setdefault(kind, {'count': 0, 'bytes': 0})
    entry['count'] += 1
    # The result of a start is its operands and then its results.
    entry['bytes'] += sum(sizes[len(sizes) // 2 :] if start else sizes)
  return found


def compile_and_measure(lowered: Any) -> tuple[Facts | None, int]:
  """The facts and the peak; no facts where the compiler found no room.

  Raises:
    JaxRuntimeError: it failed for another reason.
  """
  started = time.time()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    used = _NO_ROOM.search(str(e))
    if 'RESOURCE_EXHAUSTED' not in str(e) or used is None:
      raise
    unit = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[used[2]]
    return None, round(float(used[1]) * unit)
  memory = compiled.memory_analysis()
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  try:
    spoken = collectives(compiled.as_text())
  except jax.errors.JaxRuntimeError:  # Some TPU programs have no text.
    spoken = None
  facts = Facts(
    round(time.time() - started, 1),
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
    peak,
    float((compiled.cost_analysis() or {}).get('flops', 0.0)),
    spoken,
  )
  return facts, peak
