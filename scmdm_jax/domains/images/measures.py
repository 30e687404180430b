"""How close generated images are to real ones, and whether they are copies.

Legend: `N` images, `M` reference images, `D` features, `P` values of an image.

- **Frechet distance**: of two Gaussians with the means and covariances (divisor N - 1)
  of the features of two sets, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), as in FID
  (arXiv 1706.08500); which features, the caller decides. It is biased upwards for small
  sets and noisy for any, so that it means something only beside the distance of as many
  real held-out images to the same reference: the floor.
- **Class accuracy**: share of images that a classifier puts into the class they were
  drawn for; beside it that of real held-out images.
- **Nearest distance**: mean over images of the root mean squared difference to the
  nearest training image, on a scale of 0 to 1. Held-out images have one, too; a model
  that copies training images is nearer to them than those are.
- **Stray rate**: share of positions behind the class that hold a class. They are shown
  as level 0 to every other measure.
"""

from collections.abc import Sequence

import numpy as np

_BLOCK = 256  # Images that are compared with all references at once.


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
  """The distance between the features `[N, D]` and `[M, D]` of two sets, in float64.

  The square root is of the symmetric S1^(1/2) S2 S1^(1/2), which has the eigenvalues of
  S1 S2: real and, but for rounding, not negative, also where a covariance is singular.

  Raises:
    ValueError: a set has fewer than two images, or there are no features.
  """
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  if min(len(first), len(second)) < 2 or not first.shape[1]:
    raise ValueError(
      f'features {first.shape} and {second.shape}; wanted at least two images each'
    )
  gap = first.mean(0) - second.mean(0)
  covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second)]
  values, vectors = np.linalg.eigh(covariances[0])
  root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
  product = np.linalg.eigvalsh(root @ covariances[1] @ root)
  total = sum(np.trace(covariance) for covariance in covariances)
  return float(gap @ gap + total - 2 * np.sqrt(product.clip(0)).sum())


def class_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
  """Share of the largest logits `[N, classes]` that stand at the labels `[N]`.

  A label outside the classes (a model that was given none may draw none) is missed.
  """
  return float((np.asarray(logits).argmax(1) == np.asarray(labels)).mean())


def nearest_distances(
  images: np.ndarray, references: np.ndarray, top: float
) -> np.ndarray:
  """Root mean squared difference to the nearest reference, float64 `[N]`.

  Args:
    images: `[N, P]`, from 0 to `top`.
    references: `[M, P]`, likewise.
    top: the largest value.
  """
  scaled = np.asarray(references, np.float32) / np.float32(top)
  squares = np.einsum('mp,mp->m', scaled, scaled)
  found = []
  for start in range(0, len(images), _BLOCK):
    block = np.asarray(images[start : start + _BLOCK], np.float32) / np.float32(top)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a b finds the nearest; its distance is computed
    # again, since the difference of large numbers says nothing of that of a copy.
    nearest = (squares[None] - 2 * block @ scaled.T).argmin(1)
    gaps = block.astype(np.float64) - scaled[nearest]
    found.append(np.sqrt((gaps**2).mean(1)))
  return np.concatenate(found)


def stray_rate(content: np.ndarray, levels: int) -> float:
  """Share of tokens `[N, P]` behind the class that are no level."""
  return float((np.asarray(content) >= levels).mean())


def without_strays(content: np.ndarray, levels: int) -> np.ndarray:
  """The tokens `[N, P]` with level 0 where there is no level."""
  return np.where(np.asarray(content) < levels, content, 0)


def in_turn(labels: np.ndarray) -> np.ndarray:
  """An order of the labels int `[N]` in which every class has its turn, int64 `[N]`.

  The first image of every class, in the order of classes, then the second of each, ...
  """
  labels = np.asarray(labels)
  return np.lexsort((labels, _ranks(labels)))


def of_counts(
  labels: np.ndarray, counts: Sequence[int] | np.ndarray, turn: int = 0
) -> np.ndarray:
  """Which images have given numbers of every class, int64 `[<= sum of counts]`.

  The mix of classes that samples have, so that it does not add to a distance.

  Args:
    labels: int `[N]`.
    counts: of class 0, 1, ...; of a class with fewer images, there are all of them.
    turn: 0 for the first so many of each, 1 for the next, ...
  """
  order, ranks = in_turn(labels), _ranks(labels)
  wanted = np.asarray(counts)[labels]
  kept = (turn * wanted <= ranks) & (ranks < (turn + 1) * wanted)
  return order[kept[order]]


def sets_of_counts(
  labels: np.ndarray, counts: Sequence[int], most: int
) -> list[np.ndarray]:
  """Disjoint sets as of `of_counts`, one at least, but for the first only whole ones.

  Of samples of every class in turn each set goes on where the last one ended.
  """
  there = np.bincount(labels, minlength=len(counts))
  if is_in_turn(counts):
    order, size = in_turn(labels), sum(counts)
    ends = range(2 * size, len(counts) * int(there.min()) + 1, size)
    further = [order[end - size : end] for end in ends[: most - 1]]
  else:
    wanted = [(n, count) for n, count in zip(there, counts, strict=True) if count]
    turns = min((n // count for n, count in wanted), default=0)
    further = [of_counts(labels, counts, i) for i in range(1, min(turns, most))]
  return [of_counts(labels, counts), *further]


def is_in_turn(counts: Sequence[int]) -> bool:
  """Whether every class is there as often as the others, or once more."""
  return min(counts) > 0 and max(counts) - min(counts) <= 1


def _ranks(labels: np.ndarray) -> np.ndarray:
  """How many of the same label stand before each, int64 `[N]`."""
  ranks = np.empty(len(labels), np.int64)
  for label in np.unique(labels):
    places = np.flatnonzero(labels == label)
    ranks[places] = np.arange(len(places))
  return ranks
