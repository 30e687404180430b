"""Rows of images as pictures for a page: samples, and steps of how one came about."""

import base64
import math

import numpy as np

from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.report import pictures

_SCALE = 4
# What no value has: masked pixels, and other tokens in the place of one.
MASKED, STRAY = (120, 150, 190), (200, 60, 60)


def show(rows: np.ndarray, tokenizer: PixelTokenizer) -> list[dict[str, str]]:
  """Class and picture of each row int [N, L], the picture as a data URI of PNG."""
  return [
    {
      'caption': tokenizer.tokens[row[0]].strip('<>'),
      'image': _uri(pictures.png(picture_of(row[1:], tokenizer), _SCALE)),
    }
    for row in rows
  ]


def picture_of(values: np.ndarray, tokenizer: PixelTokenizer) -> np.ndarray:
  """The values int [P] of a row, channel by channel, as a picture uint8 `[S, S, 3]`.

  The image is square, with one or three channels: no square is three squares.
  """
  channels = 1 if math.isqrt(len(values)) ** 2 == len(values) else 3
  side = math.isqrt(len(values) // channels)
  planes = np.asarray(values).reshape(channels, side, side)
  levels = np.broadcast_to(planes, (3, side, side)).transpose(1, 2, 0)
  picture = np.round(levels * 255 / (tokenizer.levels - 1)).clip(0, 255)
  picture[(planes >= tokenizer.levels).any(0)] = STRAY
  picture[(planes == tokenizer.mask_id).any(0)] = MASKED
  return picture.astype(np.uint8)


def _uri(png: bytes) -> str:
  return f'data:image/png;base64,{base64.b64encode(png).decode()}'
