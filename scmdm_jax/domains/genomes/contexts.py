"""Bits of stretches under counts of which base follows which.

A model of the next base that no training makes: an interpolated model of counts
(`judges.ngrams.Contexts`) of the `BEFORE` bases before it, the species and the place,
in this order of importance. Ours, as the n-gram bits of texts: what a sampler gets
wrong between bases that lie near each other costs bits, whatever a network thinks.

Legend: `N` stretches, `L` length of a row, its species among it, `P` = L - 1 bases.
"""

import numpy as np

from scmdm_jax.domains.genomes.measures import BASES
from scmdm_jax.judges.ngrams import Contexts

BEFORE = 7


class Following:
  """The model of training stretches.

  Args:
    bases: codes 0 to 4 for A, C, G, T and N, uint8 [N, P].
    species: numbers [N] below `num_species`.
    num_species: how many there are.

  Raises:
    ValueError: so many contexts do not fit 63 bits.
  """

  def __init__(self, bases: np.ndarray, species: np.ndarray, num_species: int):
    edge = len(BASES)  # Beyond the start of a stretch.
    sizes = (bases.shape[1], num_species, *(BEFORE * [edge + 1]), edge)
    self._counts = Contexts(_windows(bases, species), sizes)

  def bits(self, bases: np.ndarray, species: np.ndarray) -> float:
    """Mean of -log2 p over the bases of stretches [N, P] of species [N]."""
    found = self._counts.log_probs(_windows(bases, species))
    return float(-found.mean() / np.log(2))


def _windows(bases: np.ndarray, species: np.ndarray) -> np.ndarray:
  """Place, species, the bases before, the farthest first, base: int32 [N P, K]."""
  length = bases.shape[1]
  padded = np.pad(bases, ((0, 0), (BEFORE, 0)), constant_values=len(BASES))
  before = [padded[:, back : back + length] for back in range(BEFORE)]
  columns = np.broadcast_arrays(
    np.arange(length), np.asarray(species)[:, None], *before, bases
  )
  return np.stack([c.ravel().astype(np.int32) for c in columns], axis=1)
