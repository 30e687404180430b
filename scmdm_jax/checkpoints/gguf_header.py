"""The header of a GGUF file, every count and offset checked before it is believed.

Format: ggml's `docs/gguf.md`, versions 2 and 3, little-endian. No more is read than the
file holds, and nothing is allocated for what a header only claims to hold.

Own code, since `gguf.GGUFReader` fails tests/checkpoints/gguf_header_test.py: it hangs
on the case 'many numbers', and takes 'long string', 'overlap', 'between the steps',
'empty dimension', 'big-endian' and 'name with a control character' for sound files.
"""

import math
import pathlib
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from scmdm_jax.errors import BadInput, DamagedData

# The largest vocabularies of today, tokens and merges, take about 20 MB and a million
# entries; the largest models have a few thousand tensors.
_MAX_BYTES = 64 << 20
_MAX_ITEMS = 1 << 21
_MAX_ENTRIES = 1 << 16

_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 10, 11, 12), 'BbHhIifQqd', strict=True))
_BOOL, _STRING, _ARRAY = 7, 8, 9


class TensorInfo(NamedTuple):
  """Where a tensor's data lies and what it is."""

  shape: tuple[int, ...]  # Slowest dimension first: the file has them the other way.
  type: GGMLQuantizationType
  offset: int  # In bytes from the start of the file.
  size: int  # In bytes.


class Header(NamedTuple):
  """All there is in a file but the numbers of its tensors."""

  fields: dict[str, Any]  # Arrays of numbers are NumPy arrays.
  tensors: dict[str, TensorInfo]


def read_header(path: pathlib.Path) -> Header:
  """Reads and checks the header of the file at `path`.

  Raises:
    BadInput: a version, byte order or tensor type that is not read here.
    DamagedData: not a GGUF file, truncated, or its header contradicts itself or the
      size of the file.
  """
  with path.open('rb') as file:
    return _Reader(path, file).header()


