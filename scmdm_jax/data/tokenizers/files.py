"""The files of a tokenizer: which there are, and what they say of special tokens."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from scmdm_jax.data import reading
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular

Files = Mapping[str, bytes | pathlib.Path]

TOKENIZER_JSON = 'tokenizer.json'
VOCABULARY = 'vocab.json'
MERGES = 'merges.txt'
CONFIG = 'tokenizer_config.json'
SPECIALS = 'special_tokens_map.json'
ADDED = 'added_tokens.json'
CHAT_TEMPLATE = 'chat_template.jinja'
SENTENCEPIECE = 'tokenizer.model'

_NAMES = (
  TOKENIZER_JSON,
  VOCABULARY,
  MERGES,
  CONFIG,
  SPECIALS,
  ADDED,
  CHAT_TEMPLATE,
)
_ROLES = ('bos', 'eos', 'pad', 'mask', 'unk')
# Where transformers 4 and 5 list special tokens beyond those with a role: a list, or an
# object whose values they are.
_EXTRA = 'extra_special_tokens'
_EXTRAS = (_EXTRA, 'additional_special_tokens', 'model_specific_special_tokens')
# The largest that are known, of 256,000 tokens, are below 40 MB.
_MAX_BYTES = 256 << 20
MAX_IDS = 1 << 24  # No id of a real vocabulary comes near.


def collect(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """The tokenizer's files in a model directory, by name; none is no error."""
  if not directory.is_dir():
    return {}
  return {
    path.name: path
    for path in sorted(directory.iterdir())
    if path.is_file() and (path.name in _NAMES or path.suffix == '.model')
  }


def definition_file(files: Files, where: str) -> str:
  """The file that defines the tokens: the one that the others are read beside.

  Raises:
    BadInput: there is none, or several SentencePiece models.
  """
  models = [name for name in files if name.endswith('.model')]
  if TOKENIZER_JSON in files:
    return TOKENIZER_JSON
  if VOCABULARY in files:
    return VOCABULARY
  if SENTENCEPIECE in files:
    return SENTENCEPIECE
  if len(models) == 1:
    return models[0]
  found = ', '.join(sorted(files)) or 'no tokenizer file'
  raise BadInput(
    f'{where}: found {found}; wanted {TOKENIZER_JSON}, {VOCABULARY} with {MERGES}, or '
    'one *.model of SentencePiece'
  )


def read_bytes(files: Files, name: str, where: str) -> bytes:
  """The content of one file.

  Raises:
    BadInput: it is not there, cannot be read, or is far too large.
  """
  if name not in files:
    raise BadInput(f'{where}/{name}: no such file; wanted beside {sorted(files)}')
  content = files[name]
  if isinstance(content, bytes):
    return content
  try:
    with open_regular(content) as file:
      data = file.read(_MAX_BYTES + 1)
  except OSError as e:
    raise BadInput(f'{where}/{name}: {e.strerror}; wanted a readable file') from e
  if len(data) > _MAX_BYTES:
    raise BadInput(f'{where}/{name}: more than {_MAX_BYTES} bytes; no tokenizer is')
  return data


def read_json(files: Files, name: str, where: str) -> dict[str, Any]:
  """The JSON object in one file.

  Raises:
    BadInput: as `read_bytes`.
    DamagedData: not JSON, or not an object.
  """
  try:
    value = json.loads(reading.decode(read_bytes(files, name, where), name))
  except (ValueError, RecursionError, reading.NotText) as e:
    raise DamagedData(f'{where}/{name}: not JSON ({e}); get the file again') from e
  if not isinstance(value, dict):
    raise damaged(where, name, f'a JSON {type(value).__name__}, wanted an object')
  return value


def damaged(where: str, name: str, found: object) -> DamagedData:
  """The error of a file that is not what its name says; one line."""
  text = ' '.join(str(found).split())
  return DamagedData(f'{where}/{name}: {text[:300]}; get the file again')


def side_config(files: Files, where: str) -> dict[str, Any]:
  """What stands beside the definition: `tokenizer_config.json` before all others.

  Special tokens without a role of their own are a list of texts under
  `extra_special_tokens`, whatever they are called in the files.
  """
  config: dict[str, Any] = {}
  extra: list[str] = []
  for name in (SPECIALS, CONFIG):
    if name in files:
      found = read_json(files, name, where)
      extra += _extra_tokens(found, name, where)
      config |= found
  return config | {_EXTRA: extra}


