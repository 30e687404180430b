"""Generated images on the page: a gallery, and a film strip of how one came about.

Samples come as their tokens' text: `<class 3>`, two hexadecimal digits for a value, `_`
where it is still masked (data/tokenizers/pixels). Pictures are PNG in the page itself.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scmdm_jax.report import pictures, text, trajectory

_TOKEN = re.compile(r'<class [0-9]>|[0-9a-f]{2}|_')
_SCALE = 4
_FRAMES = 16  # Of a film, at most.
# What no value has: masked pixels, and other tokens in the place of one.
_MASKED, _STRAY = (120, 150, 190), (200, 60, 60)


def gallery_html(samples: Sequence[str], levels: int) -> str:
  """Pictures with their classes below them.

  Args:
    samples: texts of rows.
    levels: of a value; the last is white.
  """
  tiles = []
  for sample in samples:
    label, *tokens = _TOKEN.findall(sample)
    picture = _img(pictures.png(picture_of(tokens, levels), _SCALE), 'drawn image')
    caption = text.escape(label.strip('<>'))
    tiles.append(f'<figure>{picture}<figcaption>{caption}</figcaption></figure>')
  return f'<div class="pictures">{"".join(tiles)}</div>'


def film_html(shown: Mapping[str, Any], levels: int, *, conditioned: bool) -> str:
  """The image after some of the steps, masked pixels in blue.

  Args:
    shown: the trajectory, as `trajectory.trajectory_html` has it.
    levels: of a value.
    conditioned: whether the arm carries a signal from step to step.
  """
  steps = len(shown['tokens']) - 1
  frames = []
  for step in sorted({round(i * steps / (_FRAMES - 1)) for i in range(_FRAMES)}):
    picture = picture_of(shown['tokens'][step][1:], levels)
    hidden = sum(shown['masked'][step])
    image = _img(pictures.png(picture, _SCALE), f'after step {step}')
    caption = f'step {step}<br>{hidden} masked'
    frames.append(f'<figure>{image}<figcaption>{caption}</figcaption></figure>')
  label = text.escape(shown['tokens'][-1][0].strip('<>'))
  return (
    f'<p>One image, {label}. Arm <b>{text.escape(shown["arm"])}</b>, '
    f'{text.escape(shown["num_steps"])} steps, of which some are shown; masked pixels '
    f'are blue. {trajectory.carried(conditioned)}</p>'
    f'<div class="pictures">{"".join(frames)}</div>'
  )


def picture_of(tokens: Sequence[str], levels: int) -> np.ndarray:
  """The tokens of values, channel by channel, as a picture uint8 `[S, S, 3]`.

  Args:
    tokens: of a square image with one or three channels.
    levels: of a value.
  """
  channels = 1 if math.isqrt(len(tokens)) ** 2 == len(tokens) else 3
  side = math.isqrt(len(tokens) // channels)
  planes = np.array(tokens).reshape(channels, side, side)
  values = np.zeros((side, side, 3), np.uint8)
  for row, column in np.ndindex(side, side):
    pixel = planes[:, row, column]
    if '_' in pixel:
      values[row, column] = _MASKED
    elif any(len(token) != 2 for token in pixel):
      values[row, column] = _STRAY
    else:
      values[row, column] = [round(int(t, 16) * 255 / (levels - 1)) for t in pixel]
  return values


def _img(png: bytes, label: str) -> str:
  data = base64.b64encode(png).decode()
  return f'<img alt="{text.escape(label)}" src="data:image/png;base64,{data}">'
