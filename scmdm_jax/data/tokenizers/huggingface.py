"""`tokenizer.json`, or `vocab.json` with `merges.txt`, through `tokenizers`.

The library knows two ways in which a text becomes a special token: it looks for added
tokens first, and some models look words up in the whole vocabulary. So special tokens
are taken out of both before the library sees the definition. Its own
`encode_special_tokens` closes the first way only: with it alone
`test_no_text_yields_a_special_id` fails for looked-up words and for Unigram.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tokenizers

from scmdm_jax.data import reading
from scmdm_jax.data.tokenizers import files as tokenizer_files
from scmdm_jax.data.tokenizers.files import Files, damaged
from scmdm_jax.data.tokenizers.protocol import quoted
from scmdm_jax.data.tokenizers.subword import Definition, Encoder
from scmdm_jax.errors import BadInput, DamagedData

_NUMBER = (int, float)
# Texts on which a definition that makes the library panic does so.
_PROBES = ('', 'a', 'two words \u00e9\u65e5\U0001f642\n\x00 <s>[1]')
_END_OF_TEXT = '<|endoftext|>'
_GPT2 = ('GPT2Tokenizer', 'GPT2TokenizerFast')
_QWEN2 = ('Qwen2Tokenizer', 'Qwen2TokenizerFast', 'DreamTokenizer')
# How Qwen2 cuts a text into words; GPT-2's way is the library's own.
_QWEN2_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


def read(files: Files, where: str) -> Definition:
  """What `tokenizer.json`, or `vocab.json` and `merges.txt`, and those beside say.

  Raises:
    BadInput: a file is missing, or wants something that is not done here.
    DamagedData: a file is malformed, or contradicts itself or another.
  """
  name = tokenizer_files.definition_file(files, where)
  config = tokenizer_files.side_config(files, where)
  if name == tokenizer_files.TOKENIZER_JSON:
    written = tokenizer_files.read_json(files, name, where)
  else:
    written = _from_merges(files, config, where)
  model = written.get('model')
  if not isinstance(model, dict):
    raise damaged(where, name, 'no model')
  if model.get('dropout'):
    raise BadInput(f'{where}/{name}: dropout is {model["dropout"]!r:.60}; wanted none')
  own = _own_vocabulary(model, where, name)
  added = tokenizer_files.added_tokens(written, config, files, where)
  vocabulary = _merged(own, added, where, name)
  ids = {token: i for i, token in vocabulary.items()}
  roles = tokenizer_files.roles(config, where)
  if 'eos' not in roles and _END_OF_TEXT in ids:
    # GPT-2 and Qwen2 say it in code, not in their files; only GPT-2 starts with it.
    roles['eos'] = _END_OF_TEXT
    if config.get('tokenizer_class', _GPT2[0]) in _GPT2:
      roles.setdefault('bos', _END_OF_TEXT)
  named = _ids_of(roles, ids, where, name)
  framing = {i for role, i in named.items() if role != 'unk'}
  unk = _unknown(model, own, ids)
  if unk is not None and unk in framing:
    if 'merges' not in model:
      raise BadInput(
        f'{where}/{name}: unknown text becomes {quoted(vocabulary[unk])}, which '
        'starts, ends, pads or masks a text; wanted a token of its own'
      )
    unk = None  # GPT-2 names one that its bytes never need.
  special = framing | {i for i, token in added.items() if token['special']}
  texts = tokenizer_files.special_texts(config, where) - {roles.get('unk')}
  special |= {ids[text] for text in texts & ids.keys()}
  return Definition(
    source=f'{where}/{name}',
    name=name,
    vocabulary=vocabulary,
    special=frozenset(special - {unk}),
    added=frozenset(added) | frozenset(framing),
    own=frozenset(own),
    bos_id=named.get('bos'),
    eos_id=named.get('eos'),
    pad_id=named.get('pad'),
    mask_id=named.get('mask'),
    unk_id=unk,
    encoder=functools.partial(_encoder, written, added, unk, f'{where}/{name}'),
  )


def _from_merges(files: Files, config: dict[str, Any], where: str) -> dict[str, Any]:
  """`vocab.json` and `merges.txt` as a `tokenizer.json` would say it."""
  kind = config.get('tokenizer_class', _GPT2[0])
  words: dict[str, Any] = {'type': 'ByteLevel', 'trim_offsets': True}
  if kind in _GPT2:
    prefix = bool(config.get('add_prefix_space', False))
    words |= {'add_prefix_space': prefix, 'use_regex': True}
    pre_tokenizer, normalizer = words, None
  elif kind in _QWEN2:
    words |= {'add_prefix_space': False, 'use_regex': False}
    pattern = {'Regex': _QWEN2_WORDS}
    split = {'type': 'Split', 'pattern': pattern, 'behavior': 'Isolated'}
    pretokenizers = [split | {'invert': False}, words]
    pre_tokenizer = {'type': 'Sequence', 'pretokenizers': pretokenizers}
    normalizer = {'type': 'NFC'}
  else:
    raise BadInput(
      f'{where}/{tokenizer_files.CONFIG}: tokenizer_class is {quoted(str(kind))}; '
      f'{tokenizer_files.VOCABULARY} is read as that of {_GPT2[0]} or {_QWEN2[0]}; '
      f'wanted {tokenizer_files.TOKENIZER_JSON} for others'
    )
  data = tokenizer_files.read_bytes(files, tokenizer_files.MERGES, where)
  try:
    lines = reading.decode(data, tokenizer_files.MERGES).split('\n')
  except reading.NotText as e:
    raise damaged(where, tokenizer_files.MERGES, e) from e
  rules = [x for x in map(str.rstrip, lines) if x and not x.startswith('#version')]
  merges = [rule.split(' ') for rule in rules]
  wrong = next((rule for rule in merges if len(rule) != 2), None)
  if wrong is not None:
    raise damaged(where, tokenizer_files.MERGES, f'{wrong} is no pair of pieces')
  return {
    'normalizer': normalizer,
    'pre_tokenizer': pre_tokenizer,
    'decoder': words,
    'model': {
      'type': 'BPE',
      'vocab': tokenizer_files.read_json(files, tokenizer_files.VOCABULARY, where),
      'merges': merges,
    },
  }


def _own_vocabulary(model: dict[str, Any], where: str, name: str) -> dict[int, str]:
  """The model's tokens by id; a vocabulary is an object, or Unigram's list."""
  vocab = model.get('vocab')
  if isinstance(vocab, list):
    rows = [row for row in vocab if isinstance(row, list) and len(row) == 2]
    pieces = [p for p, score in rows if isinstance(p, str) and type(score) in _NUMBER]
    if len(pieces) != len(vocab) or not pieces:
      raise damaged(where, name, 'a vocabulary that is no list of [piece, score]')
    return dict(enumerate(pieces))
  if not isinstance(vocab, dict) or not vocab:
    raise damaged(where, name, 'no vocabulary')
  own: dict[int, str] = {}
  for token, i in vocab.items():
    if type(i) is not int or not 0 <= i < tokenizer_files.MAX_IDS:
      raise damaged(where, name, f'token {token!r} has the id {i!r}')
    if i in own:
      raise damaged(where, name, f'{own[i]!r} and {token!r} both have the id {i}')
    own[i] = token
  return own


def _merged(
  own: dict[int, str], added: dict[int, dict[str, Any]], where: str, name: str
) -> dict[int, str]:
  ids = {token: i for i, token in own.items()}
  for i, token in added.items():
    content = token['content']
    if own.get(i, content) != content or ids.get(content, i) != i:
      raise damaged(
        where,
        name,
        f'added token {content!r} has id {i}, the vocabulary {own.get(i)!r} there and '
        f'{content!r} at {ids.get(content)}',
      )
  return own | {i: token['content'] for i, token in added.items()}


def _ids_of(
  roles: dict[str, str | None], ids: dict[str, int], where: str, name: str
) -> dict[str, int]:
  for role, token in roles.items():
    if token is not None and token not in ids and role != 'unk':
      raise BadInput(
        f'{where}/{name}: {role}_token is {quoted(token)}, which is none of its '
        f'{len(ids)} tokens; wanted one that has an id'
      )
  return {role: ids[token] for role, token in roles.items() if token in ids}


def _unknown(
  model: dict[str, Any], own: dict[int, str], ids: dict[str, int]
) -> int | None:
  """The id that unknown text becomes: by position for Unigram, by text for others."""
  position, text = model.get('unk_id'), model.get('unk_token')
  if type(position) is int and position in own and isinstance(model['vocab'], list):
    return position
  return ids.get(text) if isinstance(text, str) else None


class _LibraryError(ValueError):
  """What the library says; one line."""


class _LibraryPanic(ValueError):
  """What the library says where it should have raised an error."""


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
  """What a function of the library returns.

  Raises:
    _LibraryError: an error of its own.
    _LibraryPanic: one that it did not foresee, which is no `Exception`.
  """
  try:
    return function(*arguments)
  except BaseException as e:
    reason = ' '.join(str(e).split())[:300]
    if isinstance(e, Exception):
      raise _LibraryError(reason) from e
    if type(e).__name__ == 'PanicException':
      raise _LibraryPanic(reason) from e
    raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps what the library writes to standard error about a panic from there."""
  sys.stderr.flush()
  try:
    kept = os.dup(2)
  except OSError:  # Closed, so that nothing can be written.
    yield
    return
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def _encoder(
  written: dict[str, Any],
  added: dict[int, dict[str, Any]],
  unk: int | None,
  source: str,
  forbidden: frozenset[int],
) -> Encoder:
  """The library's tokenizer without `forbidden`, framing, cutting and padding."""
  kept = [t for i, t in sorted(added.items()) if i not in forbidden and i != unk]
  model = _without(written['model'], kept, unk, forbidden)
  definition = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': kept,
    'normalizer': written.get('normalizer'),
    'pre_tokenizer': written.get('pre_tokenizer'),
    'post_processor': None,
    'decoder': written.get('decoder'),
    'model': model,
  }
  text = json.dumps(definition, sort_keys=True)
  try:
    with _quiet():
      tokenizer = _called(tokenizers.Tokenizer.from_str, text)
      for probe in _PROBES:
        with contextlib.suppress(_LibraryError):
          _called(tokenizer.decode, _called(tokenizer.encode, probe).ids)
  except (_LibraryError, _LibraryPanic) as e:
    raise DamagedData(
      f'{source}: not a tokenizer that the library tokenizers {tokenizers.__version__} '
      f'reads ({e}); wanted a whole one'
    ) from e
  for token in kept:
    if tokenizer.token_to_id(token['content']) != token['id']:
      raise DamagedData(
        f'{source}: added token {quoted(token["content"])} has id {token["id"]}, which '
        'the library reads otherwise; wanted that of its vocabulary'
      )
  decoder = tokenizer.decoder

  def encoded(text: str) -> Any:
    try:
      return _called(tokenizer.encode, text, None, False, False)
    except (_LibraryError, _LibraryPanic) as e:
      raise BadInput(
        f'{source}: cannot encode the text {quoted(text)} ({e}); wanted another '
        'tokenizer, or a text without it'
      ) from e

  def join(pieces: list[str]) -> str:
    return ' '.join(pieces) if decoder is None else _called(decoder.decode, pieces)

  return Encoder(
    lambda text: encoded(text).ids,
    lambda text: encoded(text).offsets,
    join,
    text.encode(),
  )


