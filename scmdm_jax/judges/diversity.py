"""Diversity of generated token sequences: a low perplexity alone proves little.

Shapes: `N` samples, `L` length. Entropies in nats. Published definition (duo, remdm):
unigram entropy of the token ids within one sample, over all `L` positions, pads
counted, averaged over samples. It falls when samples repeat themselves; pads, which a
short molecule has many of, move it as well, so a variant without them stands beside.
"""

import dataclasses
from collections.abc import Collection, Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class DiversityScores:
  """Diversity of a set of samples.

  Attributes:
    unigram_entropy: mean over samples of the entropy within a sample, all `L`
      positions counted, pads included (published definition).
    unigram_entropy_visible: the same over visible tokens only: no bos, eos or pad.
    pooled_entropy: entropy of all visible tokens of all samples together.
    distinct_4: different 4-grams of visible tokens over their number, pooled.
  """

  unigram_entropy: float
  unigram_entropy_visible: float
  pooled_entropy: float
  distinct_4: float

  def to_dict(self) -> dict[str, float]:
    """Plain numbers by name."""
    return dataclasses.asdict(self)


def judge_diversity(
  samples: np.ndarray, invisible_ids: Collection[int]
) -> DiversityScores:
  """All measures at once.

  Args:
    samples: int `[N, L]` token ids.
    invisible_ids: ids that do not count as text (bos, eos, pad).
  """
  return DiversityScores(
    unigram_entropy=unigram_entropy(samples),
    unigram_entropy_visible=unigram_entropy(samples, invisible_ids),
    pooled_entropy=pooled_entropy(samples, invisible_ids),
    distinct_4=distinct_n(samples, 4, invisible_ids),
  )


def unigram_entropy(samples: np.ndarray, ignored: Collection[int] = ()) -> float:
  """Entropy of the token ids within a sample, averaged over samples.

  Args:
    samples: int `[N, L]` token ids.
    ignored: ids taken out first; a sample with nothing left has entropy 0.

  Returns:
    Nats, in `[0, log L]`; 0 without samples.
  """
  entropies = [_entropy(row) for row in _kept(samples, ignored)]
  return float(np.mean(entropies)) if entropies else 0.0


def pooled_entropy(samples: np.ndarray, ignored: Collection[int] = ()) -> float:
  """Entropy of the token ids of all samples together, in nats.

  Args:
    samples: int `[N, L]` token ids.
    ignored: ids taken out first.
  """
  samples = np.asarray(samples)
  return _entropy(samples[~np.isin(samples, list(ignored))])


def distinct_n(samples: np.ndarray, n: int = 4, ignored: Collection[int] = ()) -> float:
  """Different n-grams over all n-grams, pooled over samples.

  Falls with the number of samples: compare equal numbers only.

  Args:
    samples: int `[N, L]` token ids.
    n: length of an n-gram, at least 1.
    ignored: ids taken out first, so that n-grams run over what is read; a sample with
      fewer than `n` tokens left has none.

  Returns:
    In `[0, 1]`; 0 without n-grams.
  """
  grams = [gram for row in _kept(samples, ignored) for gram in n_grams(row, n)]
  return len(set(grams)) / len(grams) if grams else 0.0


def coverage_n(
  samples: np.ndarray, known: Collection[tuple[int, ...]], ignored: Collection[int] = ()
) -> float:
  """The share of known n-grams that samples have, pooled over samples.

  It rises with the number of samples: compare equal numbers only. Distinct n-grams
  count those that no data have, too, and fewer of these are fewer mistakes; this
  measure does not.

  Args:
    samples: int `[N, L]` token ids.
    known: the different n-grams of data, all of one length.
    ignored: as of `distinct_n`.

  Returns:
    In `[0, 1]`; 0 where none is known.
  """
  if not known:
    return 0.0
  n = len(next(iter(known)))
  found = {gram for row in _kept(samples, ignored) for gram in n_grams(row, n)}
  return len(found.intersection(known)) / len(known)


def n_grams(ids: np.ndarray, n: int) -> Iterator[tuple[int, ...]]:
  """The n-grams of one sequence `[L]` in their order, none of fewer than `n` ids."""
  row = ids.tolist()
  return zip(*(row[i:] for i in range(n)), strict=False)


def _kept(samples: np.ndarray, ignored: Collection[int]) -> list[np.ndarray]:
  samples = np.asarray(samples)
  keep = ~np.isin(samples, list(ignored))
  return [row[mask] for row, mask in zip(samples, keep, strict=True)]


def _entropy(ids: np.ndarray) -> float:
  _, counts = np.unique(ids, return_counts=True)
  shares = counts / counts.sum() if counts.size else np.ones(1)
  return float(-(shares * np.log(shares)).sum()) + 0.0
