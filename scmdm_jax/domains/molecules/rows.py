"""Rows of molecules: start, the pieces of a SMILES, end, padding."""

from collections.abc import Callable, Sequence

import numpy as np

from scmdm_jax.data.pipeline import check_vocabulary
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput


class MoleculeRows:
  """Random access to a molecule per row, int32 `[L]`.

  Args:
    texts: SMILES.
    tokenizer: of the run; the start is left out where it has none.
    length: `L`.
    find: SMILES -> where it stands in the source, for messages.
  """

  def __init__(
    self,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    length: int,
    find: Callable[[str], str],
  ):
    self._texts = texts
    self._tokenizer = tokenizer
    self._length = length
    self._find = find
    start = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    end = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    self._frame = (start, end)

  def __len__(self) -> int:
    return len(self._texts)

  def __getitem__(self, index: int) -> np.ndarray:
    text = self._texts[index]
    start, end = self._frame
    ids = np.array(
      [*start, *self._tokenizer.encode_text(text).tolist(), *end], np.int32
    )
    if len(ids) > self._length:
      raise BadInput(
        f'{self._find(text)}: {text!a} takes {len(ids)} tokens with start and end; '
        f'wanted at most data.length = {self._length}; raise it, or remove the molecule'
      )
    check_vocabulary(ids, self._tokenizer, text)
    row = np.full(self._length, self._tokenizer.pad_id, np.int32)
    row[: len(ids)] = ids
    return row
