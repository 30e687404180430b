"""Token ids of examples to batches, with grain.

Shapes: `N` records, `B` global batch size, `P` processes, `L` sequence length.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.errors import BadInput
from scmdm_jax.models.attention import AttentionMask


class Rows(Protocol):
  """Random access to examples, int32 `[L]` each."""

  def __len__(self) -> int:
    """How many there are."""
    ...

  def __getitem__(self, index: int, /) -> np.ndarray:
    """The example at `index`, from 0."""
    ...


@runtime_checkable
class Answers(Rows, Protocol):
  """Rows with positions that are learnt, given the rest, and padding at their end.

  Attributes:
    lengths: int [N], tokens before the padding.
    sizes: int [N], the length that each row is cut to, at least its own: few different
      ones, each of which is compiled for.
    padding_is_target: whether the padding is learnt, and so attended to.
  """

  lengths: np.ndarray
  sizes: np.ndarray
  padding_is_target: bool

  def target(self, index: int, /) -> np.ndarray:
    """Which positions of the example are learnt, bool `[L]`."""
    ...


def spread(rows: Rows, count: int) -> list[np.ndarray]:
  """Returns at most `count` of the rows, at even distances over all of them.

  Neighbouring rows of a text are of one document, so the first ones are of few.
  """
  return [rows[i] for i in spread_indices(len(rows), count)]


def spread_indices(total: int, count: int) -> np.ndarray:
  """Returns at most `count` of `total` indices, at even distances, int [N]."""
  count = min(count, total)
  return np.arange(count) * total // max(count, 1)


class HeldoutBatch(NamedTuple):
  """A batch of a finite pass.

  Attributes:
    tokens: int32 `[B / P, L]`.
    real: bool `[B / P]`, False for the copies that fill up the last batch.
    target: bool `[B / P, L]`, what is scored, given the rest; None: everything.
    mask: see `Batch`.
  """

  tokens: np.ndarray
  real: np.ndarray
  target: np.ndarray | None = None
  mask: AttentionMask | None = None

  @property
  def scored(self) -> np.ndarray:
    """How many positions of each example are scored, int `[B / P]`."""
    if self.target is None:
      return np.full(len(self.tokens), self.tokens.shape[1])
    return self.target.sum(-1)


def training_batches(
  rows: Rows,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
  """Endless shuffled batches, the same for the same arguments.

  Every epoch has its own order; the records that do not fill a last batch are left
  out of it (others each time). The order of the global batches does not depend on
  `process_count`: process `p` holds the `p`-th of `P` equal runs of rows of each.

  `get_state()` is a small dict of plain values that says where the next batch starts;
  `set_state()` on an iterator made with the same arguments continues exactly there.

  Args:
    rows: the `N` examples: `packing.PackedRows`, say; the batches of
      `Answers` are each of one size.
    batch_size: `B`, of all processes together; a multiple of `process_count`.
    seed: determines every epoch's order.
    process_index: which of the processes this is.
    process_count: `P`.

  Returns:
    Iterator over batches of `B / P` examples, NumPy arrays.

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
  own = batch_size // process_count
  parts = []
  grouped = isinstance(rows, Answers)
  for group in _groups(rows, batch_size) if grouped else [range(len(rows))]:
    used = len(group) // batch_size * batch_size
    # Grain's own protocol names the index, which an array does not.
    source = grain.MapDataset.source(group)  # pyright: ignore[reportArgumentType]
    dataset = source.seed(seed).shuffle()
    dataset = dataset.slice(slice(0, used)).batch(own, drop_remainder=True)
    parts.append(dataset.slice(slice(process_index, None, process_count)))
  dataset = parts[0]
  if len(parts) > 1:
    dataset = grain.MapDataset.concatenate(parts).seed(seed).shuffle()
  read = functools.partial(_read, rows, batch_size, process_index * own, len(dataset))
  dataset = dataset.repeat().map_with_index(read)
  # One thread: the records are in memory, more would only contend for the interpreter.
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  return iter(dataset.to_iter_dataset(options))


def heldout_batches(
  rows: Rows,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  chosen: np.ndarray | None = None,
) -> Iterator[HeldoutBatch]:
  """One pass over the records in order, in batches of one shape (`Answers`: a few).

  The last batch is filled up with copies of the last record, marked in `real`, so a
  mean over the real rows does not depend on `batch_size`. All processes yield the
  same number of batches.

  Arguments and errors as `training_batches`; fewer records than a batch are fine.
  `chosen` int [M] are the records that are wanted; None: all.
  """
  _check(len(rows), batch_size, process_index, process_count)
  chosen = np.arange(len(rows)) if chosen is None else chosen
  own = batch_size // process_count

  def batches() -> Iterator[HeldoutBatch]:
    for group in _groups(rows, 1, chosen):
      for start in range(0, len(group), batch_size):
        first = start + process_index * own
        at = np.arange(first, first + own)
        tokens, target, mask, _ = _examples(rows, group[np.minimum(at, len(group) - 1)])
        yield HeldoutBatch(tokens, at < len(group), target, mask)

  return batches()


def _groups(
  rows: Rows, least: int, chosen: np.ndarray | None = None
) -> list[np.ndarray]:
  """The indices of rows (or of those `chosen`) by size, each int [M].

  A size of which there are fewer than `least` joins the next larger one, and the
  largest the one before it.
  """
  chosen = np.arange(len(rows)) if chosen is None else chosen
  if not isinstance(rows, Answers):
    return [chosen]
  groups, waiting = [], chosen[:0]
  for size in np.unique(rows.sizes[chosen]):
    waiting = np.sort(np.append(waiting, chosen[rows.sizes[chosen] == size]))
    if len(waiting) >= least:
      groups.append(waiting)
      waiting = chosen[:0]
  if len(waiting):
    rest = groups.pop() if groups else chosen[:0]
    groups.append(np.sort(np.append(rest, waiting)))
  return groups


def _read(
  rows: Rows,
  batch_size: int,
  first: int,
  per_epoch: int,
  step: int,
  numbers: np.ndarray,
) -> Batch:
  """The batch of a step, of the records `numbers`.

  Args:
    rows: all of them.
    batch_size: `B`.
    first: where in the batch the own part begins.
    per_epoch: steps of an epoch.
    step: counted from 0.
    numbers: int [B / P].
  """
  epoch, step = divmod(step, per_epoch)
  tokens, target, mask, padding = _examples(rows, numbers)
  facts: dict[str, Any] = {
    'tokens': tokens,
    'number': np.asarray(numbers, np.int32),
    'epoch': np.full(len(numbers), epoch, np.int32),
    'place': (step * batch_size + first + np.arange(len(numbers))).astype(np.int32),
    'target': target,
    'mask': mask,
    'padding': padding,
  }
  return Batch(**facts)


def _examples(
  rows: Rows, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, AttentionMask | None, np.ndarray | None]:
  """Tokens, targets, mask and padding of records, as in `Batch`."""
  tokens = np.stack([rows[int(i)] for i in numbers])
  if not isinstance(rows, Answers):
    return tokens, None, None, None
  size = int(rows.sizes[numbers].max())
  lengths = np.minimum(rows.lengths[numbers], size).astype(np.int32)
  target = np.stack([rows.target(int(i))[:size] for i in numbers])
  facts: dict[str, Any] = {'lengths': lengths}
  mask = None if rows.padding_is_target else AttentionMask(**facts)
  return tokens[:, :size], target, mask, size - lengths


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
