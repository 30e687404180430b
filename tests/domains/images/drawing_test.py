import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from scmdm_jax.domains.images import drawing
from scmdm_jax.report import sections


def pictures_in(html):
  """The PNG pictures of a page, uint8 [H, W, 3] each."""
  found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
  return [
    np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))
    for data in found
  ]


def test_values_masks_and_strays_have_their_colours():
  tokens = ['00', '0f', '_', '<class 1>']
  found = drawing.picture_of(tokens, 16).tolist()
  assert found == [
    [[0, 0, 0], [255, 255, 255]],
    [list(drawing._MASKED), list(drawing._STRAY)],
  ]


def test_three_planes_are_red_green_and_blue():
  planes = ['ff', '00', '00', '80'], ['00', 'ff', '00', '80'], ['00', '00', '_', '80']
  found = drawing.picture_of([t for plane in planes for t in plane], 256).tolist()
  assert found == [
    [[255, 0, 0], [0, 255, 0]],
    [list(drawing._MASKED), [128, 128, 128]],
  ]


def test_the_gallery_shows_every_sample_with_its_class():
  html = drawing.gallery_html(['<class 3>000f0f00', '<class 0>0f000000'], 16)
  first, second = pictures_in(html)
  assert first.shape == (8, 8, 3)  # Four times as large as they are.
  assert first[::4, ::4, 0].tolist() == [[0, 255], [255, 0]]
  assert second[::4, ::4, 0].tolist() == [[255, 0], [0, 0]]
  assert re.findall('<figcaption>([^<]*)<', html) == ['class 3', 'class 0']


def test_levels_are_those_of_the_tokenizer_that_a_checkpoint_brought_along():
  report = {
    'domain': 'images',
    'tokenizer': 'pixels:4:9',
    'config': {'data': {'tokenizer': 'checkpoint'}},
    'gallery': {'rate 1': ['<class 3>00010203']},
  }
  (found,) = pictures_in(sections.gallery(report))
  assert found[::4, ::4, 0].tolist() == [[0, 85], [170, 255]]


@pytest.mark.parametrize(('steps', 'frames'), [(4, 5), (100, 16)])
def test_the_film_runs_from_all_masked_to_the_image(steps, frames):
  tokens = [['<class 7>', *('_' if i > s * 4 / steps else '0f' for i in range(1, 5))]
            for s in range(steps + 1)]  # fmt: skip
  shown = {
    'arm': 'rate <1>',
    'num_steps': steps,
    'tokens': tokens,
    'masked': [[token == '_' for token in row] for row in tokens],
  }
  html = drawing.film_html(shown, 16, conditioned=True)
  found = pictures_in(html)
  assert len(found) == frames
  assert np.all(found[0] == drawing._MASKED) and np.all(found[-1] == 255)
  assert 'step 0<br>4 masked' in html and f'step {steps}<br>0 masked' in html
  assert 'rate &lt;1&gt;' in html and 'previous prediction' in html
  assert 'No signal' in drawing.film_html(shown, 16, conditioned=False)
