"""One token per character of a small alphabet."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from scmdm_jax.data.tokenizers.protocol import Ranges, check_ids, quoted
from scmdm_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class CharacterTokenizer:
  """Special tokens, then one token per character.

  A sequence is the text itself, then `[PAD]` up to its length: windows cut from a
  genome or a long text begin and end anywhere, so nothing marks an end. Specials
  cannot be written: a character outside the vocabulary becomes `[UNK]`.
  """

  name: str
  specials: tuple[str, ...]
  characters: str

  @property
  def tokens(self) -> tuple[str, ...]:
    """Specials and characters, in the order of their ids."""
    return (*self.specials, *self.characters)

  @property
  def vocab_size(self) -> int:
    """Number of tokens."""
    return len(self.specials) + len(self.characters)

  @property
  def mask_id(self) -> int:
    """Id of `[MASK]`."""
    return self.specials.index('[MASK]')

  @property
  def pad_id(self) -> int:
    """Id of `[PAD]`."""
    return self.specials.index('[PAD]')

  @property
  def unk_id(self) -> int:
    """Id of `[UNK]`."""
    return self.specials.index('[UNK]')

  @property
  def bos_id(self) -> None:
    """None: the published windows have no start token."""

  @property
  def eos_id(self) -> None:
    """None: nor an end token."""

  @property
  def undefined_ids(self) -> Ranges:
    """Nothing: every id has a token."""
    return ()

  @property
  def files(self) -> Mapping[str, bytes]:
    """Nothing: it is defined here."""
    return {}

  @property
  def class_ids(self) -> tuple[int, ...]:
    """None."""
    return ()

  @property
  def invisible_ids(self) -> tuple[int, ...]:
    """The id of `[PAD]`."""
    return (self.pad_id,)

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) of name, specials and characters."""
    definition = json.dumps([self.name, self.specials, self.characters])
    return hashlib.sha256(definition.encode()).hexdigest()

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of the characters, int32 `[N]`; `[UNK]` for those it does not know.

    A letter counts in either case: genomes write repeats in lower case, and text8 is
    text in lower case.
    """
    table = np.full(128, self.unk_id, np.int32)  # The characters are all ASCII.
    for i, character in enumerate(self.characters, len(self.specials)):
      table[[ord(character), ord(character.swapcase())]] = i
    codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), '<u4')
    return np.where(codes < 128, table[np.minimum(codes, 127)], self.unk_id)

  def encode(self, text: str, length: int) -> np.ndarray:
    """Ids of a text, then pads, int32 `[L]`.

    Raises:
      BadInput: the text has more than `L` characters.
    """
    return self._padded(text, self.encode_text(text), length, fill=self.pad_id)

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template, int32 `[L]`.

    `_` is one masked position. What follows the template is masked too, unless it
    ends with `$`: then pads follow.

    Raises:
      BadInput: the template is too long, or has a character outside the vocabulary.
    """
    template = text.removesuffix('$')
    known = {*self.characters, *self.characters.swapcase()}
    for character in template:
      if character != '_' and character not in known:
        raise BadInput(
          f'prompt {quoted(text)}: {character!r} is not in the vocabulary of '
          f"{self.name}; use {self.characters!r}, '_' for a masked position, and '$' "
          'at the end for the end of the text'
        )
    ids = self.encode_text(template)
    ids[np.array([character == '_' for character in template], bool)] = self.mask_id
    fill = self.pad_id if text.endswith('$') else self.mask_id
    return self._padded(text, ids, length, fill)

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of ids `[L]`, without pads; other specials as `[MASK]`, `[UNK]`.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    tokens = self.tokens
    values = check_ids(ids, self.vocab_size)
    return ''.join(tokens[i] for i in values if i != self.pad_id)

  def _padded(self, text: str, ids: np.ndarray, length: int, fill: int) -> np.ndarray:
    if len(ids) > length:
      raise BadInput(
        f'text {quoted(text)}: {len(ids)} characters; wanted at most the length, '
        f'{length}; cut the text or raise the length'
      )
    padded = np.full(length, fill, np.int32)
    padded[: len(ids)] = ids
    return padded
