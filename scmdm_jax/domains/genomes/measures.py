"""How much samples of genomes look like the species they were asked to be.

The published protocol (kuleshov-group/discrete-diffusion-guidance,
guidance_eval/ten_species_eval.py), per species against the held-out stretches:

* k-mer distance, k = 3 and 6: the square root of the Jensen-Shannon divergence (natural
  logarithm; `scipy.spatial.distance.jensenshannon`) between the frequencies of all 4^k
  k-mers, pooled over the sequences of a species, then the mean over species weighted by
  their shares of the held-out stretches. As published, k-mers with an N count towards
  the total, but have no frequency of their own; SciPy then scales both sides to sum 1,
  so that they change nothing but the frequencies that are shown. Beside it a distance
  that does see them: all k-mers with an N are one more kind.
* macro F1 of a species classifier, and the area under the ROC curve of a discriminator
  of real and drawn sequences (`classifier.rank_auroc`).

Ours are the error of GC content and the entropy of 6-mers, in nats, pooled over the
sequences of a species: how diverse they are. Four bases are about equally frequent in
any sequence, so that the entropy of single ones says nothing. Bases are codes 0 to 4
for A, C, G, T and N, uint8 `[N, L]`; species are numbers `[N]`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial import distance

BASES = 'ACGTN'
UNKNOWN = BASES.index('N')
KMERS = (3, 6)


class Kmers(NamedTuple):
  """Counts of the k-mers of some sequences.

  counts: int64 `[4^k]` in alphabetical order.
  unknown: how many had an N.
  """

  counts: np.ndarray
  unknown: int

  @property
  def frequencies(self) -> np.ndarray:
    """As published, float64 `[4^k]`: those with an N are in the denominator only."""
    return self.counts / max(self.counts.sum() + self.unknown, 1)

  @property
  def with_unknown(self) -> np.ndarray:
    """Float64 `[4^k + 1]`: those with an N are the last kind."""
    counts = np.append(self.counts, self.unknown)
    return counts / max(counts.sum(), 1)


def bases_of(tokens: np.ndarray, base_ids: Sequence[int]) -> tuple[np.ndarray, float]:
  """Codes of bases, and the share of tokens that are none and were taken for N.

  Args:
    tokens: int32 `[N, L]`, the class left out.
    base_ids: ids of A, C, G, T and N.
  """
  codes = np.full(max(int(tokens.max(initial=0)), max(base_ids)) + 1, 255, np.uint8)
  codes[list(base_ids)] = np.arange(len(BASES), dtype=np.uint8)
  found = codes[tokens]
  stray = found == 255
  return np.where(stray, np.uint8(UNKNOWN), found), float(stray.mean())


def count_kmers(bases: np.ndarray, k: int) -> Kmers:
  """All k-mers of sequences `[N, L]`, overlapping ones, none across two sequences."""
  windows = max(bases.shape[1] - k + 1, 0)
  numbers = np.zeros((len(bases), windows), np.int64)
  known = np.ones(numbers.shape, bool)
  for offset in range(k):
    letters = bases[:, offset : offset + windows]
    numbers = 4 * numbers + letters
    known &= letters < UNKNOWN
  counts = np.bincount(numbers[known], minlength=4**k)
  return Kmers(counts, int((~known).sum()))


def js_distance(p: np.ndarray, q: np.ndarray) -> float:
  """Square root of the Jensen-Shannon divergence in nats, of 0 to sqrt(log 2).

  Both are scaled to sum 1. NaN if one of them is all zero.
  """
  if not p.sum() or not q.sum():
    return float('nan')
  # Rounding may leave a tiny negative divergence of equal frequencies.
  with np.errstate(invalid='ignore'):
    found = float(distance.jensenshannon(p, q))
  return 0.0 if np.isnan(found) else found


def gc_content(bases: np.ndarray) -> float:
  """Share of C and G among the known bases; NaN if there are none."""
  known = int((bases < UNKNOWN).sum())
  strong = int(((bases == 1) | (bases == 2)).sum())
  return strong / known if known else float('nan')


class Reference(NamedTuple):
  """What real sequences of every species are like, for `compare_genomes`.

  kmers: by species, then by k.
  gc: by species.
  shares: of the species among the sequences, float64 `[S]`.
  """

  kmers: tuple[Mapping[int, Kmers], ...]
  gc: tuple[float, ...]
  shares: np.ndarray


def reference_of(bases: np.ndarray, species: np.ndarray, num_species: int) -> Reference:
  """The reference of real sequences `[N, L]` of species `[N]`."""
  own = [bases[species == s] for s in range(num_species)]
  return Reference(
    tuple({k: count_kmers(b, k) for k in KMERS} for b in own),
    tuple(gc_content(b) for b in own),
    np.array([len(b) for b in own]) / len(bases),
  )


def compare_genomes(
  bases: np.ndarray, species: np.ndarray, real: Reference
) -> list[dict[str, float]]:
  """How far the sequences of every species are from real ones.

  Args:
    bases: codes `[N, L]`.
    species: what each was asked to be, `[N]`.
    real: see `Reference`.

  Returns:
    For every species of which there are sequences on both sides: its number `species`
    and its `share` of the reference; `js_distance_3` and `js_distance_6` as published,
    `js_distance_3_n` and `js_distance_6_n` with k-mers with an N as one more kind;
    `kmer_entropy` of 6-mers without an N, NaN if there are none; and `gc_error`, the
    absolute difference of the shares of C and G.
  """
  found = []
  for s, (kmers, gc) in enumerate(zip(real.kmers, real.gc, strict=True)):
    own = bases[species == s]
    if not len(own) or not real.shares[s]:
      continue
    figures: dict[str, float] = {'species': s, 'share': float(real.shares[s])}
    for k in KMERS:
      counted = count_kmers(own, k)
      figures[f'js_distance_{k}'] = js_distance(
        kmers[k].frequencies, counted.frequencies
      )
      figures[f'js_distance_{k}_n'] = js_distance(
        kmers[k].with_unknown, counted.with_unknown
      )
    counts = count_kmers(own, KMERS[-1]).counts
    entropy = float(stats.entropy(counts)) if counts.any() else math.nan
    figures['kmer_entropy'] = entropy
    figures['gc_error'] = abs(gc_content(own) - gc)
    found.append(figures)
  return found


def weighted_mean(by_species: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The figures of `compare_genomes`, species weighted by their shares; {} of none.

  Weights of species that are missing go to the others.
  """
  total = sum(figures['share'] for figures in by_species)
  return {
    name: sum(f['share'] * f[name] for f in by_species) / total
    for name in (by_species[0] if by_species else ())
    if name not in ('species', 'share')
  }
