"""What a compiled program moves between a chip and its memory, and how long that takes.

A prediction from the text of the program and the data sheet of the chip; nothing ran.
Counted per device, as in `hlo`: loops run to their bound, both branches are taken.
"""

import collections
import math
import re
from collections.abc import Mapping
from typing import Any

from scmdm_jax.parallel import hlo
from scmdm_jax.parallel.chips import Chip

_INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:,|$)'
)
# S(1) is the fast memory of a TPU.
_ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](?:\{[^}]*(S\(1\))[^}]*\})?')
_NAME = re.compile(r'op_name="([^"]*)"')
_OPERAND = re.compile(r'%([\w.-]+)')
_APPLIED = re.compile(r'(?:to_apply|comparator)=%?([\w.-]+)')
# They move nothing, or something else is counted for them.
_FREE = {
  'parameter',
  'get-tuple-element',
  'tuple',
  'constant',
  'bitcast',
  'while',
  'conditional',
  'call',
  'after-all',
  'iota',
  'opt-barrier',
}
_SLICES = {'slice', 'dynamic-slice', 'gather'}


def _bytes(shape: str) -> int:
  """Bytes of the arrays in `shape` that lie in the memory of the chip."""
  return sum(
    max(int(bits or 8) // 8, 1) * math.prod(int(n) for n in dims.split(',') if n)
    for _, bits, dims, is_fast in _ARRAY.findall(shape)
    if not is_fast
  )


def _called(line: str, kind: str) -> str:
  """Returns the instruction as the program has it, blocks without a number."""
  name = _NAME.search(line)
  if name is None:
    return kind
  return re.sub(r'_\d+\b', '_*', re.sub(r'jit\(\w+\)/', '', name[1]))


def traffic(text: str) -> dict[str, int]:
  """Returns bytes by the name of an operation, the most first.

  An instruction reads its operands and writes its result; what is fused into it moves
  nothing more.
  """
  computations = hlo.parsed(text)
  if not computations:
    return {}
  runs = hlo.executions(computations)
  inside = hlo.fused(text) | set(_APPLIED.findall(text))
  found: collections.Counter[str] = collections.Counter()
  for computation, lines in computations.items():
    if computation in inside or not runs[computation]:
      continue
    read = [match and match.groups() for match in map(_INSTRUCTION.match, lines)]
    shapes = {one[0]: one[1] for one in read if one}
    for line, one in zip(lines, read, strict=True):
      if one is None or one[2] in _FREE or one[2].endswith('-done'):
        continue
      _, shape, kind, arguments = one
      operands = [shapes.get(o, '') for o in _OPERAND.findall(arguments)]
      if kind in _SLICES:
        moved = 2 * _bytes(shape)
      elif kind == 'dynamic-update-slice' and len(operands) > 1:
        moved = 2 * _bytes(operands[1])
      else:
        moved = _bytes(shape) + sum(map(_bytes, operands))
      found[_called(line, kind)] += moved * runs[computation]
  return dict(found.most_common())


def floor_bytes(kept: int, arch: Any, tokens: float, is_trained: bool) -> float:
  """Returns what a step has to move: weights and activations, once.

  What is kept is read, and written if it is trained; of every block the activations, in
  bfloat16, are written and read at every pass, of which training has three.

  Args:
    kept: bytes of weights and, in training, of optimizer and average.
    arch: has `num_blocks` and `hidden_dim`.
    tokens: of a step of one device.
    is_trained: whether it is a step of training.
  """
  activations = 4 * arch.num_blocks * arch.hidden_dim * tokens
  return 2 * kept + 3 * activations if is_trained else kept + activations


def predicted(
  moved: Mapping[str, float], flops: float, floor: float, tokens: float, chip: Chip
) -> dict[str, Any]:
  """Returns a prediction for one step of one device.

  Args:
    moved: see `traffic`, of a step.
    flops: of a step, by formula.
    floor: bytes that a step has to move, by formula.
    tokens: of a step.
    chip: what it runs on.
  """
  total = sum(moved.values())
  seconds = {'flops': flops / chip.flops, 'bytes': total / chip.bytes_per_second}
  name, largest = next(iter(moved.items()), ('', 0))
  return {
    'is_a_prediction': True,
    'milliseconds': 1e3 * max(seconds.values()),
    'milliseconds_of': {kind: 1e3 * value for kind, value in seconds.items()},
    'tokens_per_second': tokens / max(seconds.values()),
    'bytes': total,
    'floor_bytes': floor,
    'floor_milliseconds': 1e3 * max(seconds['flops'], floor / chip.bytes_per_second),
    'largest': {'name': name, 'bytes': largest},
  }
