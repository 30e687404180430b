"""Token ids of examples to batches, with grain.

Shapes: `N` records, `B` global batch size, `P` processes, `L` sequence length.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import grain
import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput


class Rows(Protocol):
  """Random access to examples, int32 `[L]` each."""

  def __len__(self) -> int:
    """How many there are."""
    ...

  def __getitem__(self, index: int, /) -> np.ndarray:
    """The example at `index`, from 0."""
    ...


def spread(rows: Rows, count: int) -> list[np.ndarray]:
  """Returns at most `count` of the rows, at even distances over all of them.

  Neighbouring rows of a text are of one document, so the first ones are of few.
  """
  count = min(count, len(rows))
  return [rows[i * len(rows) // count] for i in range(count)]


class HeldoutBatch(NamedTuple):
  """A batch of a finite pass.

  Attributes:
    tokens: int32 `[B / P, L]`.
    real: bool `[B / P]`, False for the copies that fill up the last batch.
  """

  tokens: np.ndarray
  real: np.ndarray


def training_batches(
  rows: Rows,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[np.ndarray]:
  """Endless shuffled batches, the same for the same arguments.

  Every epoch has its own order; the records that do not fill a last batch are left
  out of it (others each time). The order of the global batches does not depend on
  `process_count`: process `p` holds the `p`-th of `P` equal runs of rows of each.

  `get_state()` is a small dict of plain values that says where the next batch starts;
  `set_state()` on an iterator made with the same arguments continues exactly there.

  Args:
    rows: the `N` examples: `Encoded` texts, or `packing.PackedRows`.
    batch_size: `B`, of all processes together; a multiple of `process_count`.
    seed: determines every epoch's order.
    process_index: which of the processes this is.
    process_count: `P`.

  Returns:
    Iterator over int32 `[B / P, L]`.

  Raises:
    BadInput: no records, fewer than a batch, a batch that does not divide, or a
      negative seed; while iterating, what a row raises.
  """
  _check(len(rows), batch_size, process_index, process_count)
  if len(rows) < batch_size:
    raise BadInput(
      f'train.batch_size: {batch_size} is more than the {len(rows)} records of the '
      'dataset; give a smaller one'
    )
  if seed < 0:
    raise BadInput(f'seed: {seed} is negative; give 0 or more')
  used = len(rows) // batch_size * batch_size
  dataset = (
    # Grain's own protocol names the index, which a list does not.
    grain.MapDataset.source(rows)  # pyright: ignore[reportArgumentType]
    .seed(seed)
    .shuffle()
    .slice(slice(0, used))
    .batch(batch_size // process_count, drop_remainder=True)
    .slice(slice(process_index, None, process_count))
    .repeat()
  )
  # One thread: the records are in memory, more would only contend for the interpreter.
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  return iter(dataset.to_iter_dataset(options))


def heldout_batches(
  rows: Rows,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[HeldoutBatch]:
  """One pass over all records in order, in batches of one shape.

  The last batch is filled up with copies of the last record, marked in `real`, so a
  mean over the real rows does not depend on `batch_size`. All processes yield the
  same number of batches.

  Arguments and errors as `training_batches`; fewer records than a batch are fine.
  """
  _check(len(rows), batch_size, process_index, process_count)

  def batches() -> Iterator[HeldoutBatch]:
    for start in range(0, len(rows), batch_size):
      own = batch_size // process_count
      first = start + process_index * own
      indices = range(first, first + own)
      yield HeldoutBatch(
        np.stack([rows[min(i, len(rows) - 1)] for i in indices]),
        np.array([i < len(rows) for i in indices]),
      )

  return batches()


class Encoded:
  """One example per text: its ids, int32 `[L]`, checked as they are made."""

  def __init__(self, source: Sequence[str], tokenizer: Tokenizer, length: int):
    self._source = source
    self._tokenizer = tokenizer
    self._length = length

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> np.ndarray:
    try:
      ids = self._tokenizer.encode(self._source[index], self._length)
    except BadInput as error:
      raise BadInput(f'record {index}: {error}') from error
    check_vocabulary(ids, self._tokenizer, f'record {index}')
    return ids


def check_vocabulary(ids: np.ndarray, tokenizer: Tokenizer, where: str) -> None:
  """Refuses ids outside the vocabulary: compilers clip or wrap them in silence.

  Raises:
    BadInput: names the first one and `where` it is.
  """
  size = tokenizer.vocab_size
  wrong = ids[(ids < 0) | (ids >= size)]
  if wrong.size:
    raise BadInput(
      f'{where}: token id {wrong[0]} is not in [0, {size}), the vocabulary of '
      f'{tokenizer.name}; fix the record or the tokenizer'
    )


def _check(
  records: int, batch_size: int, process_index: int, process_count: int
) -> None:
  if records == 0:
    raise BadInput('dataset: it has no records; give one that has')
  if batch_size < 1 or batch_size % process_count:
    raise BadInput(
      f'batch_size: {batch_size} is not a positive multiple of the {process_count} '
      'processes; change one of them'
    )
  if not 0 <= process_index < process_count:
    raise BadInput(
      f'process_index: {process_index} is not in [0, {process_count}); number the '
      'processes from 0'
    )