def _extra_tokens(config: dict[str, Any], name: str, where: str) -> Iterator[str]:
  """Texts of the special tokens in one file that are not bos, eos, pad, mask, unk."""
  for field in _EXTRAS:
    values = config.get(field) or ()
    if not isinstance(values, list | dict | tuple):
      raise damaged(where, name, f'{field} is {values!r}, wanted a list or an object')
    for value in values.values() if isinstance(values, dict) else values:
      yield _content(value, field, where, name)
  roles = {f'{role}_token' for role in _ROLES}
  for field, value in config.items():
    # cls_token, sep_token, image_token and their like; add_bos_token is a truth value.
    if (
      field.endswith('_token') and field not in roles and isinstance(value, str | dict)
    ):
      yield _content(value, field, where, name)


def roles(config: dict[str, Any], where: str) -> dict[str, str | None]:
  """Text of the tokens 'bos', 'eos', 'pad', 'mask', 'unk', where the files name them.

  None says that there is none; a role that the files do not mention is left out.

  Raises:
    DamagedData: something else stands there.
  """
  found: dict[str, str | None] = {}
  for role in _ROLES:
    if f'{role}_token' in config:
      value = config[f'{role}_token']
      found[role] = None if value is None else _content(value, f'{role}_token', where)
  return found


def special_texts(config: dict[str, Any], where: str) -> set[str]:
  """Texts of all tokens that the files call special, with a role or without."""
  named = (text for text in roles(config, where).values() if text is not None)
  return {*config[_EXTRA], *named}


def added_tokens(
  definition: dict[str, Any], config: dict[str, Any], files: Files, where: str
) -> dict[int, dict[str, Any]]:
  """Tokens beside the model's own, by id, as `tokenizer.json` writes them.

  Collected from all three places that may list them. Special are those that say so,
  and those that the files name in a role or among the other special tokens.

  Raises:
    DamagedData: an entry is malformed, or two tokens have one id.
  """
  special = special_texts(config, where)
  added: dict[int, dict[str, Any]] = {}
  for name, token_id, entry in _entries(definition, config, files, where):
    content = entry.get('content')
    known_id = type(token_id) is int and 0 <= token_id < MAX_IDS
    if not known_id or not isinstance(content, str):
      raise damaged(where, name, f'added token {content!r} has the id {token_id!r}')
    if not content:
      raise damaged(where, name, f'added token {token_id} is the empty text')
    known = added.setdefault(token_id, {'content': content, 'special': False})
    if known['content'] != content:
      raise damaged(
        where, name, f'id {token_id} is {content!r} and {known["content"]!r}'
      )
    flags = {
      flag: bool(entry.get(flag, False)) for flag in ('single_word', 'lstrip', 'rstrip')
    }
    is_special = bool(entry.get('special', False)) or content in special
    normalized = bool(entry.get('normalized', not is_special))
    added[token_id] = {
      'id': token_id,
      'content': content,
      **flags,
      'normalized': normalized,
      'special': is_special or known['special'],
    }
  return added


def _entries(
  definition: dict[str, Any], config: dict[str, Any], files: Files, where: str
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
  """File, id and properties of every mention of an added token."""
  if ADDED in files:
    for content, token_id in read_json(files, ADDED, where).items():
      yield ADDED, token_id, {'content': content}
  decoder = config.get('added_tokens_decoder') or {}
  if not isinstance(decoder, dict):
    raise damaged(where, CONFIG, 'added_tokens_decoder is no object')
  for key, entry in decoder.items():
    if not isinstance(entry, dict):
      raise damaged(where, CONFIG, f'added_tokens_decoder[{key!r}] is no object')
    yield CONFIG, int(key) if key.isascii() and key.isdecimal() else key, entry
  listed = definition.get('added_tokens') or []
  if not isinstance(listed, list):
    raise damaged(where, TOKENIZER_JSON, 'added_tokens is no list')
  for entry in listed:
    if not isinstance(entry, dict):
      raise damaged(where, TOKENIZER_JSON, f'added token {entry!r} is no object')
    yield TOKENIZER_JSON, entry.get('id'), entry


def _content(value: Any, field: str, where: str, name: str = CONFIG) -> str:
  """A token's text, which is written plainly or as an object with flags."""
  text = value.get('content') if isinstance(value, dict) else value
  if not isinstance(text, str):
    raise damaged(where, name, f'{field} is {value!r}, wanted a text')
  return text
