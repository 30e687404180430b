"""A model from a path, opened once, with its tokenizer; other formats are imported."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from scmdm_jax.buckets import paths
from scmdm_jax.checkpoints import apart, digests, disk, hub, store
from scmdm_jax.data import tokenizers
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.data.tokenizers.protocol import undefined_ranges
from scmdm_jax.diffusion.network import number_of_blocks
from scmdm_jax.domains import registry
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel import rules
from scmdm_jax.processes import multihost
from scmdm_jax.runs import converting
from scmdm_jax.settings import resolve
from scmdm_jax.settings.building import grid_of_rows, reported
from scmdm_jax.settings.options import Settings


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that a run has opened once and hands on.

  Attributes:
    description: what it is.
    params: as `denoiser.abstract_params(description)`; arrays, perhaps over a mesh.
    tokenizer: what it reads with.
    origin: what its checkpoint says about where it came from; {} of a new model.
  """

  description: ModelDescription
  params: Any
  tokenizer: Tokenizer
  origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Opened(NamedTuple):
  """What a run starts from, before any parameter is read.

  tokenizer: of the run.
  stored: the checkpoint named by `checkpoint`; None: a new model is made.
  """

  tokenizer: Tokenizer
  stored: store.StoredModel | None


def mesh_of(settings: Settings, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh of a run, over `devices`; None: all devices of all its processes."""
  sizes = settings.mesh
  mesh = meshes.make_mesh(sizes.data, sizes.fsdp, sizes.tensor, sizes.sequence, devices)
  meshes.check_length(settings.data.length, mesh)
  return mesh


def place(params: Any, mesh: Mesh, dtype: str) -> Any:
  """`params` in `dtype`, split over the mesh; what is so already stays where it is."""
  cast = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
  return multihost.shard(cast, rules.shardings(mesh, cast))


def open_path(
  path: str, workdir: pathlib.Path, name: str, verify_below: int = digests.VERIFY_BELOW
) -> store.StoredModel:
  """The checkpoint at `path`; another format is imported to `workdir/imported/name`.

  Raises:
    BadInput: no model there; see `store.open_model` and `converting.import_model`.
    DamagedData: its files are truncated or altered.
  """
  return store.open_model(_imported(path, workdir, name), verify_below)


def load(
  stored: store.StoredModel,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
  frozen: str = '',
) -> Any:
  """The parameters of a checkpoint in `dtype`, its backbone in `frozen` if given.

  With a mesh, no process reads more of them than its devices hold, and no device ever
  holds more than its part; without, all go to one device of each process.

  Raises:
    BadInput: a size that the mesh does not divide.
    DamagedData: they cannot be read, or one is not finite.
  """
  place = None if mesh is None else functools.partial(rules.placed, mesh)
  params = store.load_params(stored, dtype=dtype, place=place, frozen=frozen)
  for keys, parameter in jax.tree_util.tree_leaves_with_path(params):
    # One at a time: host devices that meet in many programs at once wait for ever.
    if not bool(_finite(parameter)):
      raise DamagedData(
        f'{stored.directory}: parameter {"/".join(key.key for key in keys)} has NaN or '
        'infinity; use another checkpoint'
      )
  return params


@jax.jit
def _finite(parameter: jax.Array) -> jax.Array:
  """Whether all of it is, each device looking at its part; NaN would be drawn from."""
  return jnp.isfinite(parameter).all()


def _imported(path: str, workdir: pathlib.Path, name: str) -> pathlib.Path:
  place = None if hub.is_address(path) else paths.local_path(path)
  if place is not None and not converting.is_foreign(place):
    return place
  source = path if place is None else paths.named(str(place))
  imported = workdir / 'imported' / name

  def clear() -> None:
    if imported.exists():
      extra = disk.read_json(imported / store.MODEL_JSON).get('extra', {})
      # A run that was refused had named another.
      if extra.get('imported_from') != source:
        shutil.rmtree(imported)

  apart.on_each_disk(f'importing {path}', clear)
  if not imported.exists():
    converting.import_model(source, str(imported))
  return imported


def open_run(settings: Settings, workdir: pathlib.Path) -> Opened:
  """Opens the checkpoint of a run, if it has one, and finds the run's tokenizer.

  Raises:
    BadInput: no model there, no tokenizer, or not one for the checkpoint.
    DamagedData: files are truncated, altered or malformed.
  """
  stored = None
  if settings.checkpoint:
    stored = open_path(
      settings.checkpoint, workdir, 'checkpoint', settings.verify_below
    )
  return Opened(_tokenizer(settings, stored), stored)


def _tokenizer(settings: Settings, stored: store.StoredModel | None) -> Tokenizer:
  """The tokenizer of a run: built in, read from files, or the checkpoint's own."""
  choice = settings.data.tokenizer
  if registry.is_built_in(choice):
    return registry.get_tokenizer(choice)
  if made := registry.of(settings.data).made_tokenizer(settings.data):
    choice = str(made)
  own = choice == CHECKPOINT_TOKENIZER
  if own and stored is None:
    raise BadInput(
      f'data.tokenizer: found {choice!r} without a checkpoint; wanted one of '
      f'{", ".join(registry.tokenizer_names())}, or the path of a tokenizer'
    )
  files = {} if own else tokenizers.files_at(paths.local_path(choice))
  if stored is None:
    causal = settings.method.objective == 'causal'
    return tokenizers.from_files_for_new_model(files, causal=causal, where=choice)
  if own:
    tokenizer = own_tokenizer(stored)
    if tokenizer is None:
      raise BadInput(
        f'data.tokenizer: {settings.checkpoint} brings no tokenizer along; wanted one '
        f'of {", ".join(registry.tokenizer_names())}, or the path of a tokenizer'
      )
    return tokenizer
  return tokenizers.from_files(
    files,
    mask_id=stored.description.mask_id,
    vocab_size=stored.description.architecture.vocab_size,
    where=choice,
    framed=stored.description.framing == 'start_end',
  )


def completed(settings: Settings, workdir: pathlib.Path) -> Settings:
  """The settings with a `data.length`: the checkpoint's, or that of the data.

  Raises:
    BadInput: other options do not fit it, or as the data and the checkpoint do.
  """
  if settings.data.length:
    return settings
  if settings.checkpoint:
    path = _imported(settings.checkpoint, workdir, 'checkpoint')
    model = store.open_model(path, verify_below=0)
    length = model.description.architecture.length
  else:
    longest = registry.of(settings.data).length
    assert longest is not None  # Settings are checked.
    length = longest(settings.data)
  data = dataclasses.replace(settings.data, length=length)
  return resolve.resolve(dataclasses.asdict(dataclasses.replace(settings, data=data)))


def own_tokenizer(model: store.StoredModel) -> Tokenizer | None:
  """What a checkpoint brings along, or the built-in tokenizer that it names."""
  description = model.description
  if model.tokenizer_files:
    return tokenizers.from_files(
      model.tokenizer_files,
      mask_id=description.mask_id,
      vocab_size=description.architecture.vocab_size,
      where=str(model.directory / store.TOKENIZER),
      framed=description.framing == 'start_end',
    )
  if registry.is_built_in(description.tokenizer):
    return registry.get_tokenizer(description.tokenizer)
  return None


def check_blocks(description: ModelDescription, settings: Settings) -> None:
  """Refuses rows that are no whole blocks of a model.

  Raises:
    BadInput: as `data.length`.
  """
  block, length = description.block_length, settings.data.length
  reported('data', lambda: number_of_blocks(block, length))


def load_masked(
  settings: Settings,
  opened: Opened,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
  frozen: str = '',
) -> Model:
  """The masked diffusion model named by `checkpoint`, checked against the data.

  See `load` for where its parameters are, and in which dtypes.
  """
  if opened.stored is None:
    raise BadInput(
      f'checkpoint: not given; --mode={settings.mode} wants the path of a model'
    )
  description, where = opened.stored.description, f'checkpoint {settings.checkpoint}'
  if description.noise == 'uniform':
    raise BadInput(
      f'{where}: trained for uniform noise (UDLM), which the masked process and its '
      'samplers do not undo; wanted a masked diffusion model'
    )
  if description.mask_id is None:
    kind = 'classifier' if description.objective == 'classify' else 'causal model'
    raise BadInput(f'{where}: a {kind}; wanted a masked diffusion model')
  description = fitted(description, opened.tokenizer, settings, where)
  params = load(opened.stored, mesh, dtype, frozen)
  return Model(description, params, opened.tokenizer, opened.stored.extra)


_JUDGES = {
  'causal': 'wanted a causal model',
  'classify': 'not a classifier; wanted one, as method.objective = classify makes',
}


def load_judge(
  settings: Settings,
  workdir: pathlib.Path,
  tokenizer: Tokenizer,
  objective: Literal['causal', 'classify'] = 'causal',
) -> Model | None:
  """The model named by `judge`, of that objective; None when there is none.

  It reads with its own tokenizer; one that brings none reads with the run's.

  Raises:
    BadInput: of another objective, one that attends to later tokens, or not one for
      its tokenizer.
  """
  if not settings.judge:
    return None
  stored = open_path(settings.judge, workdir, 'judge', settings.verify_below)
  description, where = stored.description, f'judge {settings.judge}'
  if description.objective != objective:
    kinds = {'masked': 'a masked diffusion model', 'classify': 'a classifier'}
    kind = kinds.get(description.objective, 'a causal model')
    raise BadInput(f'{where}: {kind}; {_JUDGES[objective]}')
  if objective == 'causal' and not description.architecture.causal:
    raise BadInput(f'{where}: attends to later tokens; wanted a causal model')
  own = own_tokenizer(stored) or tokenizer
  _check_tokenizer(description, own, where)
  return Model(padded(description, own), load(stored), own, stored.extra)


def fitted(
  description: ModelDescription, tokenizer: Tokenizer, settings: Settings, where: str
) -> ModelDescription:
  """The description with the ids that the tokenizer leaves undefined.

  Raises:
    BadInput: the run's tokenizer or length do not fit the model.
  """
  _check_tokenizer(description, tokenizer, where)
  if description.mask_id not in (None, tokenizer.mask_id):
    raise BadInput(
      f'{where}: its mask id is {description.mask_id}; wanted {tokenizer.mask_id}, as '
      f'in tokenizer {tokenizer.name}; its config.json says it in mask_token_id'
    )
  if settings.data.length > description.architecture.length:
    raise BadInput(
      f'data.length: found {settings.data.length}; wanted at most '
      f'{description.architecture.length}, the length of {where}'
    )
  grid = getattr(description.architecture, 'grid', ())
  if grid and grid != grid_of_rows(settings.data):
    raise BadInput(
      f'{where}: its rows have {" x ".join(map(str, grid))} values; wanted '
      f'{" x ".join(map(str, grid_of_rows(settings.data))) or "none"}, as data.name = '
      f'{settings.data.name!r} has with these options of data'
    )
  return padded(description, tokenizer)


def _check_tokenizer(
  description: ModelDescription, tokenizer: Tokenizer, where: str
) -> None:
  """Refuses a tokenizer that is known to be another than the model's."""
  known = description.fingerprint
  if known and known != tokenizer.fingerprint:
    raise BadInput(
      f'{where}: trained with tokenizer {description.tokenizer!r}, fingerprint '
      f'{known[:12]}; found {tokenizer.name!r}, {tokenizer.fingerprint[:12]}; set '
      f"data.tokenizer to that one, or to '{CHECKPOINT_TOKENIZER}'"
    )
  if not known and description.tokenizer not in ('', tokenizer.name):
    raise BadInput(
      f'{where}: its tokenizer is {description.tokenizer!r}; wanted data.tokenizer = '
      f'{tokenizer.name!r}'
    )
  if description.architecture.vocab_size < tokenizer.vocab_size:
    raise BadInput(
      f'{where}: its vocabulary has {description.architecture.vocab_size} ids; wanted '
      f'at least {tokenizer.vocab_size}, as in tokenizer {tokenizer.name}'
    )


def padded(description: ModelDescription, tokenizer: Tokenizer) -> ModelDescription:
  """The description with every id undefined that the tokenizer has no token for."""
  size = description.architecture.vocab_size
  ranges = (*description.undefined_ids, *tokenizer.undefined_ids)
  undefined = {i for start, stop in ranges for i in range(start, stop)}
  defined = set(range(tokenizer.vocab_size)) - undefined
  return dataclasses.replace(description, undefined_ids=undefined_ranges(defined, size))
