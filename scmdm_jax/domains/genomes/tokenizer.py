"""One token per base, and one per species."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from scmdm_jax.data.tokenizers.characters import CharacterTokenizer
from scmdm_jax.data.tokenizers.protocol import check_ids, quoted
from scmdm_jax.errors import BadInput

# Ids as in the published models: HyenaDNA's and Caduceus' characters for UDLM's genomes
# (yairschiff/ten_species).
DNA = CharacterTokenizer(
  'dna',
  ('[CLS]', '[SEP]', '[BOS]', '[MASK]', '[PAD]', '[RESERVED]', '[UNK]'),
  'ACGTN',
)
PREFIX = 'species:'
_CLASS = re.compile(r'<class (\d{1,4})>')
_COMPLEMENTS = dict(zip('ACGTN', 'TGCAN', strict=True))


def is_name(name: str) -> bool:
  """Whether `name` is that of a `SpeciesTokenizer`: species:2 to species:1000."""
  count = name.removeprefix(PREFIX)
  return (
    name.startswith(PREFIX)
    and re.fullmatch('[1-9][0-9]{0,3}', count) is not None
    and 2 <= int(count) <= 1000
  )


@dataclasses.dataclass(frozen=True)
class SpeciesTokenizer(CharacterTokenizer):
  """The tokens of `DNA` with their ids, then a class per species.

  As text a row begins with its class: `<class 3>ACGT`. Only there is it read as one.
  """

  classes: int = 0

  @property
  def tokens(self) -> tuple[str, ...]:
    """Specials, bases and classes, in the order of their ids."""
    return (*super().tokens, *(f'<class {i}>' for i in range(self.classes)))

  @property
  def vocab_size(self) -> int:
    """Number of tokens."""
    return super().vocab_size + self.classes

  @property
  def class_ids(self) -> tuple[int, ...]:
    """Ids of the classes, in their order."""
    return tuple(range(super().vocab_size, self.vocab_size))

  @property
  def base_ids(self) -> tuple[int, ...]:
    """Ids of A, C, G, T and N."""
    return tuple(range(len(self.specials), super().vocab_size))

  def row(self, species: int, bases: bytes) -> np.ndarray:
    """The class of a species and its bases, A C G T N only, int32 `[1 + bases]`."""
    table = np.zeros(256, np.int32)
    for base, token in zip(self.characters, self.base_ids, strict=True):
      table[ord(base)] = token
    content = table[np.frombuffer(bases, np.uint8)]
    return np.concatenate([self._id_of(species), content])

  def reverse_complement(self, row: np.ndarray) -> np.ndarray:
    """A row read on the other strand, of the same class."""
    table = np.arange(self.vocab_size, dtype=np.int32)
    for base, token in zip(self.characters, self.base_ids, strict=True):
      table[token] = self.base_ids[self.characters.index(_COMPLEMENTS[base])]
    return np.concatenate([row[:1], table[row[:0:-1]]])

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of a class, where the text begins with one, and bases, int32 `[N]`."""
    head, rest = self._split(text)
    return np.concatenate([head, super().encode_text(rest)])

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template, int32 `[L]`; its class is masked if it names none.

    Raises:
      BadInput: as `CharacterTokenizer.encode_prompt`, or no such class.
    """
    head, rest = self._split(text)
    if not len(head):
      head = np.array([self.mask_id], np.int32)
    return np.concatenate([head, super().encode_prompt(rest, length - 1)])

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of ids `[L]`, without pads; a class as `<class 3>`, wherever it stands.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    tokens = self.tokens
    values = check_ids(ids, self.vocab_size)
    return ''.join(tokens[i] for i in values if i != self.pad_id)

  def _id_of(self, species: int) -> np.ndarray:
    return np.array([self.class_ids[species]], np.int32)

  def _split(self, text: str) -> tuple[np.ndarray, str]:
    """The id of the class that a text begins with, int32 `[0 or 1]`, and the rest."""
    match = _CLASS.match(text)
    if match is None:
      return np.zeros(0, np.int32), text
    if int(match[1]) >= self.classes:
      raise BadInput(
        f'text {quoted(text)}: class {match[1]}; {self.name} has {self.classes}, '
        'counted from 0'
      )
    return self._id_of(int(match[1])), text[match.end() :]


def species_tokenizer(name: str) -> SpeciesTokenizer:
  """The tokenizer of that name, for which `is_name` holds."""
  classes = int(name.removeprefix(PREFIX))
  return SpeciesTokenizer(name, DNA.specials, DNA.characters, classes)
