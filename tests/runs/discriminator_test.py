"""What a discriminator says of sets whose answer is known."""

import numpy as np
import pytest

from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.runs.discriminator import discriminate

TOKENIZER = get_tokenizer('species:3')


def rows(count, seed, strong=0.5):
  """Random bases, the share `strong` of them C or G."""
  rng = np.random.default_rng(seed)
  weights = [(1 - strong) / 2, strong / 2, strong / 2, (1 - strong) / 2]
  bases = rng.choice(TOKENIZER.base_ids[:4], (count, 32), p=weights)
  classes = rng.choice(TOKENIZER.class_ids, (count, 1))
  return np.concatenate([classes, bases], axis=1).astype(np.int32)


def area(real, drawn, seed=0):
  ids, size = TOKENIZER.class_ids, TOKENIZER.vocab_size
  return discriminate(real, drawn, ids, size, epochs=3, seed=seed)


@pytest.mark.slow
def test_composition_gives_the_drawn_away():
  found = area(rows(300, 1), rows(300, 2, strong=0.8))
  # 32 bases at 0.5 against 0.8: means 16 and 25.6, deviations 2.8 and 2.3, so that the
  # best possible area is 0.996.
  assert found > 0.95


def test_rows_of_one_law_look_the_same():
  # 60 held-out rows: an area of 0.5 has a standard error of 0.075.
  assert abs(area(rows(300, 1), rows(300, 2)) - 0.5) < 4 * 0.075


def test_the_class_of_a_row_says_nothing():
  real, drawn = rows(200, 1), rows(200, 2)
  before = real.copy(), drawn.copy()
  found = area(real, drawn)
  assert np.array_equal(real, before[0]) and np.array_equal(drawn, before[1])
  real[:, 0], drawn[:, 0] = TOKENIZER.class_ids[0], TOKENIZER.class_ids[2]
  assert area(real, drawn) == found


def test_too_few_rows_have_no_area():
  assert area(rows(1, 1), rows(1, 2)) is None
