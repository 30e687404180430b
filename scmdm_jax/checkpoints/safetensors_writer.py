"""Writes `config.json` and `*.safetensors` as Hugging Face does, a tensor at a time.

Own code, since the library wants all tensors in memory at once; the bytes are the same.
"""

import json
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.checkpoints import disk
from scmdm_jax.checkpoints.safetensors_files import CONFIG, DTYPES, INDEX, WEIGHTS

# What Hugging Face's own exports use, for files that can be fetched in parts.
SHARD_BYTES = 5 << 30

# (shape, dtype) of a tensor that is yet to be read.
Spec = tuple[tuple[int, ...], np.dtype]

# The loaders of other projects look for this field.
_METADATA = {'format': 'pt'}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Order in a file, as in the library: the widest first, so that all lie aligned.
_ORDER = ('F32', 'BF16', 'F16')


def write(
  path: str | pathlib.Path,
  config: dict[str, Any],
  tensors: Mapping[str, Spec],
  read: Callable[[str], np.ndarray],
  *,
  extra_files: Mapping[str, str | pathlib.Path] | None = None,
  shard_bytes: int = SHARD_BYTES,
) -> int:
  """Writes a model to the free directory `path`, which appears by one rename.

  Args:
    path: a new or empty directory.
    config: the content of `config.json`.
    tensors: (shape, dtype) of every tensor by name; float32, bfloat16 or float16.
    read: gives the tensor of a name; called once for each, and one result is held at a
      time.
    extra_files: by name, the text of a file or a file to copy.
    shard_bytes: above so many bytes the tensors are spread, in their order, over files
      of at most this size (a larger tensor has its own) with an index.

  Returns:
    Bytes of the weight files.

  Raises:
    BadInput: `path` is not empty or cannot be created.
    DamagedData: the disk is full or failing.
    ValueError: `read` gave another shape or dtype than `tensors` says.
  """
  path = pathlib.Path(path)
  disk.refuse_occupied(path)
  shards = _shards(tensors, shard_bytes)
  with disk.new_directory(path) as temporary:
    _write_beside(temporary, extra_files or {})
    files.write_json(temporary / CONFIG, config, allow_nan=False)
    for file, names in shards.items():
      _write_file(temporary / file, {name: tensors[name] for name in names}, read)
    if len(shards) > 1:
      files.write_json(temporary / INDEX, _index(tensors, shards))
    return sum((temporary / file).stat().st_size for file in shards)


def write_adapter(
  path: pathlib.Path,
  config: dict[str, Any],
  tensors: Mapping[str, Spec],
  read: Callable[[str], np.ndarray],
  own: Mapping[str, np.ndarray],
  extra_files: Mapping[str, str | pathlib.Path],
) -> int:
  """Writes an adapter as the `peft` library does; the arguments are those of `write`.

  `own` are tensors that the library does not know, which go to a file of their own;
  returns the bytes of both.
  """
  disk.refuse_occupied(path)
  with disk.new_directory(path) as temporary:
    _write_beside(temporary, extra_files)
    files.write_json(temporary / 'adapter_config.json', config, allow_nan=False)
    weights = [temporary / 'adapter_model.safetensors']
    _write_file(weights[0], tensors, read)
    if own:
      weights.append(temporary / 'self_conditioning.safetensors')
      specs = {name: (value.shape, value.dtype) for name, value in own.items()}
      _write_file(weights[1], specs, lambda name: own[name])
    return sum(file.stat().st_size for file in weights)


def _write_beside(
  directory: pathlib.Path, extra_files: Mapping[str, str | pathlib.Path]
) -> None:
  for name, content in extra_files.items():
    (directory / name).parent.mkdir(exist_ok=True)
    if isinstance(content, str):
      (directory / name).write_text(content, encoding='utf-8')
    else:
      shutil.copyfile(content, directory / name)


def _shards(tensors: Mapping[str, Spec], shard_bytes: int) -> dict[str, list[str]]:
  """Names of the tensors in every file, by the name of the file."""
  groups: list[list[str]] = [[]]
  filled = 0
  for name, spec in tensors.items():
    if groups[-1] and filled + _size(spec) > shard_bytes:
      groups.append([])
      filled = 0
    groups[-1].append(name)
    filled += _size(spec)
  if len(groups) == 1:
    return {WEIGHTS: groups[0]}
  return {
    f'model-{i:05d}-of-{len(groups):05d}.safetensors': group
    for i, group in enumerate(groups, start=1)
  }


def _size(spec: Spec) -> int:
  shape, dtype = spec
  return math.prod(shape) * np.dtype(dtype).itemsize


def _index(
  tensors: Mapping[str, Spec], shards: Mapping[str, list[str]]
) -> dict[str, Any]:
  weight_map = {name: file for file, names in shards.items() for name in names}
  return {
    'metadata': {'total_size': sum(_size(spec) for spec in tensors.values())},
    'weight_map': dict(sorted(weight_map.items())),
  }


def _write_file(
  path: pathlib.Path,
  tensors: Mapping[str, Spec],
  read: Callable[[str], np.ndarray],
) -> None:
  names = sorted(
    tensors, key=lambda name: (_ORDER.index(_NAMES[np.dtype(tensors[name][1])]), name)
  )
  with path.open('wb') as file:
    file.write(_header({name: tensors[name] for name in names}))
    for name in names:
      file.write(_bytes(name, read(name), tensors[name]))


def _bytes(name: str, value: np.ndarray, spec: Spec) -> memoryview:
  shape, dtype = spec
  if value.shape != tuple(shape) or value.dtype != dtype:
    raise ValueError(
      f'{name}: {value.dtype}{list(value.shape)} was read, {np.dtype(dtype)}'
      f'{list(shape)} announced'
    )
  # Through uint8: bfloat16 has no buffer.
  return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _header(tensors: Mapping[str, Spec]) -> bytes:
  """Length and JSON of a file that holds `tensors` in this order, without gaps."""
  header: dict[str, Any] = {'__metadata__': _METADATA}
  end = 0
  for name, (shape, dtype) in tensors.items():
    begin, end = end, end + _size((shape, dtype))
    header[name] = {
      'dtype': _NAMES[np.dtype(dtype)],
      'shape': list(shape),
      'data_offsets': [begin, end],
    }
  text = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text