def _without(
  model: dict[str, Any],
  kept: list[dict[str, Any]],
  unk: int | None,
  forbidden: frozenset[int],
) -> dict[str, Any]:
  """The model, its vocabulary reduced to what text may yield.

  The library numbers added tokens itself unless the model has them, so those that are
  kept are entered here.
  """
  vocab = model['vocab']
  if isinstance(vocab, dict):
    reduced = {token: i for token, i in vocab.items() if i not in forbidden}
    reduced |= {token['content']: token['id'] for token in kept}
    model = model | {'vocab': reduced, **_kept_merges(model, vocab, reduced)}
    return model | {'unk_token': None} if unk is None and 'merges' in model else model
  lowest = min((score for _, score in vocab), default=0.0)
  hidden = forbidden | {unk}
  rows = [['' if i in hidden else piece, s] for i, (piece, s) in enumerate(vocab)]
  for token in kept:
    # Ids are positions; the empty piece is found in no text.
    rows += [['', lowest]] * (token['id'] + 1 - len(rows))
    rows[token['id']] = [token['content'], rows[token['id']][1]]
  return model | {'vocab': rows}


def _kept_merges(
  model: dict[str, Any], vocab: dict[str, int], reduced: dict[str, int]
) -> dict[str, Any]:
  """The merges of BPE without those of or into a token that is left out."""
  merges, gone = model.get('merges'), vocab.keys() - reduced.keys()
  if not gone or not isinstance(merges, list):
    return {}
  prefix = model.get('continuing_subword_prefix') or ''

  def stays(merge: Any) -> bool:
    pair = merge.split(' ') if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2:
      return True  # The library says what is wrong with it.
    first, second = map(str, pair)
    joined = first + second.removeprefix(str(prefix))
    return gone.isdisjoint((first, second, joined))

  return {'merges': [merge for merge in merges if stays(merge)]}
