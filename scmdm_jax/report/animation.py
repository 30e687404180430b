"""Two samples as they are written, what is believed of them, as an animated WebP.

Pillow draws, with the fonts that come with matplotlib. Legend: `F` frames, `T` steps,
`L` positions. What is drawn is plain data, see `runs.watching.side_by_side`.
"""

import base64
import functools
import io
import math
from collections.abc import Mapping
from typing import Any

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, features

from scmdm_jax.report import text

# Colours of what is masked and of what a step has just written; see `state`.
MASKED, NEW = (221, 229, 240), (253, 230, 180)
MOST_BYTES = 300_000
_PAPER, _INK, _SOFT, _FAINT = (255,) * 3, (27, 31, 36), (89, 99, 110), (209, 217, 224)
_COLORS = ((0, 114, 178), (213, 94, 0))  # Of the two samples.
_WIDTH, _MARGIN, _HEADING, _ROW, _CHART = 840, 12, 24, 24, 84  # Pixels.
_PICTURE = 196  # Pixels of the longer side of a picture: two samples fit in a row.
_LONGEST = 8  # Characters of a cell.
_LEVELS = 8  # Digits of `state`.
_PAUSE, _END = 250, 3000  # Milliseconds of a frame, and of the last one.


def animated(beliefs: Mapping[str, Any], most: int = MOST_BYTES) -> bytes | None:
  """Returns the file, at most `most` bytes: every other frame is left out until it is.

  Args:
    beliefs: of `runs.watching.side_by_side`, without an obstacle.
    most: bytes.

  Returns:
    An animated WebP without loss; None if the Pillow at hand cannot write any.
  """
  if not features.check('webp'):
    return None
  draw = _pictures if 'pictures' in beliefs['samples'][0] else _cells
  frames = [_frame(draw, beliefs, i) for i in range(len(beliefs['steps']))]
  while True:
    file = io.BytesIO()
    frames[0].save(
      file,
      'WEBP',
      save_all=True,
      append_images=frames[1:],
      duration=[*[_PAUSE] * (len(frames) - 1), _END],
      loop=0,
      lossless=True,
      method=4,
    )
    if len(file.getvalue()) <= most or len(frames) == 1:
      return file.getvalue()
    frames = frames[::-2][::-1]  # The last one stays.


def data_uri(webp: bytes) -> str:
  """Returns what a page shows it by."""
  return f'data:image/webp;base64,{base64.b64encode(webp).decode()}'


@functools.cache
def _font(size: int, mono: bool = False, bold: bool = False) -> ImageFont.FreeTypeFont:
  family = 'DejaVu Sans Mono' if mono else 'DejaVu Sans'
  weight = 'bold' if bold else 'normal'
  found = font_manager.findfont(
    font_manager.FontProperties(family=family, weight=weight)
  )
  return ImageFont.truetype(found, size)


