import base64
import io

import numpy as np
from PIL import Image

from scmdm_jax.domains.images import drawing
from scmdm_jax.domains.images.tokenizer import PixelTokenizer

SIXTEEN = PixelTokenizer(16)


def pixels(uri):
  """The picture of a data URI, uint8 [H, W, 3]."""
  head, _, data = uri.partition(',')
  assert head == 'data:image/png;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))


def test_values_masks_and_strays_have_their_colours():
  found = drawing.picture_of(np.array([0, 15, SIXTEEN.mask_id, 17]), SIXTEEN)
  assert found.tolist() == [
    [[0, 0, 0], [255, 255, 255]],
    [list(drawing.MASKED), list(drawing.STRAY)],
  ]


def test_three_planes_are_red_green_and_blue():
  full = PixelTokenizer(256)
  planes = [255, 0, 0, 128], [0, 255, 0, 128], [0, 0, full.mask_id, 128]
  found = drawing.picture_of(np.array(planes).ravel(), full)
  assert found.tolist() == [
    [[255, 0, 0], [0, 255, 0]],
    [list(drawing.MASKED), [128, 128, 128]],
  ]


def test_every_sample_is_shown_with_its_class():
  rows = np.array([[19, 0, 15, 15, 0], [16, 15, 0, 0, 0]])
  first, second = drawing.show(rows, SIXTEEN)
  picture = pixels(first['image'])
  assert picture.shape == (8, 8, 3)  # Four times as large as they are.
  assert picture[::4, ::4, 0].tolist() == [[0, 255], [255, 0]]
  assert pixels(second['image'])[::4, ::4, 0].tolist() == [[255, 0], [0, 0]]
  assert [one['caption'] for one in (first, second)] == ['class 3', 'class 0']


def test_levels_are_those_of_the_tokenizer():
  (found,) = drawing.show(np.array([[7, 0, 1, 2, 3]]), PixelTokenizer(4))
  assert pixels(found['image'])[::4, ::4, 0].tolist() == [[0, 85], [170, 255]]