class _Reader:
  """A position in the header."""

  def __init__(self, path: pathlib.Path, file: BinaryIO):
    self.path = path
    self.file = file
    self.size = path.stat().st_size
    self.position = 0

  def header(self) -> Header:
    magic = self.file.read(4)
    if magic != b'GGUF':
      raise self.damaged(f'begins with {magic!r}; wanted a GGUF file')
    self.position = 4
    version = self.number('I')
    if version not in (2, 3):
      swapped = int.from_bytes(version.to_bytes(4, 'little'), 'big') in (2, 3)
      what = 'big-endian' if swapped else f'version {version} of the format'
      raise BadInput(f'{self.path}: {what}; wanted little-endian, version 2 or 3')
    num_tensors, num_fields = self.number('Q'), self.number('Q')
    # An entry takes at least so many bytes.
    self.check_count('fields', num_fields, 13, _MAX_ENTRIES)
    self.check_count('tensors', num_tensors, 24, _MAX_ENTRIES)
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
      name = self.name()
      if name in fields:
        raise self.damaged(f'has the field {name!r} twice')
      fields[name] = self.value(self.number('I'))
    tensors: dict[str, TensorInfo] = {}
    for _ in range(num_tensors):
      name = self.name()
      if name in tensors:
        raise self.damaged(f'has the tensor {name!r} twice')
      tensors[name] = self.tensor(name)
    alignment = fields.get('general.alignment', 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
      raise self.damaged(f'has the alignment {alignment!r}; wanted a power of two')
    start = -(-self.position // alignment) * alignment
    return Header(fields, self.placed(tensors, start, alignment))

  def tensor(self, name: str) -> TensorInfo:
    """One tensor, its offset still counted from the start of the data."""
    num_dims = self.number('I')
    if not 1 <= num_dims <= 4:
      raise self.damaged(f'gives {name!r} {num_dims} dimensions; wanted 1 to 4')
    shape = tuple(self.number('Q') for _ in range(num_dims))[::-1]
    kind = self.number('I')
    try:
      quantization = GGMLQuantizationType(kind)
      block, block_bytes = GGML_QUANT_SIZES[quantization]
    except (ValueError, KeyError) as e:
      raise BadInput(
        f'{self.path}: tensor {name!r} is of type {kind}, which is not known here; '
        'wanted a GGUF with F32, F16, BF16 or quantised tensors'
      ) from e
    if min(shape) < 1 or shape[-1] % block:
      raise self.damaged(
        f'gives {name!r} the shape {list(shape)}; wanted rows of whole blocks of '
        f'{block}, as {quantization.name} has'
      )
    size = math.prod(shape) // block * block_bytes
    return TensorInfo(shape, quantization, self.number('Q'), size)

  def placed(
    self, tensors: dict[str, TensorInfo], start: int, alignment: int
  ) -> dict[str, TensorInfo]:
    """The tensors with offsets in the file; each has its own place inside it."""
    found = {}
    end, before = start, ''
    for name, info in sorted(tensors.items(), key=lambda item: item[1].offset):
      if info.offset % alignment:
        raise self.damaged(
          f'puts {name!r} at {info.offset}; wanted a multiple of {alignment}'
        )
      offset = start + info.offset
      if offset < end:
        raise self.damaged(f'puts {name!r} over the end of {before!r}')
      end, before = offset + info.size, name
      if end > self.size:
        raise self.damaged(
          f'puts {name!r} at bytes {offset} to {end} of {self.size}; it is truncated '
          'or altered'
        )
      found[name] = info._replace(offset=offset)
    return {name: found[name] for name in tensors}

  def take(self, count: int) -> bytes:
    left = self.size - self.position
    if count > left:
      raise self.damaged(
        f'wants {count} bytes at byte {self.position}, where {left} are left'
      )
    if self.position + count > _MAX_BYTES:
      raise self.damaged(f'has a header of more than {_MAX_BYTES} bytes')
    self.position += count
    return self.file.read(count)

  def number(self, code: str) -> Any:
    return struct.unpack(f'<{code}', self.take(struct.calcsize(f'<{code}')))[0]

  def text(self) -> str:
    data = self.take(self.number('Q'))
    try:
      return data.decode('utf-8')
    except UnicodeDecodeError as e:
      raise self.damaged(f'has a string that is not UTF-8 ({data[:20]!r})') from e

  def name(self) -> str:
    name = self.text()
    if not name.isprintable():  # Names are shown on the user's terminal.
      raise self.damaged(f'has the name {name[:80]!r}; wanted readable characters')
    return name

  def value(self, kind: int) -> Any:
    if kind == _STRING:
      return self.text()
    if kind == _BOOL:
      return self.number('B') != 0
    if kind in _NUMBERS:
      return self.number(_NUMBERS[kind])
    if kind != _ARRAY:
      raise self.damaged(f'has a field of type {kind}; wanted one from 0 to 12')
    kind, count = self.number('I'), self.number('Q')
    if kind == _STRING:
      self.check_count('strings', count, 8, _MAX_ITEMS)
      return [self.text() for _ in range(count)]
    if kind == _BOOL:
      return np.frombuffer(self.take(count), np.uint8) != 0
    if kind in _NUMBERS:
      dtype = np.dtype(f'<{_NUMBERS[kind]}')
      return np.frombuffer(self.take(count * dtype.itemsize), dtype)
    raise self.damaged(f'has an array of type {kind}; wanted numbers or strings')

  def check_count(self, what: str, count: int, least: int, most: int) -> None:
    """Refuses at once what the rest of the file cannot hold."""
    left = self.size - self.position
    if count > min(most, left // least):
      raise self.damaged(
        f'claims {count} {what}; wanted at most {most}, and as many as {left} bytes '
        'can hold'
      )

  def damaged(self, problem: str) -> DamagedData:
    return DamagedData(f'{self.path}: {problem}; get the file again')
