"""One token per value of a pixel, and one per class of images."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from scmdm_jax.data.tokenizers.protocol import Ranges, check_ids, quoted
from scmdm_jax.errors import BadInput

CLASSES = 10
_NAME = re.compile('pixels:([1-9][0-9]{0,2})')
_PIECE = re.compile(r'<class [0-9]>|[0-9a-f]{2}|_|.', re.DOTALL)


def is_name(name: str) -> bool:
  """Whether `name` is that of a `PixelTokenizer`, pixels:2 to pixels:256."""
  match = _NAME.fullmatch(name)
  return match is not None and 2 <= int(match[1]) <= 256


class PixelTokenizer:
  """Values 0 to `levels - 1`, which are their own ids; the classes; the mask.

  As text a value is two hexadecimal digits and a class `<class 3>`: an image of class 3
  begins `<class 3>00000a`. A sequence is as long as its text: nothing marks an end, and
  nothing is padded. The mask cannot be written but in a prompt, as `_`.
  """

  bos_id = None
  eos_id = None
  unk_id = None  # Every value has a token.
  pad_id = 0  # Never used: an image has the length of its row.
  undefined_ids: Ranges = ()
  invisible_ids: tuple[int, ...] = ()

  def __init__(self, levels: int):
    self.levels = levels
    self.name = f'pixels:{levels}'
    self.mask_id = levels + CLASSES
    self.vocab_size = self.mask_id + 1
    values = (f'{value:02x}' for value in range(levels))
    self.class_ids = tuple(range(levels, self.mask_id))
    labels = (f'<class {number}>' for number in range(CLASSES))
    self.tokens = (*values, *labels, '_')
    self._ids = {token: i for i, token in enumerate(self.tokens)}
    definition = json.dumps([self.name, self.tokens])
    self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()

  @property
  def files(self) -> Mapping[str, bytes]:
    """Nothing: it is defined here."""
    return {}

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of values and classes, int32 `[N]`.

    Raises:
      BadInput: something else is written there.
    """
    return self._pieces(text, 'text', masks=False)

  def encode(self, text: str, length: int) -> np.ndarray:
    """The same, int32 `[L]`.

    Raises:
      BadInput: as `encode_text`, or another length.
    """
    ids = self.encode_text(text)
    if len(ids) != length:
      raise BadInput(
        f'text {quoted(text)}: {len(ids)} tokens; wanted {length}, the length of a row'
      )
    return ids

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template, int32 `[L]`.

    `_` is one masked position, and what follows the template is masked, too:
    `<class 3>` asks for an image of class 3.

    Raises:
      BadInput: something else is written there, or too much.
    """
    ids = self._pieces(text, 'prompt', masks=True)
    if len(ids) > length:
      raise BadInput(
        f'prompt {quoted(text)}: {len(ids)} tokens; wanted at most {length}, the '
        'length of a row'
      )
    return np.append(ids, np.full(length - len(ids), self.mask_id, np.int32))

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of ids `[L]`.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    return ''.join(self.tokens[i] for i in check_ids(ids, self.vocab_size))

  def _pieces(self, text: str, what: str, masks: bool) -> np.ndarray:
    pieces = _PIECE.findall(text)
    known = self._ids if masks else {**self._ids, '_': None}
    for piece in pieces:
      if known.get(piece) is None:
        raise BadInput(
          f'{what} {quoted(text)}: {piece!r} is not in the vocabulary of {self.name}; '
          f"use two hexadecimal digits from '00' to '{self.levels - 1:02x}' for a "
          f"value, '<class 0>' to '<class {len(self.class_ids) - 1}>'"
          + (", and '_' for a masked position" if masks else '')
        )
    return np.array([self._ids[piece] for piece in pieces], np.int32)


def pixel_tokenizer(name: str) -> PixelTokenizer:
  """The tokenizer of that name, for which `is_name` holds."""
  match = _NAME.fullmatch(name)
  assert match is not None
  return PixelTokenizer(int(match[1]))
