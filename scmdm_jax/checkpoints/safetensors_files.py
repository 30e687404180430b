"""Directories of `config.json` and `*.safetensors`, the way Hugging Face lays them out.

Nothing here executes or unpickles anything: other formats are refused unopened, and no
file outside the given directory is read.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from scmdm_jax.checkpoints import disk
from scmdm_jax.errors import BadInput, DamagedData

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

_PICKLES = frozenset({'.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle'})
# Half precision widens to float32 without loss; anything else is no weight of ours.
_DTYPES = frozenset({'F32', 'F16', 'BF16'})


@dataclasses.dataclass(frozen=True)
class Tensor:
  """What a file's header says of one tensor."""

  file: pathlib.Path
  shape: tuple[int, ...]
  dtype: str  # safetensors' name: 'F32', 'BF16', 'I64'.


@dataclasses.dataclass(frozen=True)
class Source:
  """An opened directory; the weights are read later, one tensor at a time."""

  directory: pathlib.Path
  config: dict[str, Any]
  tensors: dict[str, Tensor]

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name."""
    return {name: tensor.shape for name, tensor in self.tensors.items()}

  @property
  def num_bytes(self) -> int:
    """Size of the weight files together."""
    files = {tensor.file for tensor in self.tensors.values()}
    return sum(file.stat().st_size for file in files)


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
  if path.is_file():
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
  config = disk.read_json(_inside(directory, CONFIG))
  if files is not None:
    weight_map = None
  else:
    files, weight_map = _weight_files(directory, names)
  tensors: dict[str, Tensor] = {}
  for file in files:
    for name, tensor in _read_header(file).items():
      if name in tensors:
        raise DamagedData(
          f'{file}: tensor {name!r} is also in {tensors[name].file.name}; '
          'wanted each tensor once'
        )
      tensors[name] = tensor
  if weight_map is not None:
    _check_index(directory / INDEX, weight_map, tensors)
  return Source(directory, config, tensors)


def read_tensors(source: Source) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, float32 array), one tensor in memory at a time, file by file.

  Raises:
    BadInput: a tensor of a dtype other than float32, float16, bfloat16.
    DamagedData: the data of a tensor cannot be read.
  """
  for file in sorted({tensor.file for tensor in source.tensors.values()}):
    with _opened(file) as handle:
      for name in sorted(handle.keys()):
        dtype = source.tensors[name].dtype
        if dtype not in _DTYPES:
          raise BadInput(
            f'{file}: tensor {name!r} is {dtype}; wanted one of {sorted(_DTYPES)}'
          )
        try:
          value = handle.get_tensor(name)
        except safetensors.SafetensorError as e:
          raise DamagedData(f'{file}: tensor {name!r} cannot be read ({e})') from e
        yield name, np.asarray(value, np.float32)


def write(
  path: str | pathlib.Path, config: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes `config.json` and `model.safetensors` to the free directory `path`.

  The directory appears complete, by one rename.

  Raises:
    BadInput: `path` is not empty or cannot be created.
    DamagedData: the disk is full or failing.
  """
  path = pathlib.Path(path)
  disk.refuse_occupied(path)
  with disk.new_directory(path) as temporary:
    disk.write_json(temporary / CONFIG, config)
    # safetensors writes a tensor's memory as it lies: a transposed view would be
    # stored scrambled.
    packed = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    try:
      # The loaders of other projects look for this field.
      metadata = {'format': 'pt'}
      safetensors.numpy.save_file(packed, temporary / WEIGHTS, metadata=metadata)
    except safetensors.SafetensorError as e:
      raise DamagedData(f'{path}: writing {WEIGHTS} failed ({e})') from e


def _refuse_pickle(path: pathlib.Path) -> None:
  if path.suffix in _PICKLES:
    raise BadInput(
      f'{path}: {path.suffix} files can run code when opened and are never read; '
      'wanted safetensors; convert it on a machine you can lose: python -c "import '
      "torch, safetensors.torch as s; w = torch.load('IN', weights_only=True); "
      "s.save_file({k: v.contiguous() for k, v in w.items()}, 'model.safetensors')\""
    )


def _inside(directory: pathlib.Path, name: str) -> pathlib.Path:
  """`directory / name`, refused when that lies elsewhere (`..`, absolute, a link)."""
  root = directory.resolve()
  # A snapshot in the Hugging Face cache is links into the `blobs` beside `snapshots`.
  cache = root.parents[1] / 'blobs' if root.parent.name == 'snapshots' else root
  path = directory / name
  target = path.resolve()
  lexical = pathlib.PurePath(name)
  if lexical.is_absolute() or '..' in lexical.parts or '\0' in name:
    raise BadInput(f'{directory}: names the file {name!r}, outside the directory')
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
    index = _inside(directory, INDEX)
    weight_map = disk.read_json(index).get('weight_map')
    if not (
      isinstance(weight_map, dict)
      and weight_map
      and all(isinstance(v, str) for v in weight_map.values())
    ):
      raise DamagedData(f'{index}: weight_map is not an object of file names')
    files = [_inside(directory, name) for name in sorted(set(weight_map.values()))]
    for file in files:
      _refuse_pickle(file)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
      raise DamagedData(
        f'{directory}: {INDEX} names {_some(missing)}, which is not there; '
        'get the missing shards'
      )
    return files, weight_map
  weights = [name for name in names if name.endswith('.safetensors')]
  if WEIGHTS in weights:
    weights = [WEIGHTS]
  if len(weights) > 1:
    raise BadInput(
      f'{directory}: {_some(weights)} and no {INDEX}; give one file, or the index'
    )
  return [_inside(directory, weights[0])], None


def _opened(file: pathlib.Path):
  try:
    return safetensors.safe_open(file, framework='numpy')
  except (safetensors.SafetensorError, OSError) as e:
    raise DamagedData(
      f'{file}: not a readable safetensors file ({e}); get the file again'
    ) from e


def _read_header(file: pathlib.Path) -> dict[str, Tensor]:
  found = {}
  with _opened(file) as handle:
    for name in handle.keys():  # noqa: SIM118 (not a dictionary)
      view = handle.get_slice(name)
      found[name] = Tensor(file, tuple(view.get_shape()), view.get_dtype())
  return found


def _check_index(
  index: pathlib.Path, weight_map: dict[str, str], tensors: dict[str, Tensor]
) -> None:
  found = {name: tensor.file.name for name, tensor in tensors.items()}
  wanted = {name: pathlib.PurePath(file).name for name, file in weight_map.items()}
  wrong = sorted(
    name for name in {**found, **wanted} if found.get(name) != wanted.get(name)
  )
  if wrong:
    told = [f'{n} (index: {wanted.get(n)}, found in: {found.get(n)})' for n in wrong]
    raise DamagedData(f'{index}: disagrees with the shards on {_some(told)}')


def _some(names: list[str], most: int = 8) -> str:
  rest = f' and {len(names) - most} more' if len(names) > most else ''
  return (', '.join(names[:most]) or 'nothing') + rest
