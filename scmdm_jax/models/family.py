"""The record of a family of backbones: all that is known of it outside its module.

Whoever reads or writes its files, splits its parameters, counts its operations or makes
a new model of it reads the record, and names no family. A row of `layers` says all of a
parameter at once, so that none can be trained that could not be exported.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec as P

OBJECTIVES = ('masked', 'causal', 'classify')
REQUIRED = object()


class Sizes(Protocol):
  """What the sizes of every family have; they are frozen dataclasses."""

  @property
  def vocab_size(self) -> int: ...

  @property
  def length(self) -> int:
    """Tokens of the longest sequence."""
    ...

  @property
  def hidden_dim(self) -> int: ...

  @property
  def num_blocks(self) -> int: ...

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it."""
    ...


class Same(NamedTuple):
  """Default of a field: some times the value of another one."""

  name: str
  times: int = 1


class Field(NamedTuple):
  """A field of `config.json`.

  Of two fields for one of ours the last decides, and both are written.
  """

  name: str
  ours: str  # Of the sizes.
  of: type
  default: Any = REQUIRED
  # Written only where it says something, so that a file is like any other project's.
  quiet: bool = False


class ModelType(NamedTuple):
  """One `model_type` of `config.json` and what it says beside the sizes."""

  name: str
  class_name: str  # Of the PyTorch model, for `architectures`.
  noise: str = 'mask'
  # Where a file names no mask it is the 'last' id, or there is 'none', or the file is
  # refused ('named').
  mask: str = 'none'


class Buffer(NamedTuple):
  """A tensor of a file that is no parameter, since it follows from the sizes."""

  shape: tuple[int, ...]
  value: Callable[[], np.ndarray]  # Worked out only where a file has it.
  follows: str  # What it follows from, for messages.
  written: bool = False  # Whether loaders want it in an export.


class Row(NamedTuple):
  """One layer: its name in published files and the split of its parameters.

  Kernels are [in, out]. Mesh axis `fsdp` splits the width of the residual stream,
  `tensor` the width inside a layer and the vocabulary: a layer then needs one sum over
  `tensor`, and no device ever holds the whole embedding or head. Fused kernels of
  queries, keys and values are not split by heads, so `tensor` leaves them alone.
  """

  name: str
  split: P = P()  # Of a kernel, a table or a scale.
  bias: P = P()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """One family of backbones; see the fields."""

  name: str  # In `model.json` (`layout` there) and as option `model.architecture`.
  # With `embed`, `encode` and `logits`, as in `dit.DiT`; a classifier's has `features`
  # and `__call__`, as in `conv.Conv`. Its fields are the sizes and an `Execution`.
  module: type[nn.Module]
  sizes: type
  # Layers below `backbone` by their path, `*` being the number of a block, which the
  # first part of a path ends in. Their parameters are called `weight` and `bias` in
  # files, unless a row names a parameter itself.
  layers: Mapping[str, Row]
  model_types: tuple[ModelType, ...]
  fields: tuple[Field, ...]
  # What is computed; a file that says otherwise would give wrong numbers.
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Sizes that every model of the family has.
  always: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  table: str = ''  # The layer of the token embeddings; '' for classifiers.
  head: str = ''  # The layer of the product with the vocabulary; '' if it is `table`.
  # The tensor that repeats the table in files of models whose head is the table.
  head_copy: str = ''
  per_example: tuple[str, ...] = ()  # Modules that work once per example, not token.
  # A PyTorch linear weight is [out, in]; False: files store kernels as they are here.
  transposed: bool = True
  prefix: str = ''  # Some files put it before every name.
  # The family of a masked base that begins as one of its causal models, reading both
  # ways and shifted; '': there is none.
  masked_form: str = ''
  # What a new model may be trained for; (): models are imported only.
  objectives: tuple[str, ...] = ()
  # Of what a new model is offered (the options of `model`, `vocab_size`, `length`,
  # `grid`, `class_ids`): sizes that are not called as there.
  new: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda offered: {}
  # (config, model_type) -> config, other spellings replaced by the usual ones.
  plain: Callable[[dict[str, Any], str], dict[str, Any]] = lambda config, _: config
  # Fields of config.json beside `fields` and `fixed`, of the sizes.
  extra: Callable[[Any], dict[str, Any]] = lambda sizes: {}
  # Tensors that files may hold beside the parameters, by name, of the sizes.
  buffers: Callable[[Any], dict[str, Buffer]] = lambda sizes: {}
  notes: Callable[[Any], tuple[str, ...]] = lambda sizes: ()  # For the model card.
  # Positions that one attends to, of sizes and length.
  seen: Callable[[Any, int], int] = lambda sizes, length: length

  def __post_init__(self):
    """Refuses a record with pieces missing.

    Raises:
      ValueError: what is missing, unknown or there twice.
    """
    named = f'family {self.name!r}'
    known = {f.name: f for f in dataclasses.fields(self.sizes)}
    given = [field.ours for field in self.fields] + list(self.always)
    wanted = {name for name in known if _is_required(known[name])}
    problems = [f'{name} is no field of its sizes' for name in {*given} - {*known}]
    problems += [f'no field of config.json for {n}' for n in sorted(wanted - {*given})]
    problems += [
      f'its sizes have no {name}'
      for name in ('vocab_size', 'length', 'hidden_dim', 'num_blocks', 'causal')
      if name not in known and not hasattr(self.sizes, name)
    ]
    if not self.name or not self.layers or not self.model_types:
      problems.append('no name, layers or model_types')
    unknown = [n for n in (self.table, self.head) if n and n not in self.layers]
    problems += [f'{name} is no layer' for name in unknown]
    names = [layer.name for layer in self.layers.values()]
    problems += [
      f'{n} is there twice' for n in {n for n in names if names.count(n) > 1}
    ]
    problems += [
      f'{ours} and {layer.name}: only one of them has a number of a block'
      for ours, layer in self.layers.items()
      if ('_*/' in ours) != ('.*.' in layer.name)
    ]
    methods = ('features',) if self.is_classifier else ('embed', 'encode', 'logits')
    problems += [
      f'its module has no {m}' for m in methods if not hasattr(self.module, m)
    ]
    if not (self.is_classifier or self.table):
      problems.append('no table of token embeddings')
    problems += [f'unknown objective {o}' for o in {*self.objectives} - {*OBJECTIVES}]
    if problems:
      raise ValueError(f'{named}: {"; ".join(problems)}')

  @property
  def is_classifier(self) -> bool:
    """Whether it predicts classes, not tokens."""
    return self.objectives == ('classify',)

  def row(self, path: str) -> tuple[str, P] | None:
    """The tensor's name and the split of a parameter, by its path below `backbone`.

    `path` is as in 'blocks_3/mlp_0/kernel'; None: it is in no row.
    """
    number = re.match(r'\w+?_(\d+)/', path)
    plain = path if number is None else re.sub(r'_\d+/', '_*/', path, count=1)
    for key in dict.fromkeys((path, plain)):
      layer, _, parameter = key.rpartition('/')
      name, split = '', P()
      if key in self.layers:
        name, split = self.layers[key].name, self.layers[key].split
      elif layer in self.layers:
        row = self.layers[layer]
        is_bias = parameter == 'bias'
        name = f'{row.name}.{"bias" if is_bias else "weight"}'
        split = row.bias if is_bias else row.split
      if name:
        return name.replace('*', number[1] if number else '*'), split
    return None


