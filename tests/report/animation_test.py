"""Animations, decoded again by Pillow."""

import base64
import io
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageSequence, features

from scmdm_jax.report import animation, compare, pictures

README = pathlib.Path(__file__).parents[2] / 'docs' / 'trajectory.webp'
# Three positions in three steps: two masked in the first frame, one in the second.
TOKENS = {
  'obstacle': '',
  'steps': [1, 2, 3],
  'length': 3,
  'samples': [
    {
      'title': title,
      'shown': [['C', 'N', ' '], ['C', 'O', ' '], ['C', '<i>', ' ']],
      'state': ['w81', 'f8w', 'fwf'],
      'entropy': [3.0, 1.5, 0.6],
    }
    for title in ('with', 'without')
  ],
}


def frames(webp):
  """RGB pixels of every frame, each uint8 [H, W, 3]."""
  file = Image.open(io.BytesIO(webp))
  assert file.format == 'WEBP'
  return [np.array(f.convert('RGB')) for f in ImageSequence.Iterator(file)]


def count(pixels, color):
  return int((pixels == np.array(color)).all(-1).sum())


def test_masked_boxes_go_step_by_step():
  shown = frames(animation.animated(TOKENS))
  assert len(shown) == 3 and len({f.shape for f in shown}) == 1
  masked = [count(f, animation.MASKED) for f in shown]
  # As many boxes as are masked, but for the pixels of a letter in each.
  assert masked[0] > masked[1] > masked[2] == 0
  assert masked[0] == pytest.approx(2 * masked[1], rel=0.2)
  new = [count(f, animation.NEW) for f in shown]
  assert min(new) > 0 and new[0] == pytest.approx(new[2], rel=0.2)
  # Each frame adds to the curve and takes nothing away, but for the dot at its end.
  rows = slice(-60, None)
  inks = [(f[rows, 60:] != 255).any(-1).sum() for f in shown]
  assert inks[0] < inks[1] < inks[2]


def test_the_last_frame_stays_longest_and_it_goes_round():
  file = Image.open(io.BytesIO(animation.animated(TOKENS)))
  assert file.info['loop'] == 0
  durations = []
  for i in range(file.n_frames):
    file.seek(i)
    file.load()
    durations.append(file.info['duration'])
  assert durations[-1] > durations[0] == durations[1]


def noisy(levels=256):
  """Pictures that no code makes small, 8 frames of 64 x 64."""
  drawn = np.random.default_rng(0).integers(0, levels, (8, 64, 64, 3), np.uint8)
  uris = [
    f'data:image/png;base64,{base64.b64encode(pictures.png(x)).decode()}' for x in drawn
  ]
  samples = [
    {
      'title': title,
      'pictures': [[u, u] for u in uris],
      'entropy': [8 - i for i in range(8)],
    }
    for title in ('with', 'without')
  ]
  return {
    'obstacle': '',
    'steps': [*range(1, 9)],
    'length': 2,
    'samples': samples,
  }, drawn


def test_pictures_keep_their_pixels_and_frames_go_where_it_is_too_large():
  beliefs, drawn = noisy()
  whole = animation.animated(beliefs, 10_000_000)
  assert len(frames(whole)) == 8
  small = animation.animated(beliefs, len(whole) // 3)
  assert len(small) <= len(whole) // 3
  shown = frames(small)
  assert len(shown) == 2
  # Every pixel of the last picture is there, four times, enlarged without a loss.
  colors = {tuple(c) for c in drawn[-1].reshape(-1, 3)}
  assert colors <= {tuple(c) for c in shown[-1].reshape(-1, 3)}


def test_the_page_has_the_animation_or_says_why_not(results, parse, monkeypatch):
  def page(beliefs):
    shown = results['trajectory'] | {'beliefs': beliefs}
    return compare.render(compare.complete(results | {'trajectory': shown}))

  source = page(TOKENS)
  parse(source)
  [uri] = [
    part.split('"')[0] for part in source.split('src="')[1:] if 'webp' in part[:20]
  ]
  assert base64.b64decode(uri.partition(',')[2]) == animation.animated(TOKENS)
  assert len(uri) <= 4 / 3 * animation.MOST_BYTES + 100
  assert 'Of 3 positions' not in source
  assert 'Of 900 positions the first 3 are shown.' in page(TOKENS | {'length': 900})
  assert 'no animation of what was believed: block_length: 4.' in page(
    {'obstacle': 'block_length: 4'}
  )
  # Of a report of before nothing is said.
  assert 'animation of what' not in compare.render(compare.complete(results))
  monkeypatch.setattr(features, 'check', lambda name: False)
  assert 'no animation of what was believed: the installed Pillow' in page(TOKENS)


def test_the_picture_of_the_readme():
  webp = README.read_bytes()
  assert len(webp) < 500_000
  shown = frames(webp)
  assert 10 <= len(shown) <= 24
  assert {f.shape for f in shown} == {(shown[0].shape[0], 840, 3)}
  assert count(shown[0], animation.MASKED) > 1000
  assert count(shown[-1], animation.MASKED) == 0
