import numpy as np
import pytest
from scipy import linalg

from scmdm_jax.domains.images import measures


def scipy_distance(first, second):
  """The formula with a general matrix square root."""
  gap = first.mean(0) - second.mean(0)
  one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
  root = linalg.sqrtm(one @ other)
  return gap @ gap + np.trace(one + other - 2 * root.real)


def test_the_distance_is_that_with_a_matrix_square_root():
  rng = np.random.default_rng(0)
  mix, other = rng.standard_normal((2, 8, 8))
  first = rng.standard_normal((200, 8)) @ mix
  second = rng.standard_normal((150, 8)) @ other + 0.5
  # Products of 8 x 8 in float64: far below 1e-9.
  found = measures.frechet_distance(first, second)
  assert found == pytest.approx(scipy_distance(first, second), rel=1e-9)
  assert found == pytest.approx(measures.frechet_distance(second, first), rel=1e-9)


def exactly(mean, deviations):
  """Features whose sample mean and covariance, a diagonal one, are these exactly."""
  dim = len(deviations)
  corners = np.concatenate([np.eye(dim), -np.eye(dim)])  # Variance 2 / (2 D - 1).
  return np.array(mean) + corners * np.array(deviations) * np.sqrt(dim - 0.5)


def test_two_gaussians_in_closed_form():
  # Diagonal covariances: sum of (m1 - m2)^2 + (s1 - s2)^2.
  first, second = exactly([0, 1, 2], [1, 2, 3]), exactly([2, 1, -1], [4, 2, 1])
  np.testing.assert_allclose(
    np.cov(first, rowvar=False), np.diag([1, 4, 9]), atol=1e-12
  )
  wanted = (4 + 0 + 9) + (9 + 0 + 4)
  assert measures.frechet_distance(first, second) == pytest.approx(wanted, rel=1e-12)


def test_fewer_images_than_features():
  rng = np.random.default_rng(1)
  first, second = rng.standard_normal((2, 5, 40))
  # Singular covariances. In their common subspace the formula of a regular one holds.
  basis = linalg.orth(np.concatenate([first, second]).T)
  found = measures.frechet_distance(first, second)
  assert found == pytest.approx(
    scipy_distance_regularized(first @ basis, second @ basis), rel=1e-3
  )
  # Equal sets, up to the root of the rounding of eigenvalues that are zero.
  assert abs(measures.frechet_distance(first, first)) < 1e-5


def scipy_distance_regularized(first, second, eps=1e-9):
  gap = first.mean(0) - second.mean(0)
  one, other = (np.cov(x, rowvar=False) for x in (first, second))
  ridge = eps * np.eye(len(one))
  root = linalg.sqrtm((one + ridge) @ (other + ridge)).real
  return gap @ gap + np.trace(one + other - 2 * root)


def test_real_against_real_is_nearer_than_against_shuffled_values():
  rng = np.random.default_rng(2)
  smooth = np.cumsum(rng.standard_normal((600, 12)), axis=1)
  shuffled = rng.permuted(smooth[:200], axis=1)
  real = measures.frechet_distance(smooth[200:400], smooth[400:])
  assert measures.frechet_distance(shuffled, smooth[400:]) > 5 * real


@pytest.mark.parametrize(('first', 'second'), [((1, 3), (5, 3)), ((4, 0), (4, 0))])
def test_too_few_images_are_refused(first, second):
  with pytest.raises(ValueError, match='wanted at least two images each'):
    measures.frechet_distance(np.zeros(first), np.zeros(second))


def test_accuracy_by_hand():
  logits = np.float32([[0, 2, 1], [5, 0, 0], [0, 0, 1], [9, 9.5, 0]])
  assert measures.class_accuracy(logits, np.array([1, 0, 1, 1])) == 0.75
  assert measures.class_accuracy(logits, np.array([1, 0, 2, 7])) == 0.75


def test_the_nearest_by_a_loop():
  rng = np.random.default_rng(3)
  references, found_for = rng.integers(0, 16, (70, 9)), rng.integers(0, 16, (300, 9))
  found_for[5] = references[42]
  wanted = [
    min(np.sqrt(np.mean(((a - b) / 15) ** 2)) for b in references) for a in found_for
  ]
  found = measures.nearest_distances(found_for, references, top=15)
  # Which of two nearly equal ones is nearer is decided in float32.
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert found[5] == 0


def test_strays_are_counted_and_blackened():
  content = np.array([[0, 15, 16], [3, 25, 4]])
  assert measures.stray_rate(content, 16) == pytest.approx(2 / 6)
  assert measures.without_strays(content, 16).tolist() == [[0, 15, 0], [3, 0, 4]]


def test_classes_take_turns():
  labels = np.array([2, 2, 0, 1, 2, 0])
  assert measures.in_turn(labels).tolist() == [2, 3, 0, 5, 1, 4]
