"""Images as rows of tokens: class, then the pixels channel by channel.

Legend: `N` images, `H` height, `W` width, `C` channels, `K` levels a value can have,
`L = 1 + C H W` the length of a row.

A row is the token of the image's class, then its values in the order channel, row,
column, as CIFAR-10 is flattened in kuleshov-group/discrete-diffusion-guidance. There
`K = 256`, so that a value is its own token, and there is no class among the tokens.
"""

import numpy as np

from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.errors import BadInput

# Channels, height and width as the sets are published.
SHAPES = {
  'fashion_mnist': (1, 28, 28),
  'cifar10': (3, 32, 32),
}


def grid_of(name: str, side: int) -> tuple[int, int, int]:
  """Channels, height and width of a set's images after averaging to `side`.

  Args:
    name: one of `SHAPES`.
    side: height and width; 0 leaves the images as they are.

  Raises:
    BadInput: not a whole number of pixels would become one.
  """
  channels, height, width = SHAPES[name]
  if not side:
    return channels, height, width
  if height % side or width % side:
    raise BadInput(
      f'data.side: found {side}; wanted 0 or a divisor of {height}, the side of the '
      f'images of {name}'
    )
  return channels, side, side


def box_average(pixels: np.ndarray, side: int) -> np.ndarray:
  """Means of equal boxes, rounded half up: uint8 `[N, H, W, C]` -> `[N, S, S, C]`.

  Args:
    pixels: the images.
    side: `S`, a divisor of `H` and `W`; 0 leaves them as they are.
  """
  if not side:
    return pixels
  count, height, width, channels = pixels.shape
  boxes = pixels.reshape(count, side, height // side, side, width // side, channels)
  size = (height // side) * (width // side)
  return ((boxes.sum((2, 4), np.uint32) * 2 + size) // (2 * size)).astype(np.uint8)


def quantize(pixels: np.ndarray, levels: int) -> np.ndarray:
  """The level of each value: uint8 -> uint8 below `levels`, equal shares of 256."""
  return (pixels.astype(np.uint16) * levels // 256).astype(np.uint8)


def dequantize(values: np.ndarray, levels: int) -> np.ndarray:
  """Levels on the whole scale, 0 black and the last one 255: uint8.

  `quantize` leads back to the same levels.
  """
  values, top = values.astype(np.uint32), levels - 1
  rounded = (values * 510 + top) // (2 * top)
  first = -(-256 * values.astype(np.int64) // levels)  # That has the level.
  return np.maximum(rounded, first).astype(np.uint8)


def to_rows(
  pixels: np.ndarray, labels: np.ndarray, tokenizer: PixelTokenizer
) -> np.ndarray:
  """Rows int16 `[N, L]` of images uint8 `[N, H, W, C]` and classes `[N]`."""
  flat = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
  classes = tokenizer.levels + labels.astype(np.int16)
  values = quantize(flat, tokenizer.levels).astype(np.int16)
  return np.concatenate([classes[:, None], values], axis=1)


def from_rows(
  rows: np.ndarray, grid: tuple[int, int, int], tokenizer: PixelTokenizer
) -> np.ndarray:
  """Images uint8 `[N, H, W, C]` of rows int `[N, L]`.

  A token that is no value, where a value should be, is shown black; how many there are
  is `measures.stray_rate`.

  Args:
    rows: as of `to_rows`.
    grid: channels, height and width.
    tokenizer: what made them.
  """
  content = np.asarray(rows)[:, 1:]
  values = np.where(content < tokenizer.levels, content, 0)
  values = values.reshape(len(content), *grid).transpose(0, 2, 3, 1)
  return dequantize(values, tokenizer.levels)


def mirrored(rows: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
  """Rows int `[..., L]` with their images turned left to right, as copies."""
  turned = rows.copy()
  images = rows[..., 1:].reshape(*rows.shape[:-1], *grid)
  turned[..., 1:] = images[..., ::-1].reshape(*rows.shape[:-1], -1)
  return turned


class ImageRows:
  """Random access to rows, int32 `[L]`; with flips, `N` mirrored ones follow.

  Row `N + i` is row `i` mirrored left to right, so that an epoch meets each image both
  ways, once, and what is met does not depend on how often a run was interrupted.
  """

  def __init__(
    self, rows: np.ndarray, grid: tuple[int, int, int], *, flip: bool = False
  ):
    """Rows int16 `[N, L]` as of `to_rows`, kept as they are."""
    self._rows = rows
    self._grid = grid
    self._flip = flip

  def __len__(self) -> int:
    return len(self._rows) * (1 + self._flip)

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(index)
    row = self._rows[index % len(self._rows)].astype(np.int32)
    return mirrored(row, self._grid) if index >= len(self._rows) else row
