"""A model from a path, with its tokenizer; other formats are imported first."""

import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from scmdm_jax.checkpoints import digests, store
from scmdm_jax.data import tokenizers
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.data.tokenizers.protocol import undefined_ranges
from scmdm_jax.domains import prepared
from scmdm_jax.domains import tokenizers as built_in
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel import rules
from scmdm_jax.processes import multihost
from scmdm_jax.runs import converting
from scmdm_jax.settings.building import grid_of_rows
from scmdm_jax.settings.options import CHECKPOINT_TOKENIZER, TRAINED_TOKENIZER, Settings


class Judge(NamedTuple):
  """A causal model and the tokenizer it reads with."""

  description: ModelDescription
  params: Any
  tokenizer: Tokenizer


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


def load(
  path: str,
  workdir: pathlib.Path,
  name: str,
  verify_below: int = digests.VERIFY_BELOW,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
) -> tuple[ModelDescription, Any]:
  """The model at `path`; another format is imported into `workdir/imported/name` once.

  With a mesh, no process reads more of it than its devices hold, and no device ever
  holds more than its part; without, all of it goes to one device of each process.

  Raises:
    BadInput: no model there, or a size that the mesh does not divide; see
      `store.load_model` and `converting.import_model`.
    DamagedData: its files are truncated or altered, or a parameter is not finite.
  """
  found = _imported(path, workdir, name)
  place = None if mesh is None else functools.partial(rules.placed, mesh)
  description, params = store.load_model(
    found, dtype=dtype, place=place, verify_below=verify_below
  )
  for keys, parameter in jax.tree_util.tree_leaves_with_path(params):
    # One at a time: host devices that meet in many programs at once wait for ever.
    if not bool(_finite(parameter)):
      raise DamagedData(
        f'{found}: parameter {"/".join(key.key for key in keys)} has NaN or infinity; '
        'use another checkpoint'
      )
  return description, params


@jax.jit
def _finite(parameter: jax.Array) -> jax.Array:
  """Whether all of it is, each device looking at its part; NaN would be drawn from."""
  return jnp.isfinite(parameter).all()


def _imported(path: str, workdir: pathlib.Path, name: str) -> pathlib.Path:
  source = pathlib.Path(os.path.expanduser(path))
  if not converting.is_foreign(source):
    return source
  imported = workdir / 'imported' / name

  def clear() -> None:
    if imported.exists():
      origin = store.open_model(imported, verify_below=0).extra.get('imported_from')
      if origin != str(source):  # A run that was refused had named another.
        shutil.rmtree(imported)

  multihost.first_does(f'importing {path}', clear)
  if not imported.exists():
    converting.import_model(str(source), str(imported))
  return imported


