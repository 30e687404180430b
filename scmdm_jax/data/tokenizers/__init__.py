"""Text to token ids and back: the general tokenizers, and those that models bring."""

import dataclasses
import pathlib

from scmdm_jax.data.tokenizers import huggingface, sentencepiece, subword
from scmdm_jax.data.tokenizers.characters import CharacterTokenizer
from scmdm_jax.data.tokenizers.files import (
  Files,
  collect,
  definition_file,
  read_bytes,
)
from scmdm_jax.data.tokenizers.protocol import Tokenizer, quoted
from scmdm_jax.data.tokenizers.subword import Definition, SubwordTokenizer
from scmdm_jax.errors import BadInput

_MOST_UNUSED = 1 << 16  # Ids without a token that a new model may have.

__all__ = [
  'CharacterTokenizer',
  'Files',
  'SubwordTokenizer',
  'Tokenizer',
  'collect',
  'files_at',
  'from_files',
  'from_files_for_new_model',
  'mask_for',
]


def files_at(path: pathlib.Path) -> dict[str, pathlib.Path]:
  """The tokenizer's files at a path: a directory, or the file that defines it.

  A file is read with what lies beside it, but for other definitions.

  Raises:
    BadInput: nothing is there, or no tokenizer.
  """
  if path.is_dir():
    found = collect(path)
    definition_file(found, str(path))
    return found
  if not path.is_file():
    raise BadInput(
      f'data.tokenizer: no file or directory {path}; wanted the name of a built-in '
      "tokenizer, 'checkpoint', or the path of a tokenizer"
    )
  beside = collect(path.parent)
  definitions = ('tokenizer.json', 'vocab.json')
  others = {n for n in beside if n in definitions or n.endswith('.model')}
  return {n: p for n, p in beside.items() if n not in others} | {path.name: path}


def from_files(
  files: Files,
  *,
  mask_id: int | None,
  vocab_size: int,
  where: str,
  framed: bool = False,
) -> SubwordTokenizer:
  """The tokenizer of a model.

  Args:
    files: name -> content or path: `tokenizer.json`, or `vocab.json` and `merges.txt`,
      or a SentencePiece `*.model`; read first in this order; and those that name its
      special tokens, as `collect` finds them.
    mask_id: the model's mask; None for a causal model.
    vocab_size: ids of its embedding, at least as many as tokens.
    where: their directory, for messages.
    framed: whether the rows it was trained on begin with a start token; prompts do so,
      too, then.

  Raises:
    BadInput: not the tokenizer of such a model; see `subword.fit`.
    DamagedData: a file is malformed, or contradicts itself or another.
  """
  content = _contents(files, where)
  fitted = subword.fit(_read(content, where), content, mask_id, vocab_size)
  return dataclasses.replace(fitted, framed=framed)


def from_files_for_new_model(
  files: Files, *, causal: bool, where: str
) -> SubwordTokenizer:
  """The tokenizer of a model that is still to be trained.

  Its mask is the tokenizer's own, or else one more id behind the last token.

  Args:
    files: as for `from_files`.
    causal: whether the model does without a mask.
    where: as for `from_files`.

  Raises:
    BadInput: as `from_files`.
    DamagedData: as `from_files`.
  """
  content = _contents(files, where)
  definition = _read(content, where)
  count = max(definition.vocabulary) + 1
  if count > _MOST_UNUSED + 2 * len(definition.vocabulary):
    raise BadInput(
      f'{definition.source}: token {quoted(definition.vocabulary[count - 1])} has id '
      f'{count - 1}, of only {len(definition.vocabulary)} tokens; wanted ids without '
      'large gaps for a new model, which has an embedding for each'
    )
  if causal:
    return subword.fit(definition, content, None, count)
  mask_id = count if definition.mask_id is None else definition.mask_id
  return subword.fit(definition, content, mask_id, max(count, mask_id + 1))


def mask_for(files: Files, vocab_size: int, where: str) -> int:
  """The id of a mask for a model that was trained without one.

  The tokenizer's own, or else the first id behind its tokens; that may be one more
  than the model has.

  Args:
    files: as for `from_files`.
    vocab_size: ids of the model's embedding.
    where: as for `from_files`.

  Raises:
    BadInput: as `from_files`.
    DamagedData: as `from_files`.
  """
  definition = _read(_contents(files, where), where)
  if definition.mask_id is not None:
    return definition.mask_id
  return min(max(definition.vocabulary) + 1, vocab_size)


def _contents(files: Files, where: str) -> dict[str, bytes]:
  return {name: read_bytes(files, name, where) for name in files}


def _read(content: dict[str, bytes], where: str) -> Definition:
  by_sentencepiece = definition_file(content, where).endswith('.model')
  reader = sentencepiece if by_sentencepiece else huggingface
  return reader.read(content, where)
