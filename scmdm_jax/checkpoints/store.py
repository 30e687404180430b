"""Model checkpoints: what users pass around by path.

A directory with `model.json` (what it is), `params/` (an Orbax tree, in the dtypes it
came in), `tokenizer/` (the files of its tokenizer, if any) and `digests.json`. Nothing
here holds more than a few hundred megabytes of a model beside what a caller asks for.
All calls to Orbax are in this file and in `training_store`.
"""

import concurrent.futures
import contextlib
import ctypes
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from scmdm_jax import files
from scmdm_jax.checkpoints import bases, digests, disk, tree_diff
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost

MODEL_JSON = 'model.json'
MODEL_SUBDIRECTORY = 'model'  # Of a training workdir.
TOKENIZER = 'tokenizer'
FORMAT = 1

_PARAMS = 'params'
# Parameters collected before they are written together, and read at a time.
_GROUP_BYTES = 128 << 20
# Of one stored piece of an array: a process that needs a slice reads little else.
_CHUNK_BYTES = 1 << 20

Path = tuple[str, ...]  # Keys of a parameter in the nested dictionary.
# Parameters as shapes and dtypes -> the same with a sharding on every leaf.
Place = Callable[[Any], Any]


class _Given(np.ndarray):
  """An array that nobody else will change: Orbax need not copy it before it writes."""

  def __deepcopy__(self, memo: Any) -> '_Given':
    return self


class ModelWriter:
  """Takes the parameters of one model in any order and writes them group by group.

  A group is written in the background while the next one is collected.
  """

  def __init__(self, directory: pathlib.Path, description: ModelDescription):
    self._directory = directory
    abstract = _own(denoiser.abstract_params(description), description)
    self._wanted = _shapes(abstract)
    self._missing = dict(self._wanted)
    # Orbax keeps the place of an empty subtree, too; the first group brings them.
    self._empty = {name: {} for name, subtree in abstract.items() if not subtree}
    self._group: dict[Path, Any] = {}
    self._bytes = 0
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._written: concurrent.futures.Future[None] | None = None

  def add(self, path: Path, value: Any) -> None:
    """Takes one parameter: a NumPy or JAX array of a floating dtype.

    The caller must not change it afterwards.

    Raises:
      ValueError: the model has no such parameter, or it has another shape.
      DamagedData: the disk is full or failing.
    """
    if self._missing.pop(path, None) != tuple(value.shape):
      raise ValueError(
        f'parameters do not fit their description: {"/".join(path)} '
        f'{list(value.shape)}; wanted {self._wanted.get(path)}, once'
      )
    self._group[path] = value.view(_Given) if type(value) is np.ndarray else value
    self._bytes += value.nbytes
    if self._bytes >= _GROUP_BYTES:
      self._write()

  def add_tokenizer(self, files: Mapping[str, bytes | pathlib.Path]) -> None:
    """Copies the files of the tokenizer, by their names."""
    folder = self._directory / TOKENIZER
    if multihost.index() > 0:
      return
    if files:
      folder.mkdir()
    for name, source in files.items():
      if isinstance(source, bytes):
        (folder / name).write_bytes(source)
      else:
        shutil.copyfile(source, folder / name)

  def finish(self) -> None:
    """Writes what is left.

    Raises:
      ValueError: a parameter was never given.
      DamagedData: the disk is full or failing.
    """
    if self._missing:
      names = ', '.join('/'.join(path) for path in self._missing)
      raise ValueError(f'parameters do not fit their description: missing {names}')
    if self._group:
      self._write()
    self.wait()
    path = self._directory / _PARAMS
    with disk.saving(path):
      ocp.partial.finalize(str(path))

  def wait(self) -> None:
    """Returns when nothing is being written; raises what went wrong."""
    written, self._written = self._written, None
    if written is not None:
      written.result()

  def _write(self) -> None:
    self.wait()
    group = self._empty | _nested(self._group)
    self._written = self._worker.submit(self._save, group)
    self._group, self._bytes, self._empty = {}, 0, {}
    if multihost.count() > 1:
      self.wait()  # Processes would meet in another order in the background.

  def _save(self, group: dict[str, Any]) -> None:
    path = self._directory / _PARAMS
    context = ocp.Context()
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array.saving.use_compression = False  # Weights are noise to a compressor.
    with disk.saving(path), context:
      ocp.partial.save(str(path), group)
    group.clear()
    _give_back_memory()

  def close(self) -> None:
    """Ends the background thread, whatever happened."""
    self._worker.shutdown()


