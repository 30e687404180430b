"""Rotations against complex numbers."""

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models.rotary import rotate, rotate_in_grid

BATCH, LENGTH, HEADS, SIZE = 2, 7, 3, 8


def test_multiplies_pairs_by_unit_complex_numbers():
  x = np.random.default_rng(0).standard_normal((BATCH, LENGTH, HEADS, SIZE))
  x = x.astype(np.float32)
  base = 10000.0
  # Component j pairs with j + K / 2 and turns by position * base^(-2 j / K).
  pairs = x[..., : SIZE // 2] + 1j * x[..., SIZE // 2 :]
  speed = base ** (-2 * np.arange(SIZE // 2) / SIZE)
  angles = np.arange(LENGTH)[:, None] * speed
  turned = pairs * np.exp(1j * angles)[None, :, None]
  found = np.asarray(rotate(x, base))
  np.testing.assert_allclose(found[..., : SIZE // 2], turned.real, atol=1e-5)
  np.testing.assert_allclose(found[..., SIZE // 2 :], turned.imag, atol=1e-5)
  assert np.array_equal(found[:, 0], x[:, 0])
  np.testing.assert_allclose(
    np.linalg.norm(found, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
  )


def test_scores_depend_on_the_distance_only():
  rng = np.random.default_rng(1)
  q, k = rng.standard_normal((2, 1, 1, 1, SIZE)).astype(np.float32)
  # The same query and key at every position.
  q, k = (np.broadcast_to(x, (1, LENGTH, 1, SIZE)) for x in (q, k))
  q, k = np.asarray(rotate(q, 100.0))[0, :, 0], np.asarray(rotate(k, 100.0))[0, :, 0]
  scores = q @ k.T
  for distance in range(1 - LENGTH, LENGTH):
    diagonal = np.diagonal(scores, distance)
    np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
  # And they do depend on it, and on its sign.
  assert abs(scores[0, 3] - scores[0, 0]) > 0.01
  assert abs(scores[0, 3] - scores[3, 0]) > 0.01


def test_bfloat16_turns_by_exact_angles():
  x = np.random.default_rng(2).standard_normal((1, 1000, 1, SIZE))
  x = x.astype(ml_dtypes.bfloat16)
  found = rotate(x, 10000.0)
  assert found.dtype == ml_dtypes.bfloat16
  wanted = np.asarray(rotate(x.astype(np.float32), 10000.0))
  # Only the result is rounded; position 999 itself would be off by up to 1 radian.
  np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=2**-8, atol=1e-6)


def test_a_program_holds_cosines_and_sines_once():
  def run(x):
    for _ in range(3):
      x = rotate(x, 10000.0)
    return x

  x = np.zeros((BATCH, LENGTH, HEADS, SIZE), np.float32)
  text = jax.jit(run).lower(x).as_text()
  wide = [line for line in text.splitlines() if 'stablehlo.constant dense<[' in line]
  assert len(wide) == 2


@pytest.mark.parametrize(
  # Pairs that turn with row, column and channel.
  ('grid', 'size', 'counts'),
  [((1, 2, 3), 8, (2, 2, 0)), ((3, 2, 2), 32, (6, 6, 4)), ((1, 3, 2), 10, (2, 2, 1))],
)
def test_an_image_turns_by_row_and_column(grid, size, counts):
  channels, height, width = grid
  places = [(0, 0, 0)] + [
    (row + 1, column + 1, channel)
    for channel in range(channels)
    for row in range(height)
    for column in range(width)
  ]
  x = np.random.default_rng(3).standard_normal((1, len(places), 2, size))
  x = x.astype(np.float32)
  wanted = x.copy()
  for position, place in enumerate(places):
    pair = 0
    for coordinate, count in zip(place, counts, strict=True):
      for j in range(count):
        angle = coordinate / 100 ** (j / count)
        cos, sin = np.cos(angle), np.sin(angle)
        first, second = x[0, position, :, pair], x[0, position, :, pair + size // 2]
        wanted[0, position, :, pair] = first * cos - second * sin
        wanted[0, position, :, pair + size // 2] = second * cos + first * sin
        pair += 1
    assert pair == size // 2
  found = np.asarray(rotate_in_grid(x, grid))
  # Cosines of float32 angles up to 4.
  np.testing.assert_allclose(found, wanted, atol=2e-6)
