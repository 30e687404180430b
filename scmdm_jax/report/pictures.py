"""Pictures as PNG: one, many on a sheet, and a folder of them.

Pillow writes them; it comes with matplotlib (the extra `report`). Legend: `N` pictures
of height `H`, width `W` and `C` channels, one (grey) or three.
"""

import io
import math
import pathlib
import shutil

import numpy as np
from PIL import Image

_GAP = 1  # Pixels between the pictures of a sheet.
_PAPER = 128  # Grey between them: neither black nor white.


def sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
  """Pictures uint8 `[N, H, W, C]` in rows of `columns`: uint8 `[H', W', C]`."""
  count, height, width, channels = pictures.shape
  rows = math.ceil(count / columns)
  tall, wide = height + _GAP, width + _GAP
  paper = np.full((rows * tall + _GAP, columns * wide + _GAP, channels), _PAPER)
  for number, picture in enumerate(pictures):
    top, left = _GAP + number // columns * tall, _GAP + number % columns * wide
    paper[top : top + height, left : left + width] = picture
  return paper.astype(np.uint8)


def png(picture: np.ndarray, scale: int = 1) -> bytes:
  """A picture uint8 `[H, W, C]` as PNG, every pixel `scale` pixels wide and high."""
  large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
  data = io.BytesIO()
  Image.fromarray(large[..., 0] if large.shape[-1] == 1 else large).save(data, 'PNG')
  return data.getvalue()


def write_folder(folder: pathlib.Path, pictures: np.ndarray) -> None:
  """One PNG per picture, `000000.png` first; the folder appears, or changes, at once.

  What `torch-fidelity` and other programs read: docs/image_data.md.
  """
  temporary = folder.with_suffix('.tmp')
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir()
  for number, picture in enumerate(pictures):
    (temporary / f'{number:06d}.png').write_bytes(png(picture))
  shutil.rmtree(folder, ignore_errors=True)
  temporary.rename(folder)
