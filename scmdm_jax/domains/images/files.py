"""The files of published image sets, as they are downloaded: pixels and labels.

Legend: `N` images of height `H`, width `W` and `C` channels.
"""

import gzip
import math
import pathlib
import zlib
from typing import NamedTuple

import numpy as np

from scmdm_jax.domains.images.tokenizer import CLASSES
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import read_regular

_UNSIGNED_BYTES = 0x08  # The type byte in the magic number of IDX.
_CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORDS = 10_000  # In every file of the published set.


class Images(NamedTuple):
  """Images and their classes.

  Attributes:
    pixels: uint8 `[N, H, W, C]`.
    labels: uint8 `[N]`, from 0, below `CLASSES`.
  """

  pixels: np.ndarray
  labels: np.ndarray


def read_idx(images: pathlib.Path, labels: pathlib.Path) -> Images:
  """Grey images in MNIST's IDX format, `.gz` or not (yann.lecun.com/exdb/mnist).

  Raises:
    BadInput: there are no images.
    DamagedData: a file cannot be read, is truncated or of another format, or the two
      do not belong together.
  """
  pixels, classes = _idx(images, 3), _idx(labels, 1)
  if len(pixels) != len(classes):
    raise DamagedData(
      f'{labels}: {len(classes)} labels for the {len(pixels)} images of {images.name}; '
      'replace both files'
    )
  return _checked(Images(pixels[..., None], classes), images)


def read_cifar(path: pathlib.Path) -> Images:
  """A batch of CIFAR-10's "binary version": a label, then red, green and blue planes.

  Raises:
    DamagedData: the file cannot be read, or is not one of the published size.
  """
  content, size = _bytes(path), 1 + math.prod(_CIFAR_SHAPE)
  if len(content) != CIFAR_RECORDS * size:
    raise DamagedData(
      f'{path}: {len(content)} bytes; wanted {CIFAR_RECORDS} records of {size}; '
      'download cifar-10-binary.tar.gz again'
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, size)
  pixels = records[:, 1:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
  return _checked(Images(pixels, records[:, 0]), path)


def _idx(path: pathlib.Path, rank: int) -> np.ndarray:
  """The array of an IDX file of unsigned bytes, uint8 of that rank."""
  content = _bytes(path)
  start = 4 + 4 * rank
  magic = bytes([0, 0, _UNSIGNED_BYTES, rank])
  if content[:4] != magic:
    raise DamagedData(
      f'{path}: begins with {content[:4].hex(" ")}; wanted {magic.hex(" ")}, an IDX '
      f'file of {rank} dimensions; replace the file'
    )
  shape = [int.from_bytes(content[i : i + 4], 'big') for i in range(4, start, 4)]
  size = math.prod(shape)
  if len(content) != start + size:
    raise DamagedData(
      f'{path}: {len(content)} bytes; wanted {start + size} for the shape {shape} that '
      'it names; replace the file'
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _bytes(path: pathlib.Path) -> bytes:
  try:
    content = read_regular(path)
    return gzip.decompress(content) if path.suffix == '.gz' else content
  # BadGzipFile is an OSError.
  except (OSError, EOFError, ValueError, zlib.error) as error:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise DamagedData(f'{path}: cannot be read ({reason}); replace the file') from error


def _checked(images: Images, path: pathlib.Path) -> Images:
  if not images.pixels.size:
    raise BadInput(f'{path}: it has no images; wanted at least one')
  wrong = np.flatnonzero(images.labels >= CLASSES)
  if wrong.size:
    raise DamagedData(
      f'{path}: image {wrong[0]} is of class {images.labels[wrong[0]]}; wanted one '
      f'below {CLASSES}; replace the file'
    )
  return images
