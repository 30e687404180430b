"""Images: a row is a class and the values of pixels; a classifier reads samples."""

import math
import pathlib
import sys
from typing import Any

import numpy as np

from scmdm_jax.data import image_rows, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import PixelTokenizer, Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges import images as judges
from scmdm_jax.modes import classifiers, data
from scmdm_jax.modes.classifiers import ClassJudge
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.settings import DataSettings, Settings

_REFERENCE = 10_000  # Training images whose features samples are compared with.
_DRAWS = 8  # Sets of held-out images whose distances say how much such a set varies.
_SHOWN = 100  # Of the pictures, on the sheet.


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """One image per row."""
  return image_rows.ImageRows(
    _rows(options, _pixels(tokenizer), split),
    image_rows.grid_of(options.name, options.side),
    flip=options.flip and split == 'train',
  )


def _rows(options: DataSettings, tokenizer: PixelTokenizer, split: str) -> np.ndarray:
  """The images of a split as they are, int16 [N, L]."""
  images = sources.open_images(
    options.name, data.directory(options), split, options.source or None
  )
  small = image_rows.box_average(images.pixels, options.side)
  return image_rows.to_rows(small, images.labels, tokenizer)


def _pixels(tokenizer: Tokenizer) -> PixelTokenizer:
  if not isinstance(tokenizer, PixelTokenizer):  # The checkpoint's own.
    raise BadInput(
      f"data.tokenizer: the checkpoint's is {tokenizer.name!r}; wanted that of a model "
      "of images, or 'pixels:LEVELS'"
    )
  return tokenizer


class Reference:
  """Real images that samples are compared with, and how real ones compare.

  Every class has its turn, among the references as among the held-out images.
  """

  def __init__(
    self,
    train: np.ndarray,
    heldout: np.ndarray,
    levels: int,
    judge: ClassJudge | None,
    count: int,
  ):
    """Measures the floor, too.

    Args:
      train: training rows [N, L].
      heldout: held-out rows [M, L].
      levels: of a value.
      judge: a classifier, or None.
      count: of samples, so that as many held-out images are compared; but all of them
        where there are fewer.
    """
    self._train, self._levels, self._judge = train, levels, judge
    heldout = heldout[judges.in_turn(heldout[:, 0])]
    count = min(count, len(heldout))
    self.floor: dict[str, Any] = {
      'nearest_distance_real': self._nearest(heldout[:count])
    }
    if judge is None:
      return
    used = train[judges.in_turn(train[:, 0])][:_REFERENCE].astype(np.int32)
    self._features = judge.features(used)
    self.floor['class_accuracy_real'] = self._accuracy(heldout[:count])
    if count < 2:  # No covariance.
      return
    starts = range(0, min(_DRAWS * count, len(heldout) - count + 1), count)
    distances = [self._distance(heldout[i : i + count]) for i in starts]
    self.floor['frechet_distance_real'] = float(np.mean(distances))
    if len(distances) > 1:
      spread = float(np.std(distances, ddof=1))
      self.floor['frechet_distance_real_spread'] = spread

  def _nearest(self, rows: np.ndarray) -> float:
    top = self._levels - 1
    found = judges.nearest_distances(rows[:, 1:], self._train[:, 1:], top)
    return float(found.mean())

  def _distance(self, rows: np.ndarray) -> float:
    assert self._judge is not None
    found = self._judge.features(rows.astype(np.int32))
    return judges.frechet_distance(found, self._features)

  def _accuracy(self, rows: np.ndarray) -> float:
    assert self._judge is not None
    labels = rows[:, 0] - self._judge.first_class
    return judges.class_accuracy(self._judge.logits(rows.astype(np.int32)), labels)

  def measures(self, samples: np.ndarray) -> dict[str, Any]:
    """Of samples int32 [N, L], by name, with the floor beside them; see judges/images.

    Without a judge, distance and accuracy are None, and so is the distance of one.
    """
    content = judges.without_strays(samples[:, 1:], self._levels)
    rows = np.concatenate([samples[:, :1], content], axis=1)
    known = self._judge is not None
    return {
      'frechet_distance': self._distance(rows) if known and len(rows) > 1 else None,
      'class_accuracy': self._accuracy(rows) if known else None,
      'nearest_distance': self._nearest(rows),
      'stray_rate': judges.stray_rate(samples[:, 1:], self._levels),
      **self.floor,
    }


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`Reference.measures`, its images and its classifier read."""
  pixels = _pixels(tokenizer)
  return Reference(
    _rows(settings.data, pixels, 'train'),
    _rows(settings.data, pixels, 'test'),
    pixels.levels,
    classifiers.load_classifier(settings, workdir, tokenizer),
    settings.sample.num_samples,
  ).measures


def write(directory: pathlib.Path, samples: np.ndarray, tokenizer: Tokenizer) -> None:
  """`images/`, a PNG per sample, and `samples.png`, the first hundred on a sheet.

  The grid follows from the length: images are square, and no square is three squares.
  """
  try:
    from scmdm_jax.report import pictures
  except ImportError as error:
    print(
      f'images: no PNG files, {error.name} is not installed; run pip install '
      "'scmdm_jax[report]'",
      file=sys.stderr,
    )
    return
  size = samples.shape[1] - 1
  channels = 1 if math.isqrt(size) ** 2 == size else 3
  side = math.isqrt(size // channels)
  shown = image_rows.from_rows(samples, (channels, side, side), _pixels(tokenizer))
  pictures.write_folder(directory / 'images', shown)
  sheet = pictures.png(pictures.sheet(shown[:_SHOWN], columns=10), scale=2)
  temporary = directory / 'samples.png.tmp'
  temporary.write_bytes(sheet)
  temporary.rename(directory / 'samples.png')


DOMAIN = Domain(
  'images',
  read_rows,
  judging,
  swept=('frechet_distance', 'class_accuracy'),
  write=write,
)
