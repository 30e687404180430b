"""What the compiler says of a program: its memory, its work, what it communicates."""

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from scmdm_jax.parallel import hlo, roofline

# Two ways in which XLA:TPU says how much of its memory it would have needed.
_NO_ROOM = re.compile(
  r'(?:Used (?=\S+ of \S+ hbm)|HLO temporaries \()([\d.]+)([KMGT])\b'
)


class Facts(NamedTuple):
  """Per device."""

  seconds: float  # Of compilation.
  arguments: int  # Bytes.
  temporaries: int
  peak: int  # Arguments, outputs that reuse none of them, and temporaries.
  flops: float  # Of loops XLA counts one pass.
  # Of a whole run of the program, see `hlo.totals`; None if it cannot be read.
  collectives: dict[str, dict[str, int]] | None
  largest_gather: int | None  # See `hlo.largest_gather`.
  steady: bool | None  # See `steady`.
  traffic: dict[str, int] | None  # Of a whole run of the program; see `roofline`.


def compile_and_measure(
  lowered: Any, options: Mapping[str, Any] | None = None
) -> tuple[Facts | None, int]:
  """Returns the facts and the peak; no facts where the compiler found no room.

  Args:
    lowered: of a jitted function.
    options: of the compiler, by name.

  Raises:
    JaxRuntimeError: it failed for another reason.
  """
  started = time.time()
  try:
    compiled = lowered.compile(dict(options)) if options else lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    used = _NO_ROOM.search(str(e))
    if 'RESOURCE_EXHAUSTED' not in str(e) or used is None:
      raise
    unit = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}[used[2]]
    return None, round(float(used[1]) * unit)
  memory = compiled.memory_analysis()
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  try:
    text = compiled.as_text()
  except jax.errors.JaxRuntimeError:  # Some TPU programs have no text.
    text = None
  spoken = None if text is None else hlo.collectives(text)
  facts = Facts(
    round(time.time() - started, 1),
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
    peak,
    float((compiled.cost_analysis() or {}).get('flops', 0.0)),
    None if spoken is None else hlo.totals(spoken),
    None if spoken is None else hlo.largest_gather(spoken),
    steady(compiled),
    None if text is None else roofline.traffic(text),
  )
  return facts, peak


def steady(compiled: Any) -> bool | None:
  """Returns whether what a program is given to keep comes back as it was given.

  Shape, dtype, layout and sharding of every donated array are then those of the result
  in its place, so that the next step meets the same program; what comes back otherwise
  is compiled for again. None if nothing is donated.
  """
  donated = [argument.donated for argument in jax.tree.leaves(compiled.args_info)]
  if not any(donated):
    return None

  def places(avals: Any, formats: Any) -> list[Any]:
    what = [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(avals)]
    return list(zip(what, jax.tree.leaves(formats), strict=True))

  taken = places(compiled.in_avals, compiled.input_formats)
  given = places(compiled.out_info, compiled.output_formats)
  kept = [i for i, is_donated in enumerate(donated) if is_donated]
  return kept[-1] < len(given) and all(taken[i] == given[i] for i in kept)
