import itertools
import math

import numpy as np
import pytest

from scmdm_jax.domains.text import mauve


def area_by_hand(p, q, points=20_000):
  """The integral of y dx along the frontier, in plain Python and small steps."""

  def kl(a, b):
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

  frontier = []
  for i in range(1, points):
    w = i / points
    r = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
    frontier.append((math.exp(-5 * kl(q, r)), math.exp(-5 * kl(p, r))))
  frontier = [(1.0, 0.0), *frontier, (0.0, 1.0)]
  total = 0.0
  for (x, y), (nearer, higher) in itertools.pairwise(frontier):
    total += (x - nearer) * (y + higher) / 2
  return total


@pytest.mark.parametrize(
  ('p', 'q'),
  [
    ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7)),
    ((0.5, 0.5, 0.0), (0.5, 0.25, 0.25)),
    ((1.0, 0.0, 0.0), (0.2, 0.4, 0.4)),
  ],
)
def test_area_is_that_of_a_fine_integral(p, q):
  found = mauve.area(np.array(p), np.array(q))
  # Trapezoids over 25 mixtures lie outside a convex frontier by about 1 % of it.
  assert found == pytest.approx(area_by_hand(p, q), rel=0.03)
  assert found == pytest.approx(mauve.area(np.array(q), np.array(p)), rel=1e-12)


def test_area_of_equal_and_of_disjoint_histograms():
  p = np.array([3, 1, 6])
  assert mauve.area(p, 7 * p) == pytest.approx(1, abs=1e-12)
  # Disjoint: x = (1 - w)^5, y = w^5, and the integral is 5 B(6, 5) = 1 / 252.
  disjoint = mauve.area(np.array([1, 1, 0]), np.array([0, 0, 1]))
  assert disjoint == pytest.approx(1 / 252, rel=0.03)


def test_clusters_are_counted_by_side():
  rng = np.random.default_rng(0)
  centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
  # 3, 2 and 5 of the first side, 4, 0 and 1 of the second.
  which = np.repeat([0, 1, 2, 0, 2], [3, 2, 5, 4, 1])
  vectors = centres[which] + rng.normal(0, 0.1, (15, 2))
  found = mauve.cluster_counts(vectors, 10, 3, seed=1)
  assert sorted(map(tuple, found.T)) == [(2, 0), (3, 4), (5, 1)]


def test_same_laws_beat_different_ones():
  rng = np.random.default_rng(0)

  def draw(shift):
    return rng.normal(0, 1, (300, 6)) + shift

  real = draw(0)
  scores = [mauve.judge_mauve(draw(shift), real, (0, 1)) for shift in (0, 0.7, 5)]
  plain = [score.mauve for score in scores]
  assert 1 > plain[0] > 0.9 > plain[1] > 0.1 > plain[2]
  smoothed = [score.mauve_smoothed for score in scores]
  assert smoothed == sorted(smoothed, reverse=True)
  # Smoothing takes some of what few texts cost.
  assert smoothed[0] > plain[0]


def test_seeds_vary_it_and_rotations_do_not():
  rng = np.random.default_rng(3)
  ours, real = rng.normal(0, 1, (120, 5)) + 0.3, rng.normal(0, 1, (100, 5))
  single = [mauve.judge_mauve(ours, real, (seed,)).mauve for seed in (0, 1, 2)]
  found = mauve.judge_mauve(ours, real, (0, 1, 2))
  assert found.mauve == pytest.approx(np.mean(single), rel=1e-12)
  assert found.mauve_spread == pytest.approx(np.std(single, ddof=1), rel=1e-12)
  assert found.mauve_spread > 0
  assert mauve.judge_mauve(ours, real, (0,)).mauve_spread == 0
  rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  turned = mauve.judge_mauve(3 * ours @ rotation, 3 * real @ rotation, (0, 1, 2))
  assert turned.to_dict() == pytest.approx(found.to_dict(), rel=1e-9)


def test_refuses_what_has_no_law():
  with pytest.raises(ValueError, match='found 1 and 3 texts, 1 seeds'):
    mauve.judge_mauve(np.zeros((1, 2)), np.zeros((3, 2)), (0,))
  with pytest.raises(ValueError, match='2 texts, 0 seeds'):
    mauve.judge_mauve(np.zeros((2, 2)), np.zeros((2, 2)), ())
