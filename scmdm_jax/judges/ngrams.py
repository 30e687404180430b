"""Measures that no small model can flatter: bits under counts, known words.

An interpolated n-gram model of the training tokens, smoothed as Witten and Bell do
(1991): of a context h met C times, before D different tokens,

  p(x | h) = (count(h x) + D p(x | h')) / (C + D),

h' being h without its first token; below one token of context all tokens are equally
likely. Legend: `N` samples, `L` length, `V` tokens, `K` order.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np


class _Table:
  """Counts of stretches of one length, and of what they begin with.

  Args:
    codes: int64 [M], the stretches as numbers, the last token as the lowest digit.
    base: how many last tokens there can be.
  """

  def __init__(self, codes: np.ndarray, base: int):
    self._base = base
    self._stretches, self._counts = np.unique(codes, return_counts=True)
    heads, inverse = np.unique(self._stretches // base, return_inverse=True)
    self._heads = heads
    self._met = np.bincount(inverse, weights=self._counts)
    self._kinds = np.bincount(inverse)

  def mixed(self, codes: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """p(x | h) of stretches, where `shorter` is p(x | h')."""
    count = _looked_up(self._stretches, self._counts, codes)
    total = _looked_up(self._heads, self._met, codes // self._base)
    different = _looked_up(self._heads, self._kinds, codes // self._base)
    known = (count + different * shorter) / np.maximum(total + different, 1)
    return np.where(total > 0, known, shorter)


class NGrams:
  """Counts of all stretches of up to K tokens.

  Args:
    stream: int [M], the training tokens one after the other.
    vocab_size: V.
    order: K; (V + 1)^K must fit 63 bits, see `fits`.
  """

  def __init__(self, stream: np.ndarray, vocab_size: int, order: int):
    if not fits(vocab_size, order):
      raise ValueError(f'{order}-grams of {vocab_size} tokens do not fit 63 bits')
    self.vocab_size, self.order = vocab_size, order
    stream = np.asarray(stream)
    self._tables = [
      _Table(self._codes(stream[None], n)[0], vocab_size) for n in range(1, order + 1)
    ]

  def _codes(self, rows: np.ndarray, n: int) -> np.ndarray:
    """Stretches of `n` tokens as numbers, int64 [N, L - n + 1]."""
    width = max(rows.shape[1] - n + 1, 0)
    codes = np.zeros((len(rows), width), np.int64)
    for i in range(n):
      codes = codes * self.vocab_size + rows[:, i : i + width]
    return codes

  def log_probs(self, samples: np.ndarray) -> np.ndarray:
    """Log p of every token after the up to K - 1 before it, float64 [N, L]; nats."""
    samples = np.asarray(samples)
    probs = np.full(samples.shape, 1 / self.vocab_size)
    for n, table in enumerate(self._tables, 1):
      probs[:, n - 1 :] = table.mixed(self._codes(samples, n), probs[:, n - 1 :])
    return np.log(probs)

  def bits(self, samples: np.ndarray) -> float:
    """Mean of -log2 p over the tokens that have K - 1 before them."""
    return float(-self.log_probs(samples)[:, self.order - 1 :].mean() / np.log(2))


class Contexts:
  """The same model of values whose contexts are given.

  Args:
    windows: int [M, K], K - 1 values of context, what counts least first, and the value
      that stands in it.
    sizes: of each of the K columns, one more than the largest value it can have.

  Raises:
    ValueError: the product of the sizes does not fit 63 bits.
  """

  def __init__(self, windows: np.ndarray, sizes: Sequence[int]):
    if math.prod(sizes) >= 2**63:
      raise ValueError(f'contexts of sizes {tuple(sizes)} do not fit 63 bits')
    self._sizes = tuple(sizes)
    self._tables = [_Table(codes, sizes[-1]) for codes in self._codes(windows)]

  def _codes(self, windows: np.ndarray) -> Iterator[np.ndarray]:
    """The last 1, 2, ..., K columns as numbers, int64 [M] each."""
    codes, place = np.zeros(len(windows), np.int64), 1
    for column, size in zip(windows.T[::-1], self._sizes[::-1], strict=True):
      codes = codes + column.astype(np.int64) * place
      place *= size
      yield codes

  def log_probs(self, windows: np.ndarray) -> np.ndarray:
    """Log p of the last value of each, float64 [M]; nats."""
    probs = np.full(len(windows), 1 / self._sizes[-1])
    for table, codes in zip(self._tables, self._codes(windows), strict=True):
      probs = table.mixed(codes, probs)
    return np.log(probs)


def fits(vocab_size: int, order: int) -> bool:
  """Returns whether stretches of `order` tokens can be kept apart in 63 bits."""
  return vocab_size**order < 2**63


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """`values` of the sorted `keys` at `wanted`, 0 where there is no such key."""
  i = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  return np.where(keys[i] == wanted, values[i], 0)


def word_rate(texts: Iterable[str], known: Collection[str]) -> float:
  """Share of words that are `known`; 0 without words.

  The first and the last of a text may be cut short, and do not count.
  """
  words = [word for text in texts for word in text.split()[1:-1]]
  return sum(word in known for word in words) / len(words) if words else 0.0
