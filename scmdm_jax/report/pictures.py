"""Pictures as PNG: one, many on a sheet, and a folder of them.

Pillow writes them; it comes with matplotlib (the extra `report`). Legend: `N` pictures
of height `H`, width `W` and `C` channels, one (grey) or three.
"""

import io
import math
import pathlib
import re

import numpy as np
from PIL import Image

from scmdm_jax.errors import BadInput

_GAP = 1  # Pixels between the pictures of a sheet.
_PAPER = 128  # Grey between them: neither black nor white.
_NAME = re.compile('[0-9]{6,}[.]png')


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


def check_folder(folder: pathlib.Path) -> None:
  """Refuses to put pictures where something else is.

  Raises:
    BadInput: what `write_folder` would replace is not what it writes.
  """
  for path in (folder, _unfinished(folder)):
    if path.is_symlink() or (path.exists() and not path.is_dir()):
      raise BadInput(
        f'{path}: not a folder; wanted one, for pictures; move it, or give another '
        '--workdir'
      )
    for found in sorted(path.iterdir()) if path.is_dir() else ():
      if not _NAME.fullmatch(found.name) or found.is_dir():
        raise BadInput(
          f'{found}: not written by a run; wanted nothing but pictures such as '
          '000000.png in a folder that new ones replace; move it, or give another '
          '--workdir'
        )


def write_folder(folder: pathlib.Path, pictures: np.ndarray) -> None:
  """One PNG per picture, `000000.png` first; the folder appears, or changes, at once.

  What `torch-fidelity` and other programs read: docs/image_data.md.

  Raises:
    BadInput: as `check_folder`; nothing is changed then.
  """
  check_folder(folder)
  temporary = _unfinished(folder)
  _remove(temporary)
  temporary.mkdir()
  for number, picture in enumerate(pictures):
    (temporary / f'{number:06d}.png').write_bytes(png(picture))
  _remove(folder)
  temporary.rename(folder)


def _unfinished(folder: pathlib.Path) -> pathlib.Path:
  return folder.with_name(f'.{folder.name}-unfinished')


def _remove(folder: pathlib.Path) -> None:
  """Deletes a folder of pictures, if it is there, and nothing else."""
  if folder.is_dir():
    for path in folder.iterdir():
      if _NAME.fullmatch(path.name):
        path.unlink()
    folder.rmdir()
