"""A `*.model` file of SentencePiece.

A piece of any type but CONTROL may come out of a text, so the special ones are made
CONTROL before the library sees the model.
"""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from scmdm_jax.data.tokenizers import files as tokenizer_files
from scmdm_jax.data.tokenizers.files import Files, damaged
from scmdm_jax.data.tokenizers.protocol import quoted
from scmdm_jax.data.tokenizers.subword import Definition, Encoder
from scmdm_jax.errors import BadInput, DamagedData

# protobuf makes these classes as it is imported: type checkers do not see them.
_ModelProto: Any = sentencepiece_model_pb2.ModelProto  # pyright: ignore
_CONTROL = _ModelProto.SentencePiece.CONTROL
_UNKNOWN = _ModelProto.SentencePiece.UNKNOWN
_BYTE = _ModelProto.SentencePiece.BYTE
# Types of pieces that stand for something else than text.
_RESERVED = (
  _CONTROL,
  _ModelProto.SentencePiece.USER_DEFINED,
  _ModelProto.SentencePiece.UNUSED,
)
# Stands for a piece that is shown as it is written. From Unicode's private use area.
_PLACEHOLDER = '\ue0ff'


def read(files: Files, where: str) -> Definition:
  """What a `*.model` file and those beside it say.

  Raises:
    BadInput: a role is given to a token that does not exist.
    DamagedData: the file is malformed, or contradicts another.
  """
  name = tokenizer_files.definition_file(files, where)
  config = tokenizer_files.side_config(files, where)
  data = tokenizer_files.read_bytes(files, name, where)
  proto, processor = _parsed(data, where, name)
  vocabulary = {i: piece.piece for i, piece in enumerate(proto.pieces)}
  added = tokenizer_files.added_tokens({}, config, files, where)
  for i, token in added.items():
    if vocabulary.setdefault(i, token['content']) != token['content']:
      raise damaged(
        where, name, f'id {i} is {vocabulary[i]!r} and {token["content"]!r}'
      )
  ids = {token: i for i, token in vocabulary.items()}
  own = {
    'bos': processor.bos_id(),
    'eos': processor.eos_id(),
    'pad': processor.pad_id(),
  }
  roles = {role: vocabulary[i] for role, i in own.items() if i >= 0}
  roles |= tokenizer_files.roles(config, where)
  named = _ids_of_roles(roles, ids, f'{where}/{name}')
  control = {i for i, piece in enumerate(proto.pieces) if piece.type == _CONTROL}
  reserved = {i for i, piece in enumerate(proto.pieces) if piece.type in _RESERVED}
  framing = frozenset(named.values())
  unk = processor.unk_id()
  if unk in framing:
    raise BadInput(
      f'{where}/{name}: unknown text becomes {quoted(vocabulary[unk])}, which starts, '
      'ends, pads or masks a text; wanted a token of its own'
    )
  texts = tokenizer_files.special_texts(config, where) - {vocabulary.get(unk)}
  special = framing | control | {ids[text] for text in texts & ids.keys()}
  return Definition(
    source=f'{where}/{name}',
    name=name,
    vocabulary=vocabulary,
    special=special | {i for i, token in added.items() if token['special']},
    added=framing | frozenset(added) | reserved,
    own=frozenset(range(len(proto.pieces))),
    bos_id=named.get('bos'),
    eos_id=named.get('eos'),
    pad_id=named.get('pad'),
    mask_id=named.get('mask'),
    unk_id=unk,
    encoder=functools.partial(_encoder, data, f'{where}/{name}'),
  )


def _parsed(
  data: bytes, where: str, name: str
) -> tuple[Any, sentencepiece.SentencePieceProcessor]:
  """The file as a message, and the library's processor of it."""
  proto = _ModelProto()
  try:
    proto.ParseFromString(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
  except Exception as e:  # protobuf's DecodeError, the library's RuntimeError.
    raise damaged(where, name, f'not a SentencePiece model ({e})') from e
  if not proto.pieces:
    raise damaged(where, name, 'a SentencePiece model without pieces')
  return proto, processor


def _ids_of_roles(
  roles: Mapping[str, str | None], ids: Mapping[str, int], source: str
) -> dict[str, int]:
  """The ids of 'bos', 'eos', 'pad' and 'mask', of those that `roles` names."""
  named: dict[str, int] = {}
  for role, token in roles.items():
    if token is None or role == 'unk':
      continue
    if token not in ids:
      raise BadInput(
        f'{source}: {role}_token is {quoted(token)}, which is none of its {len(ids)} '
        'tokens; wanted one that has an id'
      )
    named[role] = ids[token]
  return named


def _encoder(data: bytes, source: str, forbidden: frozenset[int]) -> Encoder:
  """The library's processor with `forbidden` pieces out of reach of texts."""
  proto = _ModelProto()
  proto.ParseFromString(data)
  for i in forbidden:
    if i < len(proto.pieces) and proto.pieces[i].type == _BYTE:
      raise BadInput(
        f'{source}: {quoted(proto.pieces[i].piece)}, a byte that texts are spelled in, '
        'is one of its special tokens; wanted a token of its own there'
      )
    if i < len(proto.pieces) and proto.pieces[i].type != _UNKNOWN:
      proto.pieces[i].type = _CONTROL
  reduced = proto.SerializeToString(deterministic=True)
  try:
    processor = sentencepiece.SentencePieceProcessor(model_proto=reduced)
  except RuntimeError as e:
    raise DamagedData(f'{source}: not a SentencePiece model ({e})') from e
  shown = {proto.pieces[i].piece for i in forbidden if i < len(proto.pieces)}

  def ids(text: str) -> list[int]:
    return processor.encode(text, out_type=int)

  def spans(text: str) -> list[tuple[int, int]]:
    kind: Any = 'immutable_proto'
    found: Any = processor.encode(text, out_type=kind)
    return [(piece.begin, piece.end) for piece in found.pieces]

  def join(pieces: list[str]) -> str:
    # The library drops control pieces; one that is left over is to be seen.
    hidden = [piece for piece in pieces if piece in shown]
    replaced = [_PLACEHOLDER if piece in shown else piece for piece in pieces]
    text = processor.decode_pieces(replaced)
    for piece in hidden:
      text = text.replace(_PLACEHOLDER, piece, 1)
    return text

  return Encoder(ids, spans, join, hashlib.sha256(reduced).digest())
