import numpy as np
import pytest

from scmdm_jax.domains.images import rows as image_rows
from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.errors import BadInput

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), np.uint8)
LABELS = np.uint8([7, 0, 9])


def test_a_row_is_the_class_and_channel_row_column():
  tokenizer = PixelTokenizer(256)
  rows = image_rows.to_rows(PIXELS, LABELS, tokenizer)
  for image, label, row in zip(PIXELS, LABELS, rows, strict=True):
    values = [image[h, w, c] for c in range(2) for h in range(4) for w in range(4)]
    assert row.tolist() == [256 + int(label), *values]


@pytest.mark.parametrize('levels', range(2, 257))
def test_levels_are_equal_shares_and_come_back(levels):
  values = np.arange(256, dtype=np.uint8)
  found = image_rows.quantize(values, levels)
  assert found.tolist() == [value * levels // 256 for value in range(256)]
  shown = image_rows.dequantize(np.arange(levels, dtype=np.uint8), levels)
  assert (shown[0], shown[-1]) == (0, 255)
  assert image_rows.quantize(shown, levels).tolist() == list(range(levels))


def test_pictures_come_back_and_strays_are_black():
  tokenizer = PixelTokenizer(256)
  rows = image_rows.to_rows(PIXELS, LABELS, tokenizer)
  assert np.array_equal(image_rows.from_rows(rows, (2, 4, 4), tokenizer), PIXELS)
  rows[1, 1 + 16 + 4 + 2] = 260  # Channel 1, row 1, column 2.
  found = image_rows.from_rows(rows, (2, 4, 4), tokenizer)
  wanted = PIXELS.copy()
  wanted[1, 1, 2, 1] = 0
  assert np.array_equal(found, wanted)


def test_box_average_rounds_half_up():
  found = image_rows.box_average(PIXELS, 2)
  for n, h, w, c in np.ndindex(3, 2, 2, 2):
    box = PIXELS[n, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, c].astype(float)
    assert found[n, h, w, c] == np.floor(box.mean() + 0.5)
  halves = np.uint8([[0, 1], [1, 0]])[None, :, :, None]
  assert image_rows.box_average(halves, 1).item() == 1
  assert image_rows.box_average(PIXELS, 0) is PIXELS


def test_flips_follow_the_images_and_keep_the_class():
  rows = image_rows.to_rows(PIXELS, LABELS, PixelTokenizer(256))
  found = image_rows.ImageRows(rows, (2, 4, 4), flip=True)
  assert len(found) == 6 and found[0].dtype == np.int32
  mirrored = image_rows.to_rows(PIXELS[:, :, ::-1], LABELS, PixelTokenizer(256))
  for i in range(3):
    assert np.array_equal(found[i], rows[i])
    assert np.array_equal(found[3 + i], mirrored[i])
  assert not np.array_equal(found[3], found[0])
  with pytest.raises(IndexError):
    found[6]
  assert np.array_equal(np.stack([found[i] for i in range(3)]), rows)  # Left alone.
  assert len(image_rows.ImageRows(rows, (2, 4, 4))) == 3


def test_the_side_divides():
  assert image_rows.grid_of('fashion_mnist', 0) == (1, 28, 28)
  assert image_rows.grid_of('cifar10', 8) == (3, 8, 8)
  with pytest.raises(
    BadInput, match=r'data\.side: found 5; wanted 0 or a divisor of 28'
  ):
    image_rows.grid_of('fashion_mnist', 5)
