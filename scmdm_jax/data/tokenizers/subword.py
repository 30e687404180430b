"""A tokenizer whose tokens are pieces of words, as a checkpoint brings it along."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scmdm_jax.data.tokenizers import template
from scmdm_jax.data.tokenizers.protocol import (
  Ranges,
  check_ids,
  quoted,
  undefined_ranges,
)
from scmdm_jax.errors import BadInput

_MASK_TEXT = '<mask>'
_ROLES = ('bos', 'eos', 'pad', 'mask', 'unk')


class Encoder(NamedTuple):
  """A tokenizer's algorithm, reduced so that some ids cannot come out of it.

  ids: text -> ids.
  spans: text -> where each of its tokens stands, (start, stop) in characters.
  join: pieces, as the vocabulary writes them -> text.
  definition: what decides the ids, as one string.
  """

  ids: Callable[[str], list[int]]
  spans: Callable[[str], list[tuple[int, int]]]
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
  own: frozenset[int]  # Ids in the algorithm's own vocabulary.
  bos_id: int | None
  eos_id: int | None
  pad_id: int | None
  mask_id: int | None
  unk_id: int | None  # What unknown text becomes, if that can be.
  encoder: Callable[[frozenset[int]], Encoder]  # Without these ids.


@dataclasses.dataclass(frozen=True)
class SubwordTokenizer:
  """Pieces of words.

  A sequence is the text, eos, then pads (eos where there is no pad). `files` are the
  contents it was read from, so that a checkpoint can keep them. `framed` says that the
  rows its model was trained on begin with bos (eos where there is none), so that
  prompts do, too.
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
  framed: bool = False
  unk_id: int | None = None
  # Special tokens by how they are written, which no text yields.
  specials: Mapping[str, int] = dataclasses.field(default_factory=dict, compare=False)

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
    """Ids of a template, int32 `[L]`; see `template` for what it may hold.

    What follows the template is masked too, unless it is closed: then eos and pads
    follow. Each stretch of text is encoded for itself.

    Raises:
      BadInput: the template is too long, has a near miss of its own markup, or the
        model has no mask.
    """
    if self.mask_id is None:
      raise BadInput(f'prompt {quoted(text)}: the model has no mask, so none is filled')
    start = self.eos_id if self.bos_id is None else self.bos_id
    tokens = (self.tokens[i] for i in (self.mask_id, start, self.eos_id, self.pad_id))
    parsed = template.parse(text, template.Written(*tokens))
    ids = [start] if self.framed or parsed.started else []
    for part in parsed.parts:
      if isinstance(part, str):
        ids += self.encode_text(part).tolist()
      else:  # Capped, so that a slip of the finger does not fill the memory.
        ids += [self.mask_id] * min(part, length + 1)
    if parsed.closed:
      return self._filled(text, [*ids, self.eos_id], length, self.pad_id)
    return self._filled(text, ids, length, self.mask_id)

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of ids `[L]`; `<mask>` for a mask, unless the vocabulary has its own.

    Start, end and padding are left out, but for an end between two texts: there it
    shows where one ends and another begins, as `one</s>another`.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    values = check_ids(ids, self.vocab_size)
    runs = itertools.groupby(values, key=lambda i: i in (self.bos_id, self.eos_id))
    texts = [
      self.encoder.join([self.tokens[i] for i in run if i != self.pad_id])
      for is_mark, run in runs
      if not is_mark
    ]
    return self.tokens[self.eos_id].join(filter(None, texts))

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
    BadInput: tokens beyond the embedding, no end token, a special token that texts
      need, or a mask that is an ordinary token, or the one that starts, ends or pads a
      text.
  """
  source, vocabulary = definition.source, definition.vocabulary
  last = max(vocabulary)
  if last >= vocab_size:
    raise BadInput(
      f'{source}: token {quoted(vocabulary[last])} has id {last}; the model has '
      f'{vocab_size} ids; wanted the tokenizer of this model'
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
  _check_ordinary(definition, encoder, forbidden)
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
    unk_id=definition.unk_id,
    specials={named[i]: i for i in sorted(forbidden & named.keys()) if named[i]},
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
      without = ', or no pad_token: eos pads then' if role == 'pad' else ''
      raise BadInput(
        f'{where}, which is its {role} token; wanted an id of its own: name another '
        f'{role}_token in tokenizer_config.json beside it{without}'
      )
  if mask_id in definition.vocabulary and mask_id not in definition.added:
    raise BadInput(
      f'{where}, which is the ordinary token {quoted(definition.vocabulary[mask_id])}; '
      'wanted an id of its own'
    )


def _check_ordinary(
  definition: Definition, encoder: Encoder, forbidden: frozenset[int]
) -> None:
  """Refuses a special token without which a text would not come back from its ids.

  A text that has such a token, an exclamation mark for example, would lose it. What is
  written as markup, `[PAD]` or `</s>`, is left to become unknown where nothing else
  can spell it.
  """

  def back(encoder: Encoder, text: str) -> str | None:
    try:
      return encoder.join([definition.vocabulary[i] for i in encoder.ids(text)])
    except BadInput:  # It knows no such word, and nothing for unknown ones.
      return None

  for i in sorted(forbidden & definition.own):
    token = definition.vocabulary[i]
    text = encoder.join([token]).replace('▁', ' ')  # SentencePiece's mark of a space.
    if template.MARKUP.fullmatch(text):
      continue
    # Repeated, too: a piece that begins a word is another than one inside it.
    lost = [x for x in (text, 3 * text) if '\ufffd' in x or back(encoder, x) != x]
    whole = definition.encoder(frozenset()) if lost else encoder
    # A replacement character is one byte of a longer character.
    if all('\ufffd' not in x and back(encoder, x) == back(whole, x) for x in lost):
      continue
    roles = [r for r in _ROLES if getattr(definition, f'{r}_id') == i]
    what = ' and '.join(f'its {r}_token' for r in roles) or 'one of its special tokens'
    raise BadInput(
      f'{definition.source}: {quoted(token)} is {what}, and an ordinary token that '
      'texts would lose; wanted a token of its own there, or null'
    )
