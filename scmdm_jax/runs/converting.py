"""Weights of other projects on the way in: safetensors and GGUF become a checkpoint.

Tensor by tensor, in the dtype of the source; a whole model is never held.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from scmdm_jax.buckets import paths
from scmdm_jax.checkpoints import (
  carried,
  disk,
  hub,
  layouts,
  model_card,
  model_config,
  safetensors_files,
  store,
)
from scmdm_jax.data import tokenizers
from scmdm_jax.data.tokenizers.protocol import undefined_ranges
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families import FAMILIES


def import_model(source: str, workdir: str, as_masked: bool = False) -> dict[str, Any]:
  """Turns safetensors, or a GGUF of a causal model, into a checkpoint at `workdir`.

  A masked base of a causal model begins as Dream (arXiv 2508.15487) and DiffuLLaMA
  (arXiv 2410.17891) did: with its weights, but attention both ways, the prediction of a
  token still read off the position before it, and a mask. Where no id is free for that,
  the vocabulary gets one more, with the mean embedding.

  Args:
    source: a directory with `config.json`, `*.safetensors` in one of
      `families.FAMILIES` and, perhaps, the files of its tokenizer; one such weight
      file; a `*.gguf`; or an address of the hub, see `hub.snapshot`.
    workdir: a new or empty directory; it appears complete or not at all.
    as_masked: make a base of a causal model, to be adapted as a masked one.

  Returns:
    Main figures: layout, tensors and bytes read, parameters, tokenizer, path.

  Raises:
    BadInput: not such a source (all tensors that do not fit are listed at once), a
      tokenizer that does not fit it, or `workdir` is not empty.
    DamagedData: a file of the source is truncated or altered, or a weight is NaN or
      infinite.
  """
  path = pathlib.Path(os.path.expanduser(workdir))
  disk.refuse_occupied(path)
  fetched = hub.snapshot(source) if hub.is_address(source) else None
  opened, description, files, entries = _checked(source, fetched, as_masked)
  origin: dict[str, Any] = {'imported_from': source, 'license': _license(opened.where)}
  if fetched is not None:
    origin['hub'] = hub.provenance(fetched)
  if as_masked:
    origin['imported_as'] = 'masked'
  origin['carried'] = carried.collect(opened.config, opened.beside, tuple(files))
  parameters, size = 0, 0
  with store.writing_model(path, description, origin) as writer:
    writer.add_tokenizer(files)
    for name, entry in entries.items():
      value = _with_row(entry.from_file(opened.read(name)), entry.path, description)
      if not np.isfinite(value).all():
        raise DamagedData(
          f'{source}: tensor {name!r} has NaN or infinity; wanted finite weights'
        )
      parameters, size = parameters + value.size, size + value.nbytes
      writer.add(entry.path, value)
  return {
    'layout': description.family,
    'tensors': len(opened.tensors),
    'parameters': parameters,
    'bytes': size,
    'tokenizer': description.tokenizer,
    'path': str(path),
  }


def is_foreign(source: str | pathlib.Path) -> bool:
  """Whether a source is weights of another format, to be imported."""
  if hub.is_address(str(source)):
    return True
  path = pathlib.Path(source)
  if not path.is_dir():
    return path.suffix in ('.safetensors', '.gguf')
  if (path / store.MODEL_JSON).exists():
    return False
  return any(path.glob('*.safetensors')) or any(path.glob('*.gguf'))


def check(source: str) -> dict[str, Any]:
  """Everything `import_model` checks before it reads weights; the same errors."""
  fetched = hub.snapshot(source) if hub.is_address(source) else None
  opened, description, _, entries = _checked(source, fetched)
  return {
    'layout': description.family,
    'tensors': len(opened.tensors),
    'parameters': int(sum(np.prod(entry.shape) for entry in entries.values())),
  }


def _checked(source: str, fetched: pathlib.Path | None = None, as_masked: bool = False):
  """Source, description, tokenizer files and the entry of every tensor to be read."""
  opened = _open(fetched or paths.local_path(source))
  file = opened.where
  config = file / safetensors_files.CONFIG if file.is_dir() else file
  description = model_config.description_from_config(opened.config, str(config))
  shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
  description = layouts.with_own_head(description, opened)
  entries = layouts.check(description, shapes, source)
  layouts.check_buffers(description, opened, source)
  files = opened.tokenizer_files()
  if as_masked:
    description = _masked_form(description, files, source)
  description = _with_tokenizer(description, files, str(opened.where))
  return opened, description, files, entries


def _masked_form(
  description: ModelDescription, files: Any, source: str
) -> ModelDescription:
  """The base that begins as this causal model; see `import_model`."""
  arch: Any = description.architecture
  if description.objective != 'causal' or not arch.causal:
    raise BadInput(
      f'{source}: a model with objective {description.objective!r}; --as=masked wants '
      'a causal one'
    )
  family = description.record.masked_form
  if not family:
    known = [name for name, record in FAMILIES.items() if record.masked_form]
    raise BadInput(
      f'{source}: a model of the {description.family} layout; --as=masked wants one of '
      f'{", ".join(known)}'
    )
  size = arch.vocab_size
  mask_id = tokenizers.mask_for(files, size, source) if files else size
  arch = dataclasses.replace(
    arch, vocab_size=max(size, mask_id + 1), causal=False, shifted=True
  )
  return dataclasses.replace(
    description, architecture=arch, family=family, mask_id=mask_id
  )


def _with_row(
  value: np.ndarray, path: tuple[str, ...], description: ModelDescription
) -> np.ndarray:
  """A table [V, D] or a head [D, V] with as many ids as the description has.

  Those that are missing get the mean of all others, in float32; all else is returned as
  it is.
  """
  record = description.record
  axis = {record.table: 0, record.head: 1}.get('/'.join(path[1:-1]))
  if axis is None or path[-1] == 'bias':
    return value
  missing = description.architecture.vocab_size - value.shape[axis]
  if missing <= 0:
    return value
  mean = value.mean(axis=axis, keepdims=True, dtype=np.float32).astype(value.dtype)
  return np.concatenate([value, *[mean] * missing], axis=axis)


def _open(source: pathlib.Path) -> Any:
  """The source, by what it holds; GGUF needs a library of its own."""
  is_gguf = source.suffix == '.gguf'
  if source.is_dir() and not any(source.glob('*.safetensors')):
    is_gguf = any(source.glob('*.gguf'))
  if not is_gguf:
    return safetensors_files.open_source(source)
  from scmdm_jax.checkpoints import gguf_files

  return gguf_files.open_source(source)


def _with_tokenizer(
  description: ModelDescription, files: Any, where: str
) -> ModelDescription:
  """The description with what its tokenizer says: name, fingerprint, undefined ids."""
  vocab_size = description.architecture.vocab_size
  if files:
    tokenizer = tokenizers.from_files(
      files, mask_id=description.mask_id, vocab_size=vocab_size, where=where
    )
  elif registry.is_built_in(description.tokenizer):
    tokenizer = registry.get_tokenizer(description.tokenizer)
  else:
    return description
  ranges = (*description.undefined_ids, *tokenizer.undefined_ids)
  undefined = {i for start, stop in ranges for i in range(start, stop)}
  defined = set(range(vocab_size)) - undefined
  return dataclasses.replace(
    description,
    tokenizer=tokenizer.name,
    fingerprint=tokenizer.fingerprint,
    undefined_ids=undefined_ranges(defined, vocab_size),
  )


def _license(directory: pathlib.Path) -> str:
  """The licence that the model card of a source names, if it has one."""
  path = directory / 'README.md'
  if not path.is_file():
    return 'unknown'
  with path.open('rb') as file:  # The front matter is at the top.
    text = file.read(1 << 16).decode('utf-8', errors='replace')
  return model_card.license_of(text) or 'unknown'
