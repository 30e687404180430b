"""Bits of images under counts of which value stands beside which.

A model of the next value in reading order that no training makes: an interpolated model
of counts (`judges.ngrams.Contexts`) of the values to the left, above and above right,
the class and the place, in this order of importance. Ours: what a sampler gets wrong
between neighbours costs bits, whatever a network thinks of the image.

Legend: `N` images, `L` length of a row, its class among it, `P` = L - 1 values.
"""

import numpy as np

from scmdm_jax.judges.ngrams import Contexts


class Neighbours:
  """The model of training images.

  Args:
    rows: int [N, L], training images, a class and the values of its pixels.
    grid: channels, height and width.
    levels: how many values a pixel can have; classes are numbered from there.
    classes: how many classes there are.

  Raises:
    ValueError: so many contexts do not fit 63 bits; those of 256 levels do.
  """

  def __init__(
    self, rows: np.ndarray, grid: tuple[int, int, int], levels: int, classes: int
  ):
    self._grid, self._levels, self._classes = grid, levels, classes
    # A class that is none, and a neighbour beyond the edge, have numbers of their own.
    sizes = (rows.shape[1] - 1, classes + 1, *(3 * [levels + 1]), levels)
    self._counts = Contexts(self._windows(rows), sizes)

  def _windows(self, rows: np.ndarray) -> np.ndarray:
    """Place, class, value above right, above and to the left, value: [N P, 6]."""
    values = rows[:, 1:].reshape(-1, *self._grid)
    edge = ((0, 0), (0, 0), (1, 0), (1, 1))
    padded = np.pad(values, edge, constant_values=self._levels)
    label = rows[:, 0].astype(np.int64) - self._levels
    label = np.where((label >= 0) & (label < self._classes), label, self._classes)
    columns = (
      np.arange(values[0].size).reshape(self._grid),
      label[:, None, None, None],
      padded[:, :, :-1, 2:],
      padded[:, :, :-1, 1:-1],
      padded[:, :, 1:, :-2],
      values,
    )
    broad = np.broadcast_arrays(*columns)
    return np.stack([c.ravel().astype(np.int32) for c in broad], axis=1)

  def bits(self, rows: np.ndarray) -> float:
    """Mean of -log2 p over the values of images int [N, L]."""
    return float(-self._counts.log_probs(self._windows(rows)).mean() / np.log(2))
