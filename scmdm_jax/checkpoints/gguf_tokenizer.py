"""The tokenizer inside a GGUF file, as the files of a Hugging Face model.

Byte-level BPE ('gpt2' in GGUF's words) becomes a `tokenizer.json`. How text is cut
before merging is not in the file: it has a name, and what the name means is the table
below, each from the `tokenizer.json` that its model was published with. SentencePiece's
BPE ('llama') becomes a `tokenizer.model`.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers

from scmdm_jax.errors import BadInput, DamagedData

_TOKENS = 'tokenizer.ggml.tokens'
_TYPES = 'tokenizer.ggml.token_type'
_MERGES = 'tokenizer.ggml.merges'
_SCORES = 'tokenizer.ggml.scores'
# As in SentencePiece.
_CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 3, 4, 5, 6
# protobuf makes these classes as it is imported: type checkers do not see them.
_ModelProto: Any = sentencepiece_model_pb2.ModelProto  # pyright: ignore

# Contractions, words, numbers of up to N digits, punctuation, line ends, spaces.
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}NUMBER"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


class _Cut(NamedTuple):
  """What a name in `tokenizer.ggml.pre` means."""

  pattern: str  # '' is GPT-2's own.
  digits: bool = False  # Every digit alone, before all else.
  nfc: bool = False
  ignore_merges: bool = False  # A word that is a token is not merged again.


_CUTS = {
  'gpt-2': _Cut(''),
  'smollm': _Cut('', digits=True),
  **dict.fromkeys(
    ('llama-bpe', 'llama3', 'llama-v3'),
    _Cut(_WORDS.replace('NUMBER', '{1,3}'), ignore_merges=True),
  ),
  'qwen2': _Cut(_WORDS.replace('NUMBER', ''), nfc=True),
}
_IDS = {
  'bos_token': 'tokenizer.ggml.bos_token_id',
  'eos_token': 'tokenizer.ggml.eos_token_id',
  'pad_token': 'tokenizer.ggml.padding_token_id',
  'unk_token': 'tokenizer.ggml.unknown_token_id',
}


def tokenizer_files(fields: Mapping[str, Any], where: str) -> dict[str, bytes]:
  """`tokenizer.json` or `tokenizer.model`, and `tokenizer_config.json`.

  Args:
    fields: the header's fields.
    where: the file, for messages.

  Raises:
    BadInput: a kind of tokenizer that is not rebuilt here.
    DamagedData: tokens, merges, scores and ids that do not fit together.
  """
  model = fields.get('tokenizer.ggml.model')
  if not (isinstance(model, str) and model in ('gpt2', 'llama')):
    raise BadInput(
      f"{where}: tokenizer.ggml.model is {model!r}; only 'gpt2' (byte-level BPE) and "
      "'llama' (SentencePiece) are rebuilt here"
    )
  tokens = _strings(fields, _TOKENS, where)
  types = fields.get(_TYPES, np.ones(len(tokens), np.int32))
  if not _is_array(types, 'iu', len(tokens)):
    raise DamagedData(
      f'{where}: {_TYPES}: wanted a whole number for each of {len(tokens)} tokens'
    )
  if unknown := sorted({*types.tolist()} - {*range(_BYTE + 1)}):
    raise DamagedData(
      f'{where}: {_TYPES} has {unknown[0]}; wanted 0 to {_BYTE}; get the file again'
    )
  if len(set(tokens)) < len(tokens):
    raise DamagedData(f'{where}: {_TOKENS} has a token twice')
  config = _config(fields, tokens, where)
  rebuilt = _byte_level if model == 'gpt2' else _sentencepiece
  return {
    **rebuilt(fields, tokens, types.tolist(), where),
    'tokenizer_config.json': (json.dumps(config, indent=2) + '\n').encode(),
  }


def _byte_level(
  fields: Mapping[str, Any], tokens: list[str], types: list[int], where: str
) -> dict[str, bytes]:
  name = fields.get('tokenizer.ggml.pre')
  cut = _CUTS.get(name) if isinstance(name, str) else None
  if cut is None:
    raise BadInput(
      f'{where}: tokenizer.ggml.pre is {name!r}; wanted one of {", ".join(_CUTS)}'
    )
  ids = {token: i for i, token in enumerate(tokens) if types[i] != _UNUSED}
  merges = []
  for merge in _strings(fields, _MERGES, where):
    first, _, second = merge.partition(' ')
    merges.append((first, second))
  try:
    bpe = models.BPE(ids, merges, ignore_merges=cut.ignore_merges)
  except Exception as e:  # The library has no other type.
    raise DamagedData(f'{where}: {_MERGES} do not fit {_TOKENS} ({e})') from e
  tokenizer = _tokenizer(bpe, cut)
  added = [
    tokenizers.AddedToken(token, special=kind == _CONTROL, normalized=False)
    for token, kind in zip(tokens, types, strict=True)
    if kind in (_CONTROL, _USER_DEFINED) and token
  ]
  tokenizer.add_tokens(added)
  if any(tokenizer.token_to_id(t) != i for t, i in ids.items()):
    raise DamagedData(f'{where}: {_TOKENS}: special tokens do not keep their ids')
  return {'tokenizer.json': tokenizer.to_str(pretty=False).encode()}


def _sentencepiece(
  fields: Mapping[str, Any], tokens: list[str], types: list[int], where: str
) -> dict[str, bytes]:
  scores = fields.get(_SCORES)
  if not _is_array(scores, 'f', len(tokens)):
    raise DamagedData(
      f'{where}: {_SCORES}: wanted one for each of {len(tokens)} tokens'
    )
  if fields.get('tokenizer.ggml.precompiled_charsmap') is not None:
    raise BadInput(f'{where}: tokenizer.ggml.precompiled_charsmap is not rebuilt here')
  proto = _ModelProto()
  try:
    for token, score, kind in zip(tokens, scores.tolist(), types, strict=True):
      proto.pieces.add(piece=token, score=score, type=kind)
  except ValueError as e:
    raise DamagedData(f'{where}: {_TYPES}: {e}') from e
  trainer = proto.trainer_spec
  trainer.model_type = trainer.BPE
  trainer.vocab_size = len(tokens)
  trainer.byte_fallback = _BYTE in types
  for role in ('bos', 'eos', 'pad', 'unk'):
    token = fields.get(_IDS[f'{role}_token'])
    setattr(trainer, f'{role}_id', -1 if token is None else token)
    if token is not None:
      setattr(trainer, f'{role}_piece', tokens[token])
  rules = proto.normalizer_spec
  rules.name = 'identity'
  prefix = fields.get('tokenizer.ggml.add_space_prefix', True)
  rules.add_dummy_prefix = bool(prefix)
  extra = fields.get('tokenizer.ggml.remove_extra_whitespaces', False)
  rules.remove_extra_whitespaces = bool(extra)
  return {'tokenizer.model': proto.SerializeToString(deterministic=True)}


def _is_array(value: Any, kinds: str, length: int) -> TypeGuard[np.ndarray]:
  return (
    isinstance(value, np.ndarray) and value.dtype.kind in kinds and len(value) == length
  )


def _strings(fields: Mapping[str, Any], name: str, where: str) -> list[str]:
  value = fields.get(name)
  if not isinstance(value, list):
    raise DamagedData(f'{where}: no list of strings in {name}; get the file again')
  return value


def _tokenizer(bpe: models.BPE, cut: _Cut) -> tokenizers.Tokenizer:
  """The byte-level BPE behind its way of cutting text into words."""
  tokenizer = tokenizers.Tokenizer(bpe)
  steps: list[Any] = []
  if cut.digits:
    steps.append(pre_tokenizers.Digits(individual_digits=True))
  if cut.pattern:
    words = tokenizers.Regex(cut.pattern)
    steps.append(pre_tokenizers.Split(words, 'isolated'))
  own = not cut.pattern
  steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own))
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
  tokenizer.decoder = decoders.ByteLevel()
  if cut.nfc:
    tokenizer.normalizer = normalizers.NFC()
  return tokenizer


def _config(fields: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
  """`tokenizer_config.json`: which tokens begin, end, pad."""
  config: dict[str, Any] = {'tokenizer_class': 'PreTrainedTokenizerFast'}
  for theirs, name in _IDS.items():
    token = fields.get(name)
    if token is None:
      continue
    if type(token) is not int or not 0 <= token < len(tokens):
      raise DamagedData(
        f'{where}: {name} is {token!r}; wanted an id below {len(tokens)}'
      )
    config[theirs] = tokens[token]
  config['add_bos_token'] = bool(fields.get('tokenizer.ggml.add_bos_token', False))
  return config
