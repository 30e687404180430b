"""A model from a path: one of ours, or safetensors that are imported first."""

import pathlib
from typing import Any

from scmdm_jax.checkpoints import digests, store
from scmdm_jax.data.tokenizers import get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.modes import convert
from scmdm_jax.settings import Settings


def load(
  path: str,
  workdir: pathlib.Path,
  name: str,
  verify_below: int = digests.VERIFY_BELOW,
) -> tuple[ModelDescription, Any]:
  """The model at `path`; another format is imported into `workdir/imported/name` once.

  Raises:
    BadInput: no model there; see `store.load_model` and `convert.import_model`.
    DamagedData: its files are truncated or altered.
  """
  source = pathlib.Path(path).expanduser()
  if convert.is_foreign(source):
    imported = workdir / 'imported' / name
    if not imported.exists():
      convert.import_model(str(source), str(imported))
    source = imported
  return store.load_model(source, verify_below=verify_below)


def load_masked(settings: Settings, workdir: pathlib.Path):
  """The masked diffusion model named by `checkpoint`, checked against the data."""
  if not settings.checkpoint:
    raise BadInput(
      f'checkpoint: not given; --mode={settings.mode} wants the path of a model'
    )
  description, params = load(
    settings.checkpoint, workdir, 'checkpoint', settings.verify_below
  )
  where = f'checkpoint {settings.checkpoint}'
  if description.noise == 'uniform':
    raise BadInput(
      f'{where}: trained for uniform noise (UDLM), which the masked process and its '
      'samplers do not undo; wanted a masked diffusion model'
    )
  if description.mask_id is None:
    raise BadInput(f'{where}: a causal model; wanted a masked diffusion model')
  check_fits(description, settings, where)
  return description, params


def load_judge(settings: Settings, workdir: pathlib.Path):
  """The causal model named by `judge`, or None when there is none."""
  if not settings.judge:
    return None
  description, params = load(settings.judge, workdir, 'judge', settings.verify_below)
  where = f'judge {settings.judge}'
  if description.mask_id is not None:
    raise BadInput(f'{where}: a masked diffusion model; wanted a causal model')
  if not description.architecture.causal:
    raise BadInput(f'{where}: attends to later tokens; wanted a causal model')
  _check_tokenizer(description, settings, where)
  return description, params


def check_fits(description: ModelDescription, settings: Settings, where: str) -> None:
  """Refuses a model whose tokenizer or length the run's data do not fit."""
  _check_tokenizer(description, settings, where)
  wanted = get_tokenizer(settings.data.tokenizer).mask_id
  if description.mask_id not in (None, wanted):
    raise BadInput(
      f'{where}: its mask id is {description.mask_id}; wanted {wanted}, as in '
      f'tokenizer {settings.data.tokenizer}; its config.json says it in mask_token_id'
    )
  if settings.data.length > description.architecture.length:
    raise BadInput(
      f'data.length: found {settings.data.length}; wanted at most '
      f'{description.architecture.length}, the length of {where}'
    )


def _check_tokenizer(
  description: ModelDescription, settings: Settings, where: str
) -> None:
  if description.tokenizer and description.tokenizer != settings.data.tokenizer:
    raise BadInput(
      f'{where}: its tokenizer is {description.tokenizer!r}; wanted data.tokenizer = '
      f'{settings.data.tokenizer!r}'
    )
  vocab_size = get_tokenizer(settings.data.tokenizer).vocab_size
  if description.architecture.vocab_size != vocab_size:
    raise BadInput(
      f'{where}: its vocabulary has {description.architecture.vocab_size} tokens; '
      f'wanted {vocab_size}, as in tokenizer {settings.data.tokenizer}'
    )
