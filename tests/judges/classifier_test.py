import numpy as np
import pytest

from scmdm_jax.judges.classifier import accuracy, macro_f1, rank_auroc


def test_macro_f1_by_hand():
  wanted = np.array([0, 0, 0, 1, 1, 2])
  found = np.array([0, 0, 1, 1, 1, 0])
  # Class 0: tp 2, fp 1, fn 1; class 1: tp 2, fp 1, fn 0; class 2: tp 0.
  f1 = (2 * 2 / 6 + 2 * 2 / 5 + 0) / 3
  assert macro_f1(wanted, found, 3) == pytest.approx(f1)
  # A fourth class that nobody has counts as 0.
  assert macro_f1(wanted, found, 4) == pytest.approx(f1 * 3 / 4)
  assert accuracy(wanted, found) == pytest.approx(4 / 6)


def test_macro_f1_of_guessing_one_class():
  # By the formula 2 / (C + 1) for the one class, 0 for the others: 4 equal classes.
  wanted = np.repeat(np.arange(4), 10)
  assert macro_f1(wanted, np.zeros(40, int), 4) == pytest.approx(2 / 5 / 4)
  assert macro_f1(wanted, wanted, 4) == 1.0


def test_auroc_is_the_share_of_pairs():
  rng = np.random.default_rng(0)
  positive, negative = rng.integers(2, 9, 30), rng.integers(0, 7, 21)
  pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
  assert rank_auroc(positive, negative) == pytest.approx(np.mean(pairs))
  assert rank_auroc(np.array([2, 3]), np.array([0, 1])) == 1
  assert rank_auroc(np.array([1.0]), np.array([1.0])) == 0.5
