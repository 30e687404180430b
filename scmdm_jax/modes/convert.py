"""Modes `import` and `export`: safetensors in, safetensors out."""

import pathlib
from typing import Any

import jax
import numpy as np

from scmdm_jax.checkpoints import (
  disk,
  layouts,
  model_config,
  safetensors_files,
  safetensors_writer,
  store,
)


def import_model(source: str, workdir: str) -> dict[str, Any]:
  """Turns a safetensors directory into a model checkpoint at `workdir`.

  Args:
    source: `config.json` and `*.safetensors` in one of `description.LAYOUTS`.
    workdir: a new or empty directory; it appears complete or not at all.

  Returns:
    Main figures: layout, tensors and bytes read, parameters, path.

  Raises:
    BadInput: not such a source (all tensors that do not fit are listed at once), or
      `workdir` is not empty.
    DamagedData: a file of the source is truncated or altered.
  """
  path = pathlib.Path(workdir).expanduser()
  disk.refuse_occupied(path)
  opened = safetensors_files.open_source(pathlib.Path(source).expanduser())
  config_path = opened.where / safetensors_files.CONFIG
  description = model_config.description_from_config(opened.config, str(config_path))
  entries = layouts.check(description, opened.shapes, str(source))
  params: dict[str, Any] = {'backbone': {}, layouts.SELF_CONDITIONING: {}}
  for name, value in safetensors_files.read_tensors(opened):
    if name in entries:
      entry = entries[name]
      node = params
      for key in entry.path[:-1]:
        node = node.setdefault(key, {})
      node[entry.path[-1]] = entry.from_file(value)
  store.save_model(path, description, params, extra={'imported_from': str(source)})
  return {
    'layout': description.layout,
    'tensors': len(opened.tensors),
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
    'bytes': opened.num_bytes,
    'path': str(path),
  }


def export_model(source: str, workdir: str) -> dict[str, Any]:
  """Writes a model checkpoint as `config.json` and `model.safetensors`.

  Args:
    source: a model checkpoint, or a training workdir holding one.
    workdir: a new or empty directory; it appears complete or not at all.

  Returns:
    Main figures: layout, tensors and bytes written, parameters, path.

  Raises:
    BadInput: `source` is no model checkpoint, or `workdir` is not empty.
    DamagedData: a file of the source is truncated or altered.
  """
  path = pathlib.Path(workdir).expanduser()
  disk.refuse_occupied(path)
  description, params = store.load_model(pathlib.Path(source).expanduser())
  tensors = layouts.buffers(description)
  for name, entry in layouts.manifest(description).items():
    node: Any = params
    for key in entry.path:
      node = node[key]
    tensors[name] = entry.to_file(np.asarray(node, np.float32))
  config = model_config.config_from_description(description, 'float32')
  specs = {name: (value.shape, value.dtype) for name, value in tensors.items()}
  written = safetensors_writer.write(path, config, specs, tensors.__getitem__)
  return {
    'layout': description.layout,
    'tensors': len(tensors),
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
    'bytes': written,
    'path': str(path),
  }
