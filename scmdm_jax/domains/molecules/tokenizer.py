"""SMILES of QM9: one token per atom, bond, ring digit or bracket."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from scmdm_jax.data.tokenizers.protocol import Ranges, check_ids, quoted
from scmdm_jax.errors import BadInput


class SmilesTokenizer:
  """SMILES of QM9, one token per atom, bond, ring digit or bracket.

  The vocabulary of `yairschiff/qm9-tokenizer`: five special tokens and the 30 tokens
  that occur in QM9. A sequence is `<bos>`, the text, `<eos>`, then `<pad>` up to its
  length (32 in the published protocol).

  Ids come from the pieces of the text alone: the special tokens cannot be written, so
  the text `<mask>` is six unknown pieces, and no text yields the mask id.
  """

  name = 'smiles_qm9'
  tokens = (
    *('<bos>', '<eos>', '<mask>', '<pad>', '<unk>'),
    *('#', '(', ')', '-', '1', '2', '3', '4', '5', '=', 'C', 'F', 'N', 'O'),
    *('[C-]', '[CH-]', '[N+]', '[N-]', '[NH+]', '[NH2+]', '[NH3+]', '[O-]'),
    *('[c-]', '[cH-]', '[n-]', '[nH+]', '[nH]', 'c', 'n', 'o'),
  )
  bos_id, eos_id, mask_id, pad_id, unk_id = range(5)
  vocab_size = len(tokens)
  undefined_ids: Ranges = ()
  files: Mapping[str, bytes] = MappingProxyType({})
  class_ids: tuple[int, ...] = ()
  invisible_ids = (bos_id, eos_id, pad_id)

  # A bracket atom, a two-letter atom and a two-digit ring number are one piece each;
  # every other character is its own.
  pattern = r'\[[^\]]*\]|Br|Cl|%[0-9]{2}|.'

  def __init__(self):
    self._pieces = re.compile(self.pattern, re.DOTALL)
    self._unclosed = re.compile(self.pattern.partition('|')[2], re.DOTALL)
    specials = {self.bos_id, self.eos_id, self.mask_id, self.pad_id, self.unk_id}
    self._ids = {token: i for i, token in enumerate(self.tokens) if i not in specials}
    definition = json.dumps([self.name, self.tokens, self.pattern])
    self._fingerprint = hashlib.sha256(definition.encode()).hexdigest()

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) of name, tokens and pattern."""
    return self._fingerprint

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of the pieces, int32 `[N]`; `<unk>` for those outside the vocabulary."""
    pieces = self._split(text)
    return np.array([self._ids.get(piece, self.unk_id) for piece in pieces], np.int32)

  def encode(self, text: str, length: int) -> np.ndarray:
    """Ids of a SMILES.

    Args:
      text: the SMILES; a piece outside the vocabulary becomes `<unk>`.
      length: `L`; the text may have up to `L - 2` pieces.

    Returns:
      int32 `[L]`: bos, the pieces, eos, pads.

    Raises:
      BadInput: the text is too long. The published tokenizer would cut it, which
        turns it into another molecule.
    """
    ids = self.encode_text(text).tolist()
    self._check_length(text, len(ids), length)
    return self._framed([*ids, self.eos_id], length, fill=self.pad_id)

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template for infilling.

    In the template, `_` is one masked position. What follows the template is masked
    too, unless it ends with `$`: then the molecule ends there. `C_=O` is bos, C, a
    masked position, =, O and masks; `C_=O$` has eos and pads instead of the masks.

    Args:
      text: the template.
      length: `L`; the template may have up to `L - 2` positions.

    Returns:
      int32 `[L]`.

    Raises:
      BadInput: the template is too long or has a piece outside the vocabulary.
    """
    closed = text.endswith('$')
    ids = []
    for piece in self._split(text.removesuffix('$')):
      if piece != '_' and piece not in self._ids:
        raise BadInput(
          f'prompt {quoted(text)}: {piece!r} is not in the vocabulary of '
          f"{self.name}; use its tokens {list(self._ids)}, '_' for a masked "
          "position, and '$' at the end for the end of the molecule"
        )
      ids.append(self._ids.get(piece, self.mask_id))
    self._check_length(text, len(ids), length)
    if closed:
      return self._framed([*ids, self.eos_id], length, fill=self.pad_id)
    return self._framed(ids, length, fill=self.mask_id)

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of a sequence, as the published evaluation reads it.

    Every bos, eos and pad is removed wherever it stands; what follows an eos is kept.
    A left-over `<mask>` or `<unk>` stays in the text, which makes the SMILES invalid.

    Args:
      ids: `[L]`, each in `[0, vocab_size)`.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    values = check_ids(ids, self.vocab_size)
    return ''.join(self.tokens[i] for i in values if i not in self.invisible_ids)

  def _split(self, text: str) -> list[str]:
    """The pieces of a text, in a time that grows with its length only."""
    # A bracket that nothing closes would be followed to the end of the text, each time.
    closed = text.rfind(']') + 1
    head, rest = text[:closed], text[closed:]
    # Pieces do not reach across: a bracket is the only one that ends there.
    return [*self._pieces.findall(head), *self._unclosed.findall(rest)]

  def _check_length(self, text: str, count: int, length: int) -> None:
    if count > length - 2:
      raise BadInput(
        f'text {quoted(text)}: {count} tokens; length {length} leaves room for '
        f'{max(length - 2, 0)} between <bos> and <eos>; shorten the text or raise the '
        'length'
      )

  def _framed(self, ids: list[int], length: int, fill: int) -> np.ndarray:
    framed = np.full(length, fill, np.int32)
    framed[0] = self.bos_id
    framed[1 : len(ids) + 1] = ids
    return framed