def base_origin(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """What the checkpoint of a run says about where it came from; {} without one."""
  if not settings.checkpoint:
    return {}
  path = _imported(settings.checkpoint, workdir, 'checkpoint')
  return store.open_model(path, verify_below=0).extra


def run_tokenizer(settings: Settings, workdir: pathlib.Path) -> Tokenizer:
  """The tokenizer of a run: built in, read from files, or the checkpoint's own.

  Raises:
    BadInput: there is none, or it is not one for the checkpoint.
    DamagedData: its files are malformed.
  """
  choice = settings.data.tokenizer
  if built_in.is_built_in(choice):
    return built_in.get_tokenizer(choice)
  if choice.startswith(TRAINED_TOKENIZER):
    size = int(choice.removeprefix(TRAINED_TOKENIZER))
    choice = str(prepared.trained_tokenizer(settings.data, size))
  own = choice == CHECKPOINT_TOKENIZER
  if own and not settings.checkpoint:
    raise BadInput(
      f'data.tokenizer: found {choice!r} without a checkpoint; wanted one of '
      f'{", ".join(built_in.NAMES)}, or the path of a tokenizer'
    )
  files = {} if own else tokenizers.files_at(pathlib.Path(os.path.expanduser(choice)))
  if not settings.checkpoint:
    causal = settings.method.objective == 'causal'
    return tokenizers.from_files_for_new_model(files, causal=causal, where=choice)
  # Loading the model compares its digests; this looks only at what it is.
  model = store.open_model(
    _imported(settings.checkpoint, workdir, 'checkpoint'), verify_below=0
  )
  if own:
    tokenizer = _own_tokenizer(model)
    if tokenizer is None:
      raise BadInput(
        f'data.tokenizer: {settings.checkpoint} brings no tokenizer along; wanted one '
        f'of {", ".join(built_in.NAMES)}, or the path of a tokenizer'
      )
    return tokenizer
  return tokenizers.from_files(
    files,
    mask_id=model.description.mask_id,
    vocab_size=model.description.architecture.vocab_size,
    where=choice,
    framed=model.description.framing == 'start_end',
  )


def _own_tokenizer(model: store.StoredModel) -> Tokenizer | None:
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
  if built_in.is_built_in(description.tokenizer):
    return built_in.get_tokenizer(description.tokenizer)
  return None


def load_masked(
  settings: Settings,
  workdir: pathlib.Path,
  tokenizer: Tokenizer,
  mesh: Mesh | None = None,
  dtype: str = 'float32',
) -> tuple[ModelDescription, Any]:
  """The masked diffusion model named by `checkpoint`, checked against the data.

  See `load` for where its parameters are.
  """
  if not settings.checkpoint:
    raise BadInput(
      f'checkpoint: not given; --mode={settings.mode} wants the path of a model'
    )
  description, params = load(
    settings.checkpoint, workdir, 'checkpoint', settings.verify_below, mesh, dtype
  )
  where = f'checkpoint {settings.checkpoint}'
  if description.noise == 'uniform':
    raise BadInput(
      f'{where}: trained for uniform noise (UDLM), which the masked process and its '
      'samplers do not undo; wanted a masked diffusion model'
    )
  if description.mask_id is None:
    kind = 'classifier' if description.objective == 'classify' else 'causal model'
    raise BadInput(f'{where}: a {kind}; wanted a masked diffusion model')
  return fitted(description, tokenizer, settings, where), params


def load_judge(
  settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer
) -> Judge | None:
  """The causal model named by `judge`, or None when there is none.

  It reads with its own tokenizer; one that brings none reads with the run's.
  """
  if not settings.judge:
    return None
  description, params = load(settings.judge, workdir, 'judge', settings.verify_below)
  where = f'judge {settings.judge}'
  if description.mask_id is not None:
    raise BadInput(f'{where}: a masked diffusion model; wanted a causal model')
  if description.objective == 'classify':
    raise BadInput(f'{where}: a classifier; wanted a causal model')
  if not description.architecture.causal:
    raise BadInput(f'{where}: attends to later tokens; wanted a causal model')
  model = store.open_model(_imported(settings.judge, workdir, 'judge'), verify_below=0)
  own = _own_tokenizer(model) or tokenizer
  _check_tokenizer(description, own, where)
  return Judge(_padded(description, own), params, own)


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
      f'{where}: its images have {" x ".join(map(str, grid))} values; wanted '
      f'{" x ".join(map(str, grid_of_rows(settings.data))) or "none"}, as data.name = '
      f'{settings.data.name!r} with side {settings.data.side} has'
    )
  return _padded(description, tokenizer)


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


def _padded(description: ModelDescription, tokenizer: Tokenizer) -> ModelDescription:
  """The description with every id undefined that the tokenizer has no token for."""
  size = description.architecture.vocab_size
  ranges = (*description.undefined_ids, *tokenizer.undefined_ids)
  undefined = {i for start, stop in ranges for i in range(start, stop)}
  defined = set(range(tokenizer.vocab_size)) - undefined
  return dataclasses.replace(description, undefined_ids=undefined_ranges(defined, size))
