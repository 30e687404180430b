"""A tokenizer whose tokens are pieces of words, as a checkpoint brings it along."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scmdm_jax.data.tokenizers.protocol import (
  Ranges,
  check_ids,
  quoted,
  undefined_ranges,
)
from scmdm_jax.errors import BadInput

_MASK_TEXT = '<mask>'
_MARKUP = re.compile(r'<mask(?::([0-9]{1,9}))?>')
_END = '<end>'


class Encoder(NamedTuple):
  """A tokenizer's algorithm, reduced so that some ids cannot come out of it.

  ids: text -> ids.
  join: pieces, as the vocabulary writes them -> text.
  definition: what decides the ids, as one string.
  """

  ids: Callable[[str], list[int]]
  join: Callable[[list[str]], str]
  definition: bytes


@dataclasses.dataclass(frozen=True)
class Definition:
  """What the files of a tokenizer say, before it meets a model."""

  source: str  # The file, for messages.
  name: str  # Its name alone.
  vocabulary: dict[int, str]  # Every token.
  special: frozenset[int]  # Ids that text must not yield.
  added: frozenset[int]  # Ids beyond the algorithm's own, the special ones included.
  bos_id: int | None
  eos_id: int | None
  pad_id: int | None
  mask_id: int | None
  unk_id: int | None  # What unknown text becomes, if that can be.
  encoder: Callable[[frozenset[int]], Encoder]  # Without these ids.


@dataclasses.dataclass(frozen=True)
class SubwordTokenizer:
  """Pieces of words; documents are packed, so a text is not framed at its start.

  A sequence is the text, eos, then pads (eos where there is no pad). `files` are the
  contents it was read from, so that a checkpoint can keep them.
  """

  name: str
  tokens: tuple[str, ...]
  bos_id: int | None
  eos_id: int
  pad_id: int
  mask_id: int | None
  undefined_ids: Ranges
  fingerprint: str
  files: Mapping[str, bytes] = dataclasses.field(repr=False, compare=False)
  encoder: Encoder = dataclasses.field(repr=False, compare=False)

  @property
  def vocab_size(self) -> int:
    """Number of ids, undefined ones included."""
    return len(self.tokens)

  @property
  def class_ids(self) -> tuple[int, ...]:
    """None."""
    return ()

  @property
  def invisible_ids(self) -> tuple[int, ...]:
    """Start, end and padding."""
    ids = {self.bos_id, self.eos_id, self.pad_id}
    return tuple(sorted(i for i in ids if i is not None))

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of a text alone, int32 `[N]`; no special id is among them.

    Raises:
      BadInput: the text is not Unicode (it has half of a surrogate pair).
    """
    try:
      text.encode()
    except UnicodeEncodeError as e:
      raise BadInput(
        f'text {quoted(text)}: not Unicode at character {e.start}; wanted a text that '
        'UTF-8 can write'
      ) from e
    return np.array(self.encoder.ids(text), np.int32)

  def encode(self, text: str, length: int) -> np.ndarray:
    """Ids of a text, eos, pads, int32 `[L]`.

    Raises:
      BadInput: the text has more than `L - 1` tokens.
    """
    ids = [*self.encode_text(text).tolist(), self.eos_id]
    return self._filled(text, ids, length, self.pad_id)

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template, int32 `[L]`.

    `<mask>` is one masked position, `<mask:12>` twelve. What follows the template is
    masked too, unless it ends with `<end>`: then eos and pads follow. Each stretch of
    text is encoded for itself.

    Raises:
      BadInput: the template is too long, or the model has no mask.
    """
    if self.mask_id is None:
      raise BadInput(f'prompt {quoted(text)}: the model has no mask, so none is filled')
    closed = text.endswith(_END)
    ids: list[int] = []
    start = 0
    template = text.removesuffix(_END)
    for match in _MARKUP.finditer(template):
      ids += self.encode_text(template[start : match.start()]).tolist()
      # Capped, so that a slip of the finger does not fill the memory.
      ids += [self.mask_id] * min(int(match[1] or 1), length + 1)
      start = match.end()
    ids += self.encode_text(template[start:]).tolist()
    if closed:
      return self._filled(text, [*ids, self.eos_id], length, self.pad_id)
    return self._filled(text, ids, length, self.mask_id)

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of ids `[L]` without start, end and padding; `<mask>` for a mask.

    A mask that the vocabulary itself knows shows as it is written there.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    hidden = self.invisible_ids
    values = check_ids(ids, self.vocab_size)
    return self.encoder.join([self.tokens[i] for i in values if i not in hidden])

  def _filled(self, text: str, ids: list[int], length: int, fill: int) -> np.ndarray:
    if len(ids) > length:
      raise BadInput(
        f'text {quoted(text)}: {len(ids)} or more tokens; wanted at most the length, '
        f'{length}; shorten the text or raise the length'
      )
    filled = np.full(length, fill, np.int32)
    filled[: len(ids)] = ids
    return filled


def fit(
  definition: Definition,
  files: Mapping[str, bytes],
  mask_id: int | None,
  vocab_size: int,
) -> SubwordTokenizer:
  """The tokenizer as a model uses it.

  Args:
    definition: what the files say.
    files: their contents.
    mask_id: the model's mask, whether or not the tokenizer has a token for it; None
      for a causal model.
    vocab_size: ids of the model's embedding.

  Raises:
    BadInput: tokens beyond the embedding, no end token, or a mask that is an ordinary
      token, or the one that starts, ends or pads a text.
  """
  source, vocabulary = definition.source, definition.vocabulary
  last = max(vocabulary)
  if last >= vocab_size:
    raise BadInput(
      f'{source}: token {vocabulary[last]!r} has id {last}; the model has {vocab_size} '
      'ids; wanted the tokenizer of this model'
    )
  eos_id = definition.eos_id
  if eos_id is None:
    raise BadInput(
      f'{source}: no token ends a text; wanted eos_token in tokenizer_config.json '
      'beside it'
    )
  if mask_id is not None:
    _check_mask(definition, mask_id, vocab_size)
  pad_id = eos_id if definition.pad_id is None else definition.pad_id
  forbidden = definition.special | ({mask_id} if mask_id is not None else set())
  encoder = definition.encoder(forbidden)
  named = vocabulary if mask_id is None else {mask_id: _MASK_TEXT} | vocabulary
  framing = json.dumps([definition.bos_id, eos_id, pad_id, mask_id])
  return SubwordTokenizer(
    name=definition.name,
    tokens=tuple(named.get(i, '') for i in range(vocab_size)),
    bos_id=definition.bos_id,
    eos_id=eos_id,
    pad_id=pad_id,
    mask_id=mask_id,
    undefined_ids=undefined_ranges(named, vocab_size),
    fingerprint=hashlib.sha256(encoder.definition + framing.encode()).hexdigest(),
    files=files,
    encoder=encoder,
  )


def _check_mask(definition: Definition, mask_id: int, vocab_size: int) -> None:
  where = f'{definition.source}: the mask id of the model is {mask_id}'
  if not 0 <= mask_id < vocab_size:
    raise BadInput(f'{where}; wanted one of its {vocab_size} ids')
  if definition.mask_id not in (None, mask_id):
    raise BadInput(
      f'{where}, that of the tokenizer {definition.mask_id}; wanted the same'
    )
  for role in ('bos', 'eos', 'pad', 'unk'):
    if getattr(definition, f'{role}_id') == mask_id:
      raise BadInput(f'{where}, which is its {role} token; wanted an id of its own')
  if mask_id in definition.vocabulary and mask_id not in definition.added:
    raise BadInput(
      f'{where}, which is the ordinary token {definition.vocabulary[mask_id]!r}; '
      'wanted an id of its own'
    )
