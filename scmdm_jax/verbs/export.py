"""`--mode=export`: a checkpoint as safetensors that other programs read.

Tensor by tensor, in the dtype of the source; a whole model is never held.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
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
from scmdm_jax.models import lora
from scmdm_jax.runs.results import renamed
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: str, source: str, as_: str = '') -> dict[str, Any]:
  """Exports `source` to the new directory `workdir`; see `export_model`."""
  if not workdir:
    raise BadInput('--workdir: not given; --mode=export wants --source and --workdir')
  if as_ not in ('', 'peft'):
    raise BadInput(f"--as: found {as_!r}; wanted 'peft', or no such flag")
  below = settings.verify_below
  with staging.staged(workdir) as directory:
    return export_model(source, str(directory), below, as_peft=as_ == 'peft')


def export_model(
  source: str,
  workdir: str,
  verify_below: int = store.digests.VERIFY_BELOW,
  as_peft: bool = False,
) -> dict[str, Any]:
  """Writes a model checkpoint as `config.json`, safetensors, tokenizer and model card.

  Args:
    source: a model checkpoint, or a training workdir holding one.
    workdir: a new or empty directory; it appears complete or not at all.
    verify_below: as `store.open_model`.
    as_peft: whether the adapter alone is written, as that library has it.

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
  card = model_card.card(model.description, model.extra, _measured(model.directory))
  beside = {**model.tokenizer_files, 'README.md': card}
  if as_peft:
    return _export_peft(model, path, beside)
  return _export_whole(model, path, beside)


def _export_whole(
  model: store.StoredModel, path: pathlib.Path, beside: dict[str, str | pathlib.Path]
) -> dict[str, Any]:
  """Writes all weights, with those of an adapter merged into its base's."""
  description = dataclasses.replace(model.description, adapter=None)
  entries = layouts.entries_of(description)
  buffers = layouts.buffers(description)
  tensors = {name: (value.shape, value.dtype) for name, value in buffers.items()}
  for name, entry in entries.items():
    tensors[name] = (entry.shape, np.dtype(_leaf(model.params, entry.path).dtype))

  def read(name: str) -> np.ndarray:
    if name in buffers:
      return buffers[name]
    return entries[name].to_file(_merged(model, entries[name].path))

  kept = model.extra.get('carried')
  size = safetensors_writer.write(
    path,
    model_config.config_from_description(
      description, _main_dtype(model, entries), carried.fields(kept)
    ),
    tensors,
    read,
    extra_files={**carried.texts(kept), **beside},
  )
  return _figures(model, path, {name: tensors[name][0] for name in entries}, size) | {
    'tensors': len(tensors)
  }


def _merged(model: store.StoredModel, path: tuple[str, ...]) -> np.ndarray:
  """A parameter, W + (alpha / r) A B in the dtype of W where there are factors."""
  value, adapter = model.read(path), model.description.adapter
  names = _leaf(model.params, path[:-1])
  if adapter is None or path[-1] != 'kernel' or 'lora_a' not in names:
    return value
  a, b = (model.read((*path[:-1], name)) for name in lora.FACTORS)
  return lora.merged(value, a, b, adapter)


def _export_peft(
  model: store.StoredModel, path: pathlib.Path, beside: dict[str, str | pathlib.Path]
) -> dict[str, Any]:
  """Writes the adapter as the `peft` library has it, float32.

  The self-conditioning parameters, which it knows nothing of, are a file beside it.
  """
  adapter = model.description.adapter
  if adapter is None or not adapter.targets:
    raise BadInput(
      f'--as: found peft, but {model.directory} has no low-rank factors; wanted none, '
      'or a model trained with train.lora_rank above 0 and layers in train.lora_targets'
    )
  layers, config = layouts.peft(model.description, str(model.extra.get('base', '')))

  def read(name: str) -> np.ndarray:
    return np.ascontiguousarray(model.read(layers[name]).T)

  shapes = {
    name: (*reversed(_leaf(model.params, where).shape),)
    for name, where in layers.items()
  }
  own = {
    name: entry
    for name, entry in layouts.entries_of(
      dataclasses.replace(model.description, adapter=None)
    ).items()
    if entry.path[0] == layouts.SELF_CONDITIONING
  }
  single = np.dtype(np.float32)
  size = safetensors_writer.write_adapter(
    path,
    config,
    {name: (shape, single) for name, shape in shapes.items()},
    read,
    {name: entry.to_file(model.read(entry.path)) for name, entry in own.items()},
    beside,
  )
  shapes |= {name: entry.shape for name, entry in own.items()}
  return _figures(model, path, shapes, size)


def _figures(
  model: store.StoredModel,
  path: pathlib.Path,
  shapes: dict[str, tuple[int, ...]],
  size: int,
) -> dict[str, Any]:
  return {
    'layout': model.description.family,
    'tensors': len(shapes),
    'parameters': int(sum(np.prod(shape) for shape in shapes.values())),
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


def _main_dtype(model: store.StoredModel, entries: Mapping[str, layouts.Entry]) -> str:
  """The dtype of most parameters, for `torch_dtype`."""
  sizes: dict[str, int] = {}
  for entry in entries.values():
    dtype = str(_leaf(model.params, entry.path).dtype)
    sizes[dtype] = sizes.get(dtype, 0) + int(np.prod(entry.shape))
  return max(sizes, key=lambda name: sizes[name])
