"""Model checkpoints: what users pass around by path.

A directory with `model.json` (what it is), `params/` (an Orbax tree, in the dtypes it
came in), `tokenizer/` (the files of its tokenizer, if any) and `digests.json`. Nothing
here holds more than a few hundred megabytes of a model beside what a caller asks for.
All calls to Orbax are in this file, `model_writer` and `training_store`.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import path_aware_map
from orbax.checkpoint import v1 as ocp

from scmdm_jax import files
from scmdm_jax.checkpoints import (
  apart,
  bases,
  digests,
  disk,
  model_writer,
  tree_diff,
)
from scmdm_jax.checkpoints.model_writer import (
  PARAMS,
  TOKENIZER,
  ModelWriter,
  Path,
  give_back_memory,
  leaves,
  own,
)
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost

MODEL_JSON = 'model.json'
MODEL_SUBDIRECTORY = 'model'  # Of a training workdir.
FORMAT = 1

# Parameters as shapes and dtypes -> the same with a sharding on every leaf.
Place = Callable[[Any], Any]


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
    if multihost.index() > 0 and apart.is_apart():
      temporary = stack.enter_context(apart.scratch(path))
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
  apart.fetch(path)


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
  wanted = own(denoiser.abstract_params(description), description)
  params = own(params, description)
  problems = tree_diff.differences(_float32(params), wanted)
  if problems:
    raise ValueError(f'parameters do not fit their description: {problems}')
  with writing_model(path, description, extra) as writer:
    writer.add_tokenizer(tokenizer or {})
    for keys, leaf in leaves(params).items():
      value = leaf if multihost.count() == 1 else multihost.gathered(leaf)
      writer.add(keys, value)


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
    leaf: Any = self.params
    for key in path:
      leaf = leaf[key]
    wanted = _on_host(leaf)
    tree = path_aware_map(
      lambda p, _: wanted if p == path else ocp.PLACEHOLDER,
      own(self.params, self.description),
    )
    with disk.reading(self.directory / PARAMS):
      value = ocp.load(str(self.directory / PARAMS), tree)
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
  model = _open_alone(path, verify_below)
  if model.description.adapter is None:
    return model
  base = bases.opened(model, lambda where: open_model(where, verify_below))
  params = lora.joined({'backbone': base.params['backbone']}, model.params)
  return model._replace(params=params, base=base)


def _open_alone(path: str | pathlib.Path, verify_below: int) -> StoredModel:
  """What `open_model` opens, without the base of an adapter."""
  path = find_model(path)
  data = disk.read_json(path / MODEL_JSON)
  check_format(path / MODEL_JSON, data)
  digests.check(path, path / digests.MANIFEST, verify_below)
  try:
    description = ModelDescription.from_dict(data['description'])
    extra = dict(data['extra'])
  except (KeyError, TypeError, ValueError) as e:
    raise DamagedData(f'{path / MODEL_JSON}: not a model description ({e})') from e
  tree = path / PARAMS
  with disk.reading(tree):
    saved: Any = ocp.metadata(str(tree)).metadata
  wanted = own(denoiser.abstract_params(description), description)
  tree_diff.refuse_differences(tree, None if saved is None else _float32(saved), wanted)
  dtypes: Any = {p: leaf.dtype for p, leaf in leaves(saved).items()}
  params: Any = path_aware_map(
    lambda p, x: jax.ShapeDtypeStruct(x.shape, dtypes[p]), wanted
  )
  return StoredModel(path, description, extra, params)


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


def load_own(
  path: str | pathlib.Path,
  *,
  place: Place | None = None,
  verify_below: int = digests.VERIFY_BELOW,
) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads what a checkpoint has itself, in float32: of an adapter what was trained.

  The arguments are those of `load_model`; the base of an adapter is not looked for.

  Raises:
    As `open_model`.
  """
  model = _open_alone(path, verify_below)
  return model.description, load_params(model, place=place)


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
    alone = model._replace(params=own(model.params, model.description), base=None)
    params = load_params(alone, dtype=dtype, place=place)
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
  context.memory.read_concurrent_bytes = max(largest + 1, model_writer.GROUP_BYTES)
  with disk.reading(model.directory / PARAMS), context:
    params = ocp.load(str(model.directory / PARAMS), wanted)
  give_back_memory()
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


def _on_host(leaf: Any) -> jax.ShapeDtypeStruct:
  host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host)


def _float32(tree: Any) -> Any:
  """The shapes of `tree`, its floating dtypes as float32: any of them will do."""

  def widened(leaf: Any) -> jax.ShapeDtypeStruct:
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32 if floating else leaf.dtype)

  return jax.tree.map(widened, tree)