def _frame(draw: Any, beliefs: Mapping[str, Any], frame: int) -> Image.Image:
  """The two samples, beside each other if they fit, and their entropy so far."""
  panels = [draw(sample, frame) for sample in beliefs['samples']]
  beside = panels[0].width <= _WIDTH // 2 - _MARGIN
  heights = [panel.height + _HEADING for panel in panels]
  tall = max(heights) if beside else sum(heights)
  height = 2 * _MARGIN + tall + _HEADING + _CHART + 6
  image = Image.new('RGB', (_WIDTH, height), _PAPER)
  pen, top = ImageDraw.Draw(image), _MARGIN + tall
  for i, (sample, panel) in enumerate(zip(beliefs['samples'], panels, strict=True)):
    left = _MARGIN + (i * _WIDTH // 2 if beside else 0)
    upper = _MARGIN + (0 if beside else i * heights[0])
    pen.text((left, upper), sample['title'], _COLORS[i], _font(14, bold=True))
    image.paste(panel, (left, upper + _HEADING - 4))
  _chart(pen, beliefs, beliefs['steps'][frame], top + _HEADING)
  return image


def _cells(sample: Mapping[str, Any], frame: int) -> Image.Image:
  """A panel of tokens in boxes, as many in a row as fit."""
  names = [_name(token) for token in sample['shown'][frame]]
  # The same in all frames: nine of ten tokens fit.
  sizes = sorted(len(_name(token)) for row in sample['shown'] for token in row)
  longest = min(_LONGEST, sizes[int(0.9 * (len(sizes) - 1))])
  inside = _WIDTH - 2 * _MARGIN
  width = min(max(14 + 9 * (longest - 1), 16), inside)
  if longest == 1:  # Wide cells for what is short.
    width = max(width, min(25, inside // len(names)))
  columns = max(1, min(len(names), inside // width))
  rows = math.ceil(len(names) / columns)
  panel = Image.new('RGB', (inside, rows * _ROW), _PAPER)
  pen = ImageDraw.Draw(panel)
  for i, (name, state) in enumerate(zip(names, sample['state'][frame], strict=True)):
    left, top = i % columns * width, i // columns * _ROW
    box = left, top, left + width - 2, top + _ROW - 3
    color = _INK
    if state.isdigit():
      pen.rectangle(box, MASKED)
      # Fainter where it is less likely, but never unreadable.
      share = (int(state) + 2) / (_LEVELS + 2)
      color = tuple(
        round(m + (c - m) * share) for m, c in zip(MASKED, _INK, strict=True)
      )
    elif state == 'w':
      pen.rectangle(box, NEW)
    cut = name if len(name) <= longest else name[: longest - 1] + '…'
    middle = left + (width - 2) / 2, top + (_ROW - 3) / 2
    pen.text(middle, cut, color, _font(14, mono=True), anchor='mm')
  return panel


def _name(token: str) -> str:
  return text.visible(token).replace(' ', '␣') or '∅'


def _pictures(sample: Mapping[str, Any], frame: int) -> Image.Image:
  """A panel of what stands there, and beside it with what is believed."""
  panel = Image.new('RGB', (2 * _PICTURE + _MARGIN, _PICTURE + _HEADING), _PAPER)
  pen, names = ImageDraw.Draw(panel), ('written so far', 'with the likeliest values')
  for i, (uri, name) in enumerate(zip(sample['pictures'][frame], names, strict=True)):
    one = Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))).convert('RGB')
    scale = _PICTURE / max(one.size)
    size = round(one.width * scale), round(one.height * scale)
    left = i * (_PICTURE + _MARGIN)
    panel.paste(one.resize(size, Image.Resampling.NEAREST), (left, 0))
    pen.text((left, _PICTURE + 2), name, _SOFT, _font(12))
  return panel


def _chart(
  pen: ImageDraw.ImageDraw, beliefs: Mapping[str, Any], step: int, top: int
) -> None:
  """The mean entropy of a position against the step, up to `step`."""
  curves = [
    [value / beliefs['length'] for value in sample['entropy']]
    for sample in beliefs['samples']
  ]
  left, right, bottom = _MARGIN + 34, _WIDTH - _MARGIN, top + _CHART
  steps, most = len(curves[0]), max(max(curve) for curve in curves) or 1.0
  small = _font(12)
  caption = f'step {step} of {steps}: mean entropy of a position, in nats'
  pen.text((_MARGIN, top - _HEADING + 2), caption, _SOFT, small)
  pen.line([(left, top), (left, bottom), (right, bottom)], _FAINT)
  for value, y in ((most, top), (0.0, bottom)):
    pen.text((left - 5, y), text.number(round(value, 2)), _SOFT, small, anchor='rm')

  def place(i: int, value: float) -> tuple[float, float]:
    x = left + (right - left) * i / max(steps - 1, 1)
    return x, bottom - (bottom - top) * value / most

  # The second one thicker and first, so that both are seen where they are one.
  for curve, color, width in reversed(list(zip(curves, _COLORS, (2, 6), strict=True))):
    points = [place(i, value) for i, value in enumerate(curve[:step])]
    if len(points) > 1:
      pen.line(points, color, width=width)
    (x, y), half = points[-1], width / 2 + 2
    pen.ellipse((x - half, y - half, x + half, y + half), color)
