"""Texts as examples, encoded as they are read."""

from scmdm_jax.data.pipeline import check_vocabulary
from scmdm_jax.errors import BadInput


class Encoded:
  """One example per text: its ids, int32 `[L]`, checked as they are made."""

  def __init__(self, source, tokenizer, length):
    self._source = source
    self._tokenizer = tokenizer
    self._length = length

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    try:
      ids = self._tokenizer.encode(self._source[index], self._length)
    except BadInput as error:
      raise BadInput(f'record {index}: {error}') from error
    check_vocabulary(ids, self._tokenizer, f'record {index}')
    return ids