@contextlib.contextmanager
def writing_model(
  path: str | pathlib.Path, description: ModelDescription, extra: dict[str, Any]
) -> Iterator[ModelWriter]:
  """Yields a writer; the directory appears complete, by one rename, after the block.

  Orbax wants all processes of a run to save together: each gives all parameters, whole,
  in the same order, and the first writes.

  Args:
    path: the directory. An older model checkpoint there is replaced.
    description: what the model is.
    extra: plain JSON data about its origin, kept in `model.json`.

  Raises:
    BadInput: `path` holds something other than a model, or cannot be created.
    DamagedData: the disk is full or failing.
    ValueError: parameters that do not belong to `description`.
  """
  path = pathlib.Path(path).absolute()
  if not (path / MODEL_JSON).is_file():
    disk.refuse_occupied(path)
  with contextlib.ExitStack() as stack:
    temporary = ''
    if multihost.index() == 0:
      temporary = str(stack.enter_context(disk.new_directory(path)))
    temporary = pathlib.Path(multihost.from_first(temporary))
    with contextlib.closing(ModelWriter(temporary, description)) as writer:
      yield writer
      writer.finish()
    if multihost.index() == 0:
      files.write_json(
        temporary / MODEL_JSON,
        {'format': FORMAT, 'description': description.to_dict(), 'extra': extra},
        allow_nan=False,
      )
      digests.record(temporary, temporary / digests.MANIFEST)
  multihost.from_first('')  # It is there for all.


def save_model(
  path: str | pathlib.Path,
  description: ModelDescription,
  params: dict[str, Any],
  extra: dict[str, Any],
  tokenizer: Mapping[str, bytes | pathlib.Path] | None = None,
) -> None:
  """Writes a whole model; see `writing_model` for the arguments and errors.

  Args:
    path: the directory.
    description: what the model is.
    params: as `denoiser.abstract_params(description)`, of any floating dtypes. Of a
      model with an adapter only what is not its base's is written.
    extra: JSON data about its origin; of a model with an adapter, with the `frozen` of
      `bases.named`.
    tokenizer: the files of its tokenizer, by name.
  """
  wanted = _own(denoiser.abstract_params(description), description)
  params = _own(params, description)
  problems = tree_diff.differences(_float32(params), wanted)
  if problems:
    raise ValueError(f'parameters do not fit their description: {problems}')
  with writing_model(path, description, extra) as writer:
    writer.add_tokenizer(tokenizer or {})
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
      value = leaf if multihost.count() == 1 else multihost.gathered(leaf)
      writer.add(tuple(key.key for key in keys), value)


class StoredModel(NamedTuple):
  """An opened checkpoint: everything but the parameters, which are read as asked."""

  directory: pathlib.Path
  description: ModelDescription
  extra: dict[str, Any]
  params: dict[str, Any]  # Shapes and stored dtypes.
  base: 'StoredModel | None' = None  # Which has the backbone, if this has an adapter.

  @property
  def tokenizer_files(self) -> dict[str, pathlib.Path]:
    """The files of its tokenizer by name; empty if it has none."""
    folder = self.directory / TOKENIZER
    return {p.name: p for p in sorted(folder.iterdir())} if folder.is_dir() else {}

  def read(self, path: Path) -> np.ndarray:
    """One parameter, in the dtype it is stored in.

    Raises:
      DamagedData: it cannot be read.
    """
    if self.base is not None and path[0] == 'backbone' and path[-1] not in lora.FACTORS:
      return self.base.read(path)
    own = _own(self.params, self.description)
    leaf: Any = own
    for key in path:
      leaf = leaf[key]
    others = jax.tree.map(lambda _: ocp.PLACEHOLDER, own)
    tree = _replaced(others, path, _on_host(leaf))
    with disk.reading(self.directory / _PARAMS):
      value = ocp.load(str(self.directory / _PARAMS), tree)
    for key in path:
      value = value[key]
    return np.asarray(value)


def open_model(
  path: str | pathlib.Path, verify_below: int = digests.VERIFY_BELOW
) -> StoredModel:
  """Opens a model checkpoint and compares its files with their digests.

  Args:
    path: a directory written by `save_model`, or a training workdir holding one.
    verify_below: contents of larger checkpoints, in bytes, are not compared; 0 skips
      the comparison, names and sizes excepted.

  Raises:
    BadInput: there is no model at `path`, or its parameters have other shapes than
      its description says.
    DamagedData: files are missing, foreign, truncated or altered.
  """
  path = find_model(path)
  data = disk.read_json(path / MODEL_JSON)
  check_format(path / MODEL_JSON, data)
  digests.check(path, path / digests.MANIFEST, verify_below)
  try:
    description = ModelDescription.from_dict(data['description'])
    extra = dict(data['extra'])
  except (KeyError, TypeError, ValueError) as e:
    raise DamagedData(f'{path / MODEL_JSON}: not a model description ({e})') from e
  tree = path / _PARAMS
  with disk.reading(tree):
    saved: Any = ocp.metadata(str(tree)).metadata
  wanted = _own(denoiser.abstract_params(description), description)
  tree_diff.refuse_differences(tree, None if saved is None else _float32(saved), wanted)
  dtypes = {p: leaf.dtype for p, leaf in _leaves(saved).items()}
  params = _map_with_path(lambda p, x: jax.ShapeDtypeStruct(x.shape, dtypes[p]), wanted)
  model = StoredModel(path, description, extra, params)
  if description.adapter is None:
    return model
  base = bases.opened(model, lambda where: open_model(where, verify_below))
  params = lora.joined({'backbone': base.params['backbone']}, params)
  return model._replace(params=params, base=base)


