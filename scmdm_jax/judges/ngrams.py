"""Measures of text that no small model can flatter: n-gram bits, known words.

An interpolated n-gram model of the training tokens, smoothed as Witten and Bell do
(1991): of a context h met C times, before D different tokens,

  p(x | h) = (count(h x) + D p(x | h')) / (C + D),

h' being h without its first token; below one token of context all tokens are equally
likely. Legend: `N` samples, `L` length, `V` tokens, `K` order.
"""

from collections.abc import Collection, Iterable

import numpy as np


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
    self._tables = []
    for n in range(1, order + 1):
      grams, counts = np.unique(self._codes(stream[None], n), return_counts=True)
      heads, inverse = np.unique(grams // vocab_size, return_inverse=True)
      met = np.bincount(inverse, weights=counts)
      self._tables.append((grams, counts, heads, met, np.bincount(inverse)))

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
    for n, (grams, counts, heads, met, kinds) in enumerate(self._tables, 1):
      codes = self._codes(samples, n)
      count = _looked_up(grams, counts, codes)
      total = _looked_up(heads, met, codes // self.vocab_size)
      different = _looked_up(heads, kinds, codes // self.vocab_size)
      shorter = probs[:, n - 1 :]
      known = (count + different * shorter) / np.maximum(total + different, 1)
      probs[:, n - 1 :] = np.where(total > 0, known, shorter)
    return np.log(probs)

  def bits(self, samples: np.ndarray) -> float:
    """Mean of -log2 p over the tokens that have K - 1 before them."""
    return float(-self.log_probs(samples)[:, self.order - 1 :].mean() / np.log(2))


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
