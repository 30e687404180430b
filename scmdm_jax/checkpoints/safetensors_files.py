"""Directories of `config.json` and `*.safetensors`, the way Hugging Face lays them out.

Nothing here executes or unpickles anything: other formats are refused unopened, and no
file outside the given directory is read.
"""

import dataclasses
import os.path
import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np

from scmdm_jax.checkpoints import disk
from scmdm_jax.checkpoints.safetensors_header import Tensor, read_header
from scmdm_jax.errors import BadInput, DamagedData

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
# What Hugging Face calls the files of a tokenizer.
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'vocab.json',
  'merges.txt',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
)
# Half precision widens to float32 without loss; anything else is no weight of ours.
DTYPES = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
# Of masks and the like, which follow from the sizes.
_BUFFERS = {
  **DTYPES,
  'F64': np.dtype(np.float64),
  'BOOL': np.dtype(np.bool_),
  'U8': np.dtype(np.uint8),
  'I8': np.dtype(np.int8),
  'I32': np.dtype(np.int32),
  'I64': np.dtype(np.int64),
}

_SHARD = re.compile(r'model-[0-9]+-of-[0-9]+\.safetensors')
_PICKLES = frozenset({'.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle'})


@dataclasses.dataclass(frozen=True)
class Source:
  """An opened directory; the weights are read later, one tensor at a time."""

  where: pathlib.Path
  config: dict[str, Any]
  tensors: dict[str, Tensor]

  @property
  def beside(self) -> pathlib.Path:
    """Where the files are that come with the weights."""
    return self.where

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name."""
    return {name: tensor.shape for name, tensor in self.tensors.items()}

  @property
  def num_bytes(self) -> int:
    """Size of the weight files together."""
    files = {tensor.file for tensor in self.tensors.values()}
    return sum(file.stat().st_size for file in files)

  def read(self, name: str) -> np.ndarray:
    """One tensor in its shape and the file's dtype: float32, float16 or bfloat16.

    Nothing but the returned array stays in memory: the file is read, not mapped.

    Raises:
      BadInput: a tensor of another dtype.
      DamagedData: the data cannot be read.
    """
    return self._read(name, DTYPES)

  def read_buffer(self, name: str) -> np.ndarray:
    """A tensor that is no weight and may be of other dtypes; errors as `read`."""
    return self._read(name, _BUFFERS)

  def _read(self, name: str, dtypes: dict[str, np.dtype]) -> np.ndarray:
    tensor = self.tensors[name]
    if tensor.dtype not in dtypes:
      raise BadInput(
        f'{tensor.file}: tensor {name!r} is {tensor.dtype}; wanted one of '
        f'{", ".join(dtypes)}'
      )
    data = np.empty(tensor.size, np.uint8)
    try:
      with tensor.file.open('rb') as file:
        file.seek(tensor.offset)
        count = file.readinto(data.data)
    except OSError as e:
      raise DamagedData(
        f'{tensor.file}: tensor {name!r} cannot be read ({e.strerror or e})'
      ) from e
    if count < tensor.size:
      raise DamagedData(
        f'{tensor.file}: ends inside tensor {name!r}; get the file again'
      )
    return data.view(dtypes[tensor.dtype]).reshape(tensor.shape)

  def tokenizer_files(self) -> dict[str, pathlib.Path]:
    """The files of the tokenizer that are there, by name.

    Raises:
      BadInput: one of them is a link that leaves the directory.
    """
    paths = {name: inside(self.where, name) for name in TOKENIZER_FILES}
    return {name: path for name, path in paths.items() if path.is_file()}


def open_source(path: str | pathlib.Path) -> Source:
  """Reads the configuration and the headers of every weight file.

  Args:
    path: a directory with `config.json` and one `*.safetensors`, or shards with
      `model.safetensors.index.json`; or one `.safetensors` file beside its
      `config.json`.

  Raises:
    BadInput: not such a directory; a format that is refused; a path that leaves it.
    DamagedData: a file is truncated or altered, or disagrees with the index.
  """
  path = pathlib.Path(path)
  _refuse_pickle(path)
  if not path.exists():
    raise BadInput(f'{path}: no such directory; give one with {CONFIG} and {WEIGHTS}')
  if not path.is_dir():
    if path.suffix != '.safetensors':
      raise BadInput(f'{path}: not a .safetensors file; give the directory of one')
    directory, files = path.parent, [path]
  else:
    directory, files = path, None
  names = sorted(p.name for p in directory.iterdir())
  if files is None and not any(
    name.endswith('.safetensors') or name == INDEX for name in names
  ):
    for name in names:
      _refuse_pickle(directory / name)
    raise BadInput(f'{directory}: no *.safetensors; found {_some(names)}')
  if CONFIG not in names:
    raise BadInput(
      f'{directory}: no {CONFIG}; found {_some(names)}; give a directory with '
      f'{CONFIG} and *.safetensors'
    )
  config = disk.read_json(inside(directory, CONFIG))
  if files is not None:
    weight_map = None
  else:
    files, weight_map = _weight_files(directory, names)
  tensors: dict[str, Tensor] = {}
  for file in files:
    for name, tensor in read_header(file).items():
      if name in tensors:
        raise DamagedData(
          f'{file}: tensor {name!r} is also in {tensors[name].file.name}; '
          'wanted each tensor once'
        )
      tensors[name] = tensor
  if weight_map is not None:
    _check_index(directory / INDEX, weight_map, tensors)
  return Source(directory, config, tensors)


def _refuse_pickle(path: pathlib.Path) -> None:
  if path.suffix in _PICKLES:
    raise BadInput(
      f'{path}: {path.suffix} files can run code when opened and are never read; '
      'wanted safetensors; convert it on a machine you can lose: python -c "import '
      "torch, safetensors.torch as s; w = torch.load('IN', weights_only=True); "
      "s.save_file({k: v.contiguous() for k, v in w.items()}, 'model.safetensors')\""
    )


def inside(directory: pathlib.Path, name: str) -> pathlib.Path:
  """`directory / name`, refused when that lies elsewhere (`..`, absolute, a link)."""
  lexical = pathlib.PurePath(name)
  if not name.isprintable():
    raise BadInput(f'{directory}: the file name {name!r} is not printable; rename it')
  if lexical.is_absolute() or '..' in lexical.parts:
    raise BadInput(f'{directory}: names the file {name!r}, outside the directory')
  path = directory / name
  try:
    root, target = directory.resolve(), path.resolve()
  except (OSError, RuntimeError) as e:  # A name too long, links in a circle.
    raise BadInput(f'{directory}: the file {name!r} cannot be found ({e})') from e
  # A snapshot in the Hugging Face cache is links into the `blobs` beside `snapshots`.
  cache = root.parents[1] / 'blobs' if root.parent.name == 'snapshots' else root
  if not (target.is_relative_to(root) or target.is_relative_to(cache)):
    raise BadInput(
      f'{path}: a link that leaves the directory, to {target}; copy the file there'
    )
  return path


def _weight_files(
  directory: pathlib.Path, names: list[str]
) -> tuple[list[pathlib.Path], dict[str, str] | None]:
  """The weight files and, if there is an index, what it says."""
  if INDEX in names:
    index = inside(directory, INDEX)
    weight_map = disk.read_json(index).get('weight_map')
    if not (
      isinstance(weight_map, dict)
      and weight_map
      and all(isinstance(v, str) for v in weight_map.values())
    ):
      raise DamagedData(f'{index}: weight_map is not an object of file names')
    files = sorted({inside(directory, name) for name in weight_map.values()})
    if WEIGHTS in names and directory / WEIGHTS not in files:
      raise BadInput(
        f'{directory}: holds {WEIGHTS} and, of other files, {INDEX}: '
        f'{_some([file.name for file in files])}; remove what is outdated, or give '
        f'--source={directory / WEIGHTS}'
      )
    for file in files:
      _refuse_pickle(file)
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing:
      raise DamagedData(
        f'{directory}: {INDEX} names {_some(missing)}, which is not there; '
        'get the missing shards'
      )
    return files, weight_map
  weights = [name for name in names if name.endswith('.safetensors')]
  if WEIGHTS in weights and not any(map(_SHARD.fullmatch, weights)):
    weights = [WEIGHTS]  # Others beside it are adapters and the like.
  if len(weights) > 1:
    raise BadInput(
      f'{directory}: {_some(weights)} and no {INDEX}; give one file, or the index'
    )
  return [inside(directory, weights[0])], None


def _check_index(
  index: pathlib.Path, weight_map: dict[str, str], tensors: dict[str, Tensor]
) -> None:
  found = {name: tensor.file for name, tensor in tensors.items()}
  wanted = {name: index.parent / file for name, file in weight_map.items()}
  wrong = sorted(
    name for name in {**found, **wanted} if found.get(name) != wanted.get(name)
  )
  if wrong:
    examples = []
    for n in wrong:
      file = found[n].name if n in found else None
      examples.append(f'{n} (index: {weight_map.get(n)}, found in: {file})')
    raise DamagedData(f'{index}: disagrees with the shards on {_some(examples)}')


def _some(names: list[str], most: int = 8) -> str:
  shown = (name if name.isprintable() else repr(name) for name in names[:most])
  rest = f' and {len(names) - most} more' if len(names) > most else ''
  return (', '.join(shown) or 'nothing') + rest
