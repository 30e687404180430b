"""Bits by neighbours against dictionaries, pixel by pixel."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from scmdm_jax.domains.images import domain
from scmdm_jax.domains.images.neighbours import Neighbours
from scmdm_jax.judges.ngrams import Contexts
from tests.domains.images.domain_test import SIXTEEN, measure_of, settings_with

LEVELS, CLASSES = 3, 2


def random_rows(count, grid, seed):
  rng = np.random.default_rng(seed)
  values = rng.integers(0, LEVELS, (count, math.prod(grid)))
  return np.concatenate([LEVELS + rng.integers(0, CLASSES, (count, 1)), values], axis=1)


def written_out(row, grid):
  """(place, class, above right, above, left, value) of every pixel of an image."""
  channels, height, width = grid
  image = {}
  for place, value in enumerate(row[1:]):
    channel, rest = divmod(place, height * width)
    image[channel, rest // width, rest % width] = int(value)
  label = row[0] - LEVELS if LEVELS <= row[0] < LEVELS + CLASSES else 'none'
  for place, (c, y, x) in enumerate(sorted(image)):
    near = [
      image.get(key, 'edge')
      for key in ((c, y - 1, x + 1), (c, y - 1, x), (c, y, x - 1))
    ]
    yield (place, label, *near, image[c, y, x])
  assert len(image) == channels * height * width


def probability(met, context, value):
  """Witten and Bell's, of all stretches anew."""
  followers = collections.Counter(
    m[-1] for m in met if not context or m[-1 - len(context) : -1] == context
  )
  shorter = probability(met, context[1:], value) if context else 1 / LEVELS
  if not followers:
    return shorter
  kinds = len(followers)
  return (followers[value] + kinds * shorter) / (followers.total() + kinds)


@pytest.mark.parametrize('grid', [(1, 3, 3), (3, 2, 2)])
def test_against_the_formula(grid):
  train, samples = random_rows(12, grid, seed=0), random_rows(4, grid, seed=1)
  samples[0, 0] = 0  # A class that is none.
  met = [window for row in train for window in written_out(row, grid)]
  wanted = [
    -math.log2(probability(met, window[:-1], window[-1]))
    for row in samples
    for window in written_out(row, grid)
  ]
  found = Neighbours(train, grid, LEVELS, CLASSES).bits(samples)
  assert found == pytest.approx(np.mean(wanted), rel=1e-12)


def test_images_that_were_counted_cost_less_than_their_pixels_in_another_order():
  rows = np.repeat(random_rows(3, (1, 4, 4), seed=2), 5, axis=0)
  shuffled = rows.copy()
  shuffled[:, 1:] = np.random.default_rng(0).permuted(rows[:, 1:], axis=1)
  model = Neighbours(rows, (1, 4, 4), LEVELS, CLASSES)
  assert model.bits(rows) < 0.5 < model.bits(shuffled)


def test_too_many_contexts_are_refused():
  with pytest.raises(ValueError, match='do not fit 63 bits'):
    Contexts(np.zeros((1, 2), int), (2**32, 2**32))


def test_samples_are_measured_where_it_is_asked_for(tmp_path):
  settings = settings_with(tmp_path)
  train = domain.read_rows(settings.data, SIXTEEN, 'train')
  rows = np.stack([train[i] for i in range(len(train))])
  assert 'neighbour_bits' not in measure_of(settings)(rows)
  evaluate = dataclasses.replace(settings.evaluate, neighbour_images=20)
  found = measure_of(dataclasses.replace(settings, evaluate=evaluate))(rows[20:])
  model = Neighbours(rows[:20], (1, 14, 14), 16, 10)
  assert found['neighbour_bits'] == model.bits(rows[20:])
  test = domain.read_rows(settings.data, SIXTEEN, 'test')
  real = np.stack([test[i] for i in range(len(test))])
  assert found['neighbour_bits_real'] == model.bits(real)
