"""What a source says that is not read here: kept in a checkpoint, given back on export.

Fields of `config.json` that nothing here means anything by (ids of special tokens,
`auto_map`) and small text files beside it (`generation_config.json`,
`chat_template.jinja`). Nothing of it is run.
"""

import json
import pathlib
from typing import Any

from scmdm_jax.checkpoints import safetensors_files
from scmdm_jax.errors import BadInput
from scmdm_jax.regular_files import read_regular

_MOST_BYTES = 1 << 20  # Of a file; a chat template has 20 kB.
_MOST_FILES = 64
# Weights and their index, and what is read or written anew.
_OWN = (safetensors_files.CONFIG, safetensors_files.INDEX, 'README.md')
# Of the tensors, which may have another dtype by now.
_CHANGED = ('dtype', 'torch_dtype', 'transformers_version')


def collect(
  config: dict[str, Any], directory: pathlib.Path, known: tuple[str, ...]
) -> dict[str, Any]:
  """Fields and files of a source, as plain JSON data.

  Args:
    config: its `config.json`.
    directory: where it lies.
    known: names of files that are kept elsewhere, those of its tokenizer.
  """
  fields = {name: value for name, value in config.items() if _is_plain(value)}
  files: dict[str, str] = {}
  for path in sorted(directory.iterdir())[: 100 * _MOST_FILES]:
    skipped = path.name.startswith('.') or path.name in (*_OWN, *known)
    if skipped or not path.is_file() or path.stat().st_size > _MOST_BYTES:
      continue
    if len(files) < _MOST_FILES:
      try:
        safe = safetensors_files.inside(directory, path.name)
        files[path.name] = read_regular(safe).decode()
      except (OSError, ValueError, BadInput):  # No text, a link that leaves, ...
        continue
  return {'config': fields, 'files': files}


def merged(config: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
  """`config` of an export, and behind it what the source had besides.

  Args:
    config: what the model is, which counts.
    kept: as `collect` gives it, or {}.
  """
  fields = kept.get('config', {})
  return config | {
    name: value
    for name, value in fields.items()
    if name not in config and name not in _CHANGED
  }


def _is_plain(value: Any) -> bool:
  try:
    json.dumps(value, allow_nan=False)
  except ValueError:
    return False
  return True
