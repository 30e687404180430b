import math

import numpy as np
import pytest
from scipy import stats

from scmdm_jax.judges.diversity import (
  coverage_n,
  distinct_n,
  judge_diversity,
  n_grams,
  pooled_entropy,
  unigram_entropy,
)

BOS, EOS, PAD = 0, 1, 3
INVISIBLE = (BOS, EOS, PAD)


def test_published_entropy_counts_every_position():
  # Counts 1, 2, 1, 4 of 8 positions.
  sample = np.array([[BOS, 15, 15, EOS, PAD, PAD, PAD, PAD]])
  expected = -(2 * math.log(1 / 8) / 8 + math.log(1 / 4) / 4 + math.log(1 / 2) / 2)
  assert unigram_entropy(sample) == pytest.approx(expected)
  assert unigram_entropy(sample, INVISIBLE) == 0.0


def test_entropy_is_the_mean_over_samples_of_scipys():
  samples = np.random.default_rng(0).integers(0, 35, (20, 32))
  each = [stats.entropy(np.bincount(row)) for row in samples]
  assert unigram_entropy(samples) == pytest.approx(np.mean(each), rel=1e-12)


def test_entropy_bounds():
  assert unigram_entropy(np.arange(32)[None]) == pytest.approx(math.log(32))
  assert unigram_entropy(np.full((3, 8), 5)) == 0.0


def test_pooled_entropy_sees_what_samples_differ_in():
  # Each sample is constant, together they are four equally frequent tokens.
  samples = np.repeat([[15], [16], [17], [18]], 8, axis=1)
  assert unigram_entropy(samples) == 0.0
  assert pooled_entropy(samples) == pytest.approx(math.log(4))
  assert pooled_entropy(samples, (17, 18)) == pytest.approx(math.log(2))


def test_distinct_n_by_hand():
  samples = np.array(
    [
      [BOS, 15, 16, 15, 16, EOS, PAD],
      [BOS, 15, 16, PAD, 15, EOS, PAD],
      [BOS, 15, EOS, PAD, PAD, PAD, PAD],
    ]
  )
  # Read: abab, aba, a. Bigrams: ab ba ab, ab ba, none.
  assert distinct_n(samples, 2, INVISIBLE) == pytest.approx(2 / 5)
  # One 4-gram, in the first sample only: samples are not joined.
  assert distinct_n(samples, 4, INVISIBLE) == 1.0
  assert distinct_n(samples, 5, INVISIBLE) == 0.0


def test_coverage_counts_known_n_grams_once():
  samples = np.array([[BOS, 15, 16, 15, EOS, PAD], [BOS, 15, 16, EOS, 17, PAD]])
  known = {(15, 16), (16, 17), (17, 15), (18, 18)}
  # Read: aba, abc. Known: ab (twice), bc; ba is not.
  assert coverage_n(samples, known, INVISIBLE) == 2 / 4
  assert coverage_n(samples, {(15, 16, 15)}, INVISIBLE) == 1
  assert coverage_n(samples, set(), INVISIBLE) == 0


def test_n_grams_of_a_row():
  assert list(n_grams(np.array([5, 6, 7]), 2)) == [(5, 6), (6, 7)]
  assert list(n_grams(np.array([5, 6, 7]), 4)) == []


def test_nothing_visible_is_zero():
  samples = np.array([[BOS, EOS, PAD, PAD]] * 3)
  assert unigram_entropy(samples, INVISIBLE) == 0.0
  assert pooled_entropy(samples, INVISIBLE) == 0.0
  assert distinct_n(samples, 4, INVISIBLE) == 0.0
  assert unigram_entropy(np.zeros((0, 4), np.int32)) == 0.0


def test_all_measures_together():
  samples = np.array([[BOS, 15, 16, 17, 18, EOS, PAD, PAD]] * 2)
  scores = judge_diversity(samples, INVISIBLE).to_dict()
  assert scores == {
    'unigram_entropy': pytest.approx(unigram_entropy(samples)),
    'unigram_entropy_visible': pytest.approx(math.log(4)),
    'pooled_entropy': pytest.approx(math.log(4)),
    'distinct_4': 0.5,
  }