def load_model(
  path: str | pathlib.Path,
  *,
  dtype: Any = jnp.float32,
  place: Place | None = None,
  verify_below: int = digests.VERIFY_BELOW,
) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a whole model checkpoint; nothing is compiled.

  Args:
    path: as `open_model`.
    dtype: of the arrays; None keeps the stored ones.
    place: gives every leaf of the tree of shapes its sharding; a process then reads
      only the stored pieces its devices hold. None: the default device.
    verify_below: as `open_model`.

  Returns:
    The description and the parameters.

  Raises:
    As `open_model`.
  """
  model = open_model(path, verify_below)
  return model.description, load_params(model, dtype=dtype, place=place)


def load_params(
  model: StoredModel,
  *,
  dtype: Any = jnp.float32,
  place: Place | None = None,
  frozen: str = '',
) -> dict[str, Any]:
  """All parameters of an opened checkpoint; the arguments are those of `load_model`.

  `frozen` is the dtype of the backbone without its adapter; '': as the others.

  Raises:
    DamagedData: they cannot be read.
  """
  if model.base is not None:
    own = model._replace(params=_own(model.params, model.description), base=None)
    params = load_params(own, dtype=dtype, place=place)
    base = load_params(model.base, dtype=frozen or dtype, place=place)
    return lora.joined({'backbone': base['backbone']}, params)
  wanted = model.params
  if dtype is not None:
    wanted = {
      group: jax.tree.map(lambda x, to=to: jax.ShapeDtypeStruct(x.shape, to), tree)
      for group, tree in wanted.items()
      for to in [frozen if frozen and group == 'backbone' else dtype]
    }
  wanted = placed(wanted if place is None else place(wanted))
  context = ocp.Context()
  # Orbax has all arrays on their way at once otherwise, and a second copy of them. It
  # refuses an array of just as many bytes as it may hold.
  largest = max(4 * leaf.size for leaf in jax.tree.leaves(wanted))
  context.memory.read_concurrent_bytes = max(largest + 1, _GROUP_BYTES)
  with disk.reading(model.directory / _PARAMS), context:
    params = ocp.load(str(model.directory / _PARAMS), wanted)
  _give_back_memory()
  return params


def find_model(path: str | pathlib.Path) -> pathlib.Path:
  """The checkpoint at `path`, or in the training workdir `path`.

  Raises:
    BadInput: there is none; the message says what is there instead.
  """
  path = pathlib.Path(path).absolute()
  for candidate in (path, path / MODEL_SUBDIRECTORY):
    if (candidate / MODEL_JSON).is_file():
      return candidate
  if not path.exists():
    raise BadInput(f'{path}: no such directory; give a model checkpoint')
  files = [path] if path.is_file() else sorted(path.iterdir())
  if any(file.suffix in ('.safetensors', '.gguf') for file in files):
    raise BadInput(
      f'{path}: weights of another format, not a model checkpoint; import it first: '
      f'python -m scmdm_jax.main --mode=import --source={path} --workdir=NEW_DIRECTORY'
    )
  raise BadInput(
    f'{path}: neither {MODEL_JSON} nor {MODEL_SUBDIRECTORY}/{MODEL_JSON}; give a model '
    'checkpoint, or the workdir of a finished training'
  )


def placed(abstract: Any) -> Any:
  """`abstract` with a device for every leaf: Orbax guesses (and warns) otherwise."""
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def place(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, 'sharding', None) or default
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(place, abstract)


def check_format(path: pathlib.Path, record: dict[str, Any]) -> None:
  """Raises BadInput for a record of another version."""
  found = record.get('format')
  if found != FORMAT:
    raise BadInput(f'{path}: format is {found!r}; this version reads {FORMAT}')


def _give_back_memory() -> None:
  """Returns to the system what was freed: glibc keeps TensorStore's small pieces."""
  with contextlib.suppress(AttributeError):  # Another C library.
    ctypes.CDLL(None).malloc_trim(0)


def _own(params: Any, description: ModelDescription) -> Any:
  """What a checkpoint of such a model holds: all but the base of an adapter."""
  return params if description.adapter is None else lora.divided(params)[1]


def _on_host(leaf: Any) -> jax.ShapeDtypeStruct:
  host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host)


def _leaves(tree: Any) -> dict[Path, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {tuple(key.key for key in keys): leaf for keys, leaf in leaves}


def _shapes(tree: Any) -> dict[Path, tuple[int, ...]]:
  return {path: tuple(leaf.shape) for path, leaf in _leaves(tree).items()}


def _map_with_path(function: Callable[[Path, Any], Any], tree: Any) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda keys, leaf: function(tuple(key.key for key in keys), leaf), tree
  )


def _replaced(tree: Any, path: Path, value: Any) -> Any:
  return _map_with_path(lambda p, leaf: value if p == path else leaf, tree)


def _float32(tree: Any) -> Any:
  """The shapes of `tree`, its floating dtypes as float32: any of them will do."""

  def widened(leaf: Any) -> jax.ShapeDtypeStruct:
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32 if floating else leaf.dtype)

  return jax.tree.map(widened, tree)


def _nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
  tree: dict[str, Any] = {}
  for path, value in leaves.items():
    node = tree
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = value
  return tree
