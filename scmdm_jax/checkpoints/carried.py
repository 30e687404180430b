"""What a source says that is not read here: kept in a checkpoint, given back on export.

Fields of `config.json` that nothing here means anything by (ids of special tokens) and
small text files beside it (`generation_config.json`, `chat_template.jinja`). Nothing
of it is run, and no code is kept. What a checkpoint says of it is believed no more than
any other file: names that leave the directory of an export are not written.
"""

import json
import logging
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from scmdm_jax.checkpoints import safetensors_files
from scmdm_jax.errors import BadInput
from scmdm_jax.regular_files import read_regular

_MOST_BYTES = 1 << 20  # Of a file; a chat template has 20 kB.
# Of all together, as JSON: `model.json` has to stay below `disk.MAX_JSON_BYTES`.
_MOST_TOGETHER = 4 << 20
_MOST_NAMES = 6400
# Where Transformers keeps templates beside the first.
_TEMPLATES = 'additional_chat_templates'
# What is read or written again, and what belongs to weights that are not part of it.
_OWN = frozenset({safetensors_files.CONFIG, 'README.md', 'adapter_config.json'})
_WEIGHTS = re.compile(
  r'.*\.(safetensors|gguf|bin|pth?|ckpt|pkl|pickle|h5|msgpack|onnx|npz)', re.I
)
_CODE = re.compile(
  r'.*\.(py[ciw]?|ipynb|(ba|z)?sh|m?js|bat|cmd|ps1|pl|rb|lua|so|dll|exe)', re.I
)
# Of the tensors, which may have another dtype by now.
_CHANGED = ('dtype', 'torch_dtype', 'transformers_version')


def collect(
  config: Mapping[str, Any],
  beside: pathlib.Path | Mapping[str, str],
  known: tuple[str, ...] = (),
) -> dict[str, Any]:
  """Returns fields and files of a source as plain JSON data; logs what it leaves out.

  Args:
    config: its `config.json`.
    beside: the directory where it lies, or the texts that it has instead, by name.
    known: names of files that are kept elsewhere, those of its tokenizer.
  """
  kept: dict[str, Any] = {'config': {}, 'files': {}}
  room = _MOST_TOGETHER
  left: list[str] = []
  for name, value in config.items():
    size = _json_size(name, value)
    if size is not None and size <= room:
      kept['config'][name], room = value, room - size
  found = beside.items() if isinstance(beside, Mapping) else _texts(beside)
  for name, text in found:
    if name in known:
      continue
    size = _json_size(name, text)
    if text is not None and size is not None and size <= room:
      kept['files'][name], room = text, room - size
    else:
      left.append(name)
  if left:
    more = f' and {len(left) - 8} more' if len(left) > 8 else ''
    logging.warning(
      'not carried along: %s%s; only text of up to %d bytes is, and no code',
      ', '.join(left[:8]),
      more,
      _MOST_BYTES,
    )
  return kept


def fields(kept: Any) -> dict[str, Any]:
  """Returns the fields of `config.json` that still hold of what `collect` gave.

  An `auto_map` names files of code, which are not there any more, except those of a
  repository (`owner/name--module.Class`).
  """
  found = kept.get('config') if isinstance(kept, dict) else None
  found = dict(found) if isinstance(found, dict) else {}
  if isinstance(classes := found.pop('auto_map', None), dict):
    elsewhere = {name: value for name, value in classes.items() if '--' in str(value)}
    if elsewhere:
      found['auto_map'] = elsewhere
  return {name: value for name, value in found.items() if name not in _CHANGED}


def texts(kept: Any) -> dict[str, str]:
  """Returns the files, by name, that may be written of what `collect` gave."""
  found = kept.get('files') if isinstance(kept, dict) else None
  return {
    name: text
    for name, text in (found.items() if isinstance(found, dict) else ())
    if isinstance(text, str) and _is_besides(name) and not _is_code(name, text)
  }


def _texts(directory: pathlib.Path) -> Iterator[tuple[str, str | None]]:
  """Names of the files beside a model, with the text of those that are carried."""
  for folder in ('', _TEMPLATES):
    if (directory / folder).is_dir():
      for path in sorted((directory / folder).iterdir())[:_MOST_NAMES]:
        name = path.relative_to(directory).as_posix()
        if _is_besides(name) and not path.is_dir():
          yield name, _text(directory, name)


def _is_besides(name: str) -> bool:
  """Whether a file in the directory of a model is neither part of it nor hidden."""
  folder, _, file = name.rpartition('/')
  return (
    folder in ('', _TEMPLATES)
    and name.isprintable()
    and not (file.startswith('.') or name in _OWN or '.index.' in file)
    and file != ''
    and not _WEIGHTS.fullmatch(file)
  )


def _is_code(name: str, text: str) -> bool:
  return bool(_CODE.fullmatch(name)) or text.startswith('#!')


def _text(directory: pathlib.Path, name: str) -> str | None:
  """A small text file, or None: no text, too large, code, a link that leaves, ..."""
  try:
    path = safetensors_files.inside(directory, name)
    if path.stat().st_size > _MOST_BYTES:
      return None
    text = read_regular(path).decode()
  except (OSError, ValueError, BadInput):
    return None
  return None if _is_code(name, text) else text


def _json_size(name: str, value: Any) -> int | None:
  """Bytes of a field of JSON; None: it has no JSON, as NaN."""
  try:
    return len(json.dumps({name: value}, allow_nan=False))
  except (TypeError, ValueError):
    return None