def _is_required(field: dataclasses.Field) -> bool:
  missing = dataclasses.MISSING
  return field.default is missing and field.default_factory is missing


def check_sizes(sizes: Any, from_zero: tuple[str, ...] = ()) -> None:
  """Refuses integer fields that are no whole number from 1; a file may say anything.

  Args:
    sizes: a dataclass.
    from_zero: fields that may be 0.

  Raises:
    ValueError: the field, what it is and what it should be.
  """
  for field in dataclasses.fields(sizes):
    size = getattr(sizes, field.name)
    low = 0 if field.name in from_zero else 1
    if field.type is int and not (type(size) is int and low <= size < 2**31):
      raise ValueError(f'{field.name} is {size!r}; wanted a whole number from {low}')
  if sizes.num_blocks > 10_000:
    raise ValueError(f'num_blocks is {sizes.num_blocks}; wanted up to 10000')


def check_heads(dim: int, heads: int, kv_heads: int = 1, rotary: bool = True) -> None:
  """Refuses heads that do not divide the width `dim`, or cannot turn.

  Raises:
    ValueError: which sizes do not fit.
  """
  if heads % kv_heads:
    raise ValueError(f'num_kv_heads {kv_heads} does not divide num_heads {heads}')
  if dim % heads:
    raise ValueError(f'hidden_dim {dim} is not a multiple of num_heads {heads}')
  if rotary and (dim // heads) % 2:
    raise ValueError(f'rotary positions want an even head size; {dim} / {heads} is odd')


def check_blocks(sizes: Any, not_with: tuple[str, ...]) -> None:
  """Refuses blocks that do not divide the length, or beside what they contradict.

  Args:
    sizes: a dataclass with `block_length`.
    not_with: fields that are 0 or False where there are blocks.

  Raises:
    ValueError: what does not fit.
  """
  block = sizes.block_length
  if not block:
    return
  if sizes.length % block:
    raise ValueError(
      f'block_length is {block}; wanted 0, or a divisor of the length, {sizes.length}'
    )
  for name in not_with:
    if getattr(sizes, name):
      raise ValueError(
        f'block_length is {block} with {name} = {getattr(sizes, name)!r}; wanted 0 '
        'with it'
      )


def block_seen(sizes: Any, length: int) -> int:
  """Returns how many positions one attends to on average, of `length` in all."""
  return (length + sizes.block_length) // 2 if sizes.block_length else length


def block_notes(sizes: Any) -> tuple[str, ...]:
  """Returns what a model card says of blocks, if there are any."""
  if not sizes.block_length:
    return ()
  return (
    f'Attention: a position sees its own block of {sizes.block_length} and earlier '
    'ones; code that does not know `block_length` lets it see all',
  )


def check_grid(grid: tuple[int, ...], length: int) -> None:
  """Refuses a grid other than three sizes that fill the length behind one token.

  Raises:
    ValueError: the grid and what it should be.
  """
  whole = all(type(size) is int and size > 0 for size in grid)
  if grid and (len(grid) != 3 or not whole or 1 + math.prod(grid) != length):
    raise ValueError(
      f'grid is {grid}; wanted channels, height and width, whose product is one less '
      f'than the length, {length}'
    )
