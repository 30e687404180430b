"""What everything else knows of a tokenizer.

Shapes: `L` is the length of a sequence of ids, special tokens and padding included; `N`
the number of ids of a text alone.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

Ranges = tuple[tuple[int, int], ...]


class Tokenizer(Protocol):
  """What the data pipeline, the sampler and the judges need of a tokenizer.

  No text yields a special id: what looks like a special token is ordinary text.
  """

  @property
  def name(self) -> str:
    """What `get_tokenizer` knows it by, or the file that defines it."""
    ...

  @property
  def tokens(self) -> Sequence[str]:
    """Every token as the vocabulary writes it; a token's id is its position."""
    ...

  @property
  def bos_id(self) -> int | None:
    """Id that starts a text; None where there is none."""
    ...

  @property
  def eos_id(self) -> int | None:
    """Id that ends a text; None where there is none."""
    ...

  @property
  def pad_id(self) -> int:
    """Id that fills a sequence behind its end."""
    ...

  @property
  def unk_id(self) -> int | None:
    """Id that unknown text becomes; None where there is none, or no such text."""
    ...

  @property
  def mask_id(self) -> int | None:
    """Id of the mask; None for a causal model, which has none."""
    ...

  @property
  def vocab_size(self) -> int:
    """Number of ids, the mask's and undefined ones included."""
    ...

  @property
  def undefined_ids(self) -> Ranges:
    """Half-open ranges (start, stop) of ids that no token has, nor the mask."""
    ...

  @property
  def class_ids(self) -> tuple[int, ...]:
    """Ids of classes, one of which begins every row; none where there are none."""
    ...

  @property
  def invisible_ids(self) -> tuple[int, ...]:
    """Ids that `decode` leaves out of the text."""
    ...

  @property
  def fingerprint(self) -> str:
    """SHA-256 (hex) of the definition: equal means same ids for every text."""
    ...

  @property
  def files(self) -> Mapping[str, bytes]:
    """The files that define it, by name; none for one that is built in."""
    ...

  def encode_text(self, text: str) -> np.ndarray:
    """Ids of a text alone, unframed, int32 `[N]`."""
    ...

  def encode(self, text: str, length: int) -> np.ndarray:
    """Ids of a text, framed and padded, int32 `[L]`."""
    ...

  def encode_prompt(self, text: str, length: int) -> np.ndarray:
    """Ids of a template with masked positions, int32 `[L]`."""
    ...

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Text of a sequence of ids."""
    ...


def undefined_ranges(defined: Collection[int], vocab_size: int) -> Ranges:
  """Half-open ranges of what `[0, vocab_size)` has beside `defined`."""
  bounds = [-1, *sorted(set(defined)), vocab_size]
  return tuple(
    (before + 1, after)
    for before, after in itertools.pairwise(bounds)
    if before + 1 < after
  )


def check_ids(ids: Sequence[int] | np.ndarray, vocab_size: int) -> list[int]:
  """The ids as plain integers.

  Raises:
    ValueError: an id is outside `[0, vocab_size)`.
  """
  values = np.asarray(ids).tolist()
  for value in values:
    if not 0 <= value < vocab_size:
      raise ValueError(f'token id {value} is not in [0, {vocab_size})')
  return values


def up_to_end(
  samples: np.ndarray, starts: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
  """Samples with pads behind the end of what was written after their prompt.

  Args:
    samples: int32 `[N, L]`.
    starts: int32 `[N, L]`, what they were drawn from: their prompts, the rest masked. A
      row without a prompt stays as it is.
    tokenizer: of the samples; without an end token all stay as they are.
  """
  given = starts != tokenizer.mask_id
  behind = np.cumsum(given[:, ::-1], axis=1)[:, ::-1] == 0
  ends = behind & (samples == (-1 if tokenizer.eos_id is None else tokenizer.eos_id))
  over = np.cumsum(ends, axis=1) - ends > 0
  return np.where(over & given.any(axis=1)[:, None], tokenizer.pad_id, samples)


def quoted(text: str) -> str:
  """A text for a message: quoted, its middle left out if it is long."""
  return repr(text if len(text) <= 60 else f'{text[:40]}...{text[-15:]}')
