"""The header of a safetensors file, believed only where the file bears it out.

    8 bytes: N, little-endian | N bytes of JSON: name -> dtype, shape, offsets | data

Own code, since the library maps a whole file into memory to list what is in it: pages
of the mapping count as resident, and a model larger than the memory is read here. It
also takes five of the lies of tests/checkpoints/safetensors_header_test.py for true: a
blank before the header, an unknown field, 33 dimensions, an empty name and one with a
line break.
"""

import dataclasses
import json
import math
import pathlib
import reprlib
from typing import Any

from scmdm_jax.errors import BadInput, DamagedData

# As in the library; a real header has about 120 bytes per tensor.
MAX_HEADER_BYTES = 100_000_000
# Beyond this NumPy has no arrays, even empty ones.
_MAX_DIMENSIONS, _MAX_ELEMENTS = 32, 1 << 60

_METADATA = '__metadata__'
_DTYPES = {
  4: 'F4',
  6: 'F6_E2M3 F6_E3M2',
  8: 'BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E5M2FNUZ F8_E4M3FNUZ',
  16: 'U16 I16 F16 BF16',
  32: 'U32 I32 F32',
  64: 'U64 I64 F64 C64',
}
_BITS = {name: bits for bits, names in _DTYPES.items() for name in names.split()}
# A header may hold a list of millions where a shape belongs.
_repr = reprlib.Repr()
_repr.maxstring, _repr.maxlevel = 80, 2


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where one tensor lies, as a checked header says."""

  file: pathlib.Path
  shape: tuple[int, ...]
  dtype: str  # safetensors' name: 'F32', 'BF16', 'I64'.
  offset: int  # Of its first byte in the file.
  size: int  # In bytes.


def read_header(file: pathlib.Path) -> dict[str, Tensor]:
  """Every tensor of a file by its name; no data is read.

  Raises:
    BadInput: not a regular file.
    DamagedData: the header is cut, malformed, or contradicts itself or the size of the
      file: the tensors must fill the data from end to end without overlap.
  """
  if not file.is_file():
    raise BadInput(f'{file}: not a file; wanted a safetensors file')
  try:
    with file.open('rb') as opened:
      file_size = file.stat().st_size
      size = int.from_bytes(opened.read(8), 'little')
      if file_size < 8 or size > min(file_size - 8, MAX_HEADER_BYTES):
        raise ValueError(f'a header of {size} bytes in a file of {file_size}')
      data = opened.read(size)
  except OSError as e:
    raise DamagedData(f'{file}: cannot be read ({e.strerror or e})') from e
  except ValueError as e:
    raise _damaged(file, e) from e
  try:
    entries = _parse(data)
    tensors = {
      name: _tensor(file, 8 + size, name, entry) for name, entry in entries.items()
    }
    _check_layout(tensors, 8 + size, file_size)
  except (ValueError, RecursionError) as e:
    raise _damaged(file, e) from e
  return tensors


def _damaged(file: pathlib.Path, problem: Exception) -> DamagedData:
  return DamagedData(
    f'{file}: not a readable safetensors file ({problem}); get the file again'
  )


def _parse(data: bytes) -> dict[str, Any]:
  """The entries of a header without its metadata."""
  if not data.startswith(b'{'):
    raise ValueError('the header is not a JSON object')
  header = json.loads(data.decode('utf-8'), object_pairs_hook=_without_duplicates)
  metadata = header.pop(_METADATA, {})
  if not (
    isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
  ):
    raise ValueError(f'{_METADATA} is not an object of strings')
  return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = {}
  for name, value in pairs:
    if name in found:
      raise ValueError(f'{_short(name)} is there twice')
    found[name] = value
  return found


def _tensor(file: pathlib.Path, start: int, name: str, entry: Any) -> Tensor:
  where = f'tensor {_short(name)}'
  if not (name and name.isprintable()):
    raise ValueError(f'{where}: wanted a printable name')
  if not (
    isinstance(entry, dict) and entry.keys() == {'dtype', 'shape', 'data_offsets'}
  ):
    raise ValueError(f'{where}: wanted dtype, shape and data_offsets')
  dtype, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
  if not (isinstance(dtype, str) and dtype in _BITS):
    raise ValueError(f'{where}: its dtype is {_short(dtype)}')
  if not (
    _whole(shape)
    and len(shape) <= _MAX_DIMENSIONS
    and math.prod(max(n, 1) for n in shape) < _MAX_ELEMENTS
  ):
    raise ValueError(f'{where}: its shape is {_short(shape)}')
  if not (_whole(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]):
    raise ValueError(f'{where}: its data_offsets are {_short(offsets)}')
  begin, end = offsets
  if 8 * (end - begin) != math.prod(shape) * _BITS[dtype]:
    raise ValueError(f'{where}: {end - begin} bytes for {dtype} {_short(shape)}')
  return Tensor(file, tuple(shape), dtype, start + begin, end - begin)


def _whole(value: Any) -> bool:
  return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_layout(tensors: dict[str, Tensor], start: int, file_size: int) -> None:
  """Without gaps and overlap from the end of the header to the end of the file."""
  end = start
  for name, tensor in sorted(tensors.items(), key=lambda i: (i[1].offset, i[1].size)):
    if tensor.offset != end:
      raise ValueError(
        f'tensor {_short(name)}: begins at byte {tensor.offset - start} of the data, '
        f'wanted {end - start}'
      )
    end += tensor.size
  if end != file_size:
    raise ValueError(f'{end} bytes are described, the file has {file_size}')


def _short(value: Any) -> str:
  return _repr.repr(value)
