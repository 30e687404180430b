"""`--mode=export`: a checkpoint as safetensors that other programs read.

Tensor by tensor, in the dtype of the source; a whole model is never held.
"""

import os
import pathlib
from typing import Any

import numpy as np

from scmdm_jax.buckets import paths, staging
from scmdm_jax.checkpoints import (
  carried,
  disk,
  layouts,
  model_card,
  model_config,
  safetensors_writer,
  store,
)
from scmdm_jax.errors import BadInput
from scmdm_jax.runs.results import renamed
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: str, source: str) -> dict[str, Any]:
  """Exports `source` to the new directory `workdir`; see `export_model`."""
  if not workdir:
    raise BadInput('--workdir: not given; --mode=export wants --source and --workdir')
  with staging.staged(workdir) as directory:
    return export_model(source, str(directory), settings.verify_below)


def export_model(
  source: str, workdir: str, verify_below: int = store.digests.VERIFY_BELOW
) -> dict[str, Any]:
  """Writes a model checkpoint as `config.json`, safetensors, tokenizer and model card.

  Args:
    source: a model checkpoint, or a training workdir holding one.
    workdir: a new or empty directory; it appears complete or not at all.
    verify_below: as `store.open_model`.

  Returns:
    Main figures: layout, tensors and bytes written, parameters, path.

  Raises:
    BadInput: `source` is no model checkpoint, or `workdir` is not empty.
    DamagedData: a file of the source is truncated or altered.
  """
  path = pathlib.Path(os.path.expanduser(workdir))
  disk.refuse_occupied(path)
  model = store.open_model(paths.local_path(source), verify_below)
  if path.resolve().is_relative_to(model.directory.resolve()):
    raise BadInput(
      f'--workdir {path}: inside the checkpoint {model.directory}, which has a digest '
      'of each of its files; give a directory elsewhere'
    )
  entries = layouts.manifest(model.description)
  buffers = layouts.buffers(model.description)
  tensors = {name: (value.shape, value.dtype) for name, value in buffers.items()}
  for name, entry in entries.items():
    tensors[name] = (entry.shape, np.dtype(_leaf(model.params, entry.path).dtype))

  def read(name: str) -> np.ndarray:
    if name in buffers:
      return buffers[name]
    return entries[name].to_file(model.read(entries[name].path))

  kept = model.extra.get('carried')
  card = model_card.card(model.description, model.extra, _measured(model.directory))
  size = safetensors_writer.write(
    path,
    model_config.config_from_description(
      model.description, _main_dtype(model), carried.fields(kept)
    ),
    tensors,
    read,
    extra_files={**carried.texts(kept), **model.tokenizer_files, 'README.md': card},
  )
  parameters = [entry.shape for entry in entries.values()]
  return {
    'layout': model.description.family,
    'tensors': len(tensors),
    'parameters': int(sum(np.prod(shape) for shape in parameters)),
    'bytes': size,
    'path': str(path),
  }


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
  for key in path:
    tree = tree[key]
  return tree


def _measured(directory: pathlib.Path) -> dict[str, Any]:
  """What was measured on a model: `evaluation.json` beside it, if it is there."""
  path = directory.parent / 'evaluation.json'
  in_workdir = directory.name == store.MODEL_SUBDIRECTORY
  return renamed(disk.read_json(path)) if in_workdir and path.is_file() else {}


def _main_dtype(model: store.StoredModel) -> str:
  """The dtype of most parameters, for `torch_dtype`."""
  sizes: dict[str, int] = {}
  for entry in layouts.manifest(model.description).values():
    dtype = str(_leaf(model.params, entry.path).dtype)
    sizes[dtype] = sizes.get(dtype, 0) + int(np.prod(entry.shape))
  return max(sizes, key=lambda name: sizes[name])
