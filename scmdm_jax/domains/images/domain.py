"""Images: a row is a class and the values of pixels; a classifier reads samples."""

import fractions
import math
import pathlib
import sys
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.images import builder, neighbours, reading
from scmdm_jax.domains.images import measures as judges
from scmdm_jax.domains.images import rows as image_rows
from scmdm_jax.domains.images import tokenizer as pixels
from scmdm_jax.domains.images.options import ImageEvaluation, ImageSettings
from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.domains.protocol import BuiltIn, Domain, Figure, Measure, Readers
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.protocol import ClassJudge

_REFERENCE = 10_000  # Training images whose features samples are compared with.
_DRAWS = 8  # Sets of held-out images whose distances say how much such a set varies.
_SHOWN = 100  # Of the pictures, on the sheet.
FIGURES = {
  'frechet_distance': Figure('Frechet distance', 'lower', quality=True),
  'class_accuracy': Figure('class accuracy', 'higher', quality=True),
  'neighbour_bits': Figure('neighbour bits', 'lower'),
  'stray_rate': Figure('stray tokens', 'lower'),
  'nearest_distance': Figure('distance to nearest training image'),
  'real_count': Figure('real images'),
  'nearest_distance_real': Figure('distance to nearest, real'),
  'frechet_distance_real': Figure('Frechet distance, real'),
  'frechet_distance_real_spread': Figure('its spread'),
  'class_accuracy_real': Figure('class accuracy, real'),
  'neighbour_bits_real': Figure('neighbour bits, real'),
}


def grid_of(data: ImageSettings) -> tuple[int, int, int]:
  """Channels, height and width of the image in a row."""
  return image_rows.grid_of(data.name, data.side)


def check_settings(data: ImageSettings, evaluation: Any, judge: str) -> None:
  """Refuses rows of another length than images have, and a tokenizer of no pixels."""
  del evaluation, judge
  grid = grid_of(data)
  if data.length != 1 + math.prod(grid):
    raise BadInput(
      f'data.length: found {data.length}; wanted {1 + math.prod(grid)}, a class and '
      f'{" x ".join(map(str, grid))} values'
    )
  if data.tokenizer != CHECKPOINT_TOKENIZER and not pixels.is_name(data.tokenizer):
    raise BadInput(
      f'data.tokenizer: found {data.tokenizer!r} with data.name = {data.name!r}; '
      "wanted 'pixels:LEVELS' with 2 to 256 levels, as in pixels:16"
    )


def read_rows(data: ImageSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """One image per row."""
  return image_rows.ImageRows(
    _rows(data, _pixels(tokenizer), split),
    grid_of(data),
    flip=data.flip and split == 'train',
  )


def _rows(data: ImageSettings, tokenizer: PixelTokenizer, split: str) -> np.ndarray:
  """The images of a split as they are, int16 [N, L]."""
  images = reading.open_images(data, split)
  small = image_rows.box_average(images.pixels, data.side)
  return image_rows.to_rows(small, images.labels, tokenizer)


def _pixels(tokenizer: Tokenizer) -> PixelTokenizer:
  """The tokenizer, if it is one of pixels."""
  if isinstance(tokenizer, PixelTokenizer):
    return tokenizer
  raise BadInput(  # The checkpoint's own.
    f"data.tokenizer: the checkpoint's is {tokenizer.name!r}; wanted that of a model "
    "of images, or 'pixels:LEVELS'"
  )


class Reference:
  """Real images that samples are compared with, and how real ones compare.

  Of every class there are as many as of the samples, or in proportion, among the
  references as among the held-out images: the first ones of each.
  """

  def __init__(
    self,
    train: np.ndarray,
    heldout: np.ndarray,
    tokenizer: PixelTokenizer,
    judge: ClassJudge | None,
    mirrored: tuple[int, int, int] | None = None,
  ):
    """Keeps what is compared.

    Args:
      train: training rows [N, L].
      heldout: held-out rows [M, L].
      tokenizer: of both.
      judge: a classifier, or None.
      mirrored: channels, height and width, where training images were met mirrored,
        too, so that a copy may be one of a mirrored image.
    """
    self._train, self._heldout, self._judge = train, heldout, judge
    self._levels, self._classes = tokenizer.levels, len(tokenizer.class_ids)
    self._mirrored = mirrored
    self._compared: dict[tuple[int, ...], tuple[np.ndarray, dict[str, Any]]] = {}

  def _of_counts(self, counts: tuple[int, ...]) -> tuple[np.ndarray, dict[str, Any]]:
    """Features [., D] of the references, and the floor, for samples of so many each."""
    if counts not in self._compared:
      labels = self._labels(self._train)
      chosen = judges.of_counts(labels, _proportional(counts, labels))
      features = np.zeros((0, 0), np.float32)
      if self._judge is not None and len(chosen):
        features = self._judge.features(self._train[chosen].astype(np.int32))
      self._compared[counts] = features, self._floor(counts, features)
    return self._compared[counts]

  def _floor(self, counts: tuple[int, ...], features: np.ndarray) -> dict[str, Any]:
    """The measures of as many held-out images, and how many there are."""
    labels = self._labels(self._heldout)
    real = self._heldout[judges.of_counts(labels, counts)]
    floor: dict[str, Any] = {'real_count': len(real)}
    if not len(real):
      return floor
    floor['nearest_distance_real'] = self._nearest(real)
    if self._judge is None:
      return floor
    floor['class_accuracy_real'] = self._accuracy(real)
    if min(len(real), len(features)) < 2:  # No covariance.
      return floor
    distances = [
      self._distance(self._heldout[chosen], features)
      for chosen in judges.sets_of_counts(labels, counts, _DRAWS)
    ]
    floor['frechet_distance_real'] = float(np.mean(distances))
    if len(distances) > 1:
      spread = float(np.std(distances, ddof=1))
      floor['frechet_distance_real_spread'] = spread
    return floor

  def _labels(self, rows: np.ndarray) -> np.ndarray:
    return rows[:, 0].astype(np.int64) - self._levels

  def _nearest(self, rows: np.ndarray) -> float:
    top = self._levels - 1
    found = judges.nearest_distances(rows[:, 1:], self._train[:, 1:], top)
    if self._mirrored:
      # As far as this image from a mirrored one is its mirror image from that one.
      turned = image_rows.mirrored(rows, self._mirrored)
      other = judges.nearest_distances(turned[:, 1:], self._train[:, 1:], top)
      found = np.minimum(found, other)
    return float(found.mean())

  def _distance(self, rows: np.ndarray, features: np.ndarray) -> float:
    assert self._judge is not None
    found = self._judge.features(rows.astype(np.int32))
    return judges.frechet_distance(found, features)

  def _accuracy(self, rows: np.ndarray) -> float:
    assert self._judge is not None
    logits = self._judge.logits(rows.astype(np.int32))
    return judges.class_accuracy(logits, self._labels(rows))

  def measures(self, samples: np.ndarray) -> dict[str, Any]:
    """Of samples int32 [N, L], by name, with the floor beside them; see measures.

    Without a judge, distance and accuracy are None; the distance is, too, of a single
    sample, and where no sample begins with a class.
    """
    rows = _without_strays(samples, self._levels)
    labels = self._labels(samples)
    known = labels[(labels >= 0) & (labels < self._classes)]
    counts = np.bincount(known, minlength=self._classes).tolist()
    features, floor = self._of_counts(tuple(counts))
    enough = min(len(rows), len(features)) > 1
    return {
      'frechet_distance': self._distance(rows, features) if enough else None,
      'class_accuracy': self._accuracy(rows) if self._judge is not None else None,
      'nearest_distance': self._nearest(rows),
      'stray_rate': judges.stray_rate(samples[:, 1:], self._levels),
      **floor,
    }


def _without_strays(samples: np.ndarray, levels: int) -> np.ndarray:
  """Samples [N, L], level 0 where a class stands behind the class."""
  content = judges.without_strays(samples[:, 1:], levels)
  return np.concatenate([samples[:, :1], content], axis=1)


def _proportional(counts: tuple[int, ...], labels: np.ndarray) -> list[int]:
  """As many times the counts as there are images for, `_REFERENCE` at most."""
  if judges.is_in_turn(counts):
    counts = (1,) * len(counts)
  there = np.bincount(labels, minlength=len(counts))
  limits = [
    fractions.Fraction(int(n), count)
    for n, count in zip(there, counts, strict=True)
    if n and count
  ]
  times = min([*limits, fractions.Fraction(_REFERENCE, max(sum(counts), 1))])
  return [int(times * count) for count in counts]


def measuring(data: ImageSettings, evaluation: Any, readers: Readers) -> Measure:
  """`Reference.measures` and the bits by neighbours, the images read."""
  tokenizer = _pixels(readers.tokenizer)
  train, heldout = (_rows(data, tokenizer, split) for split in ('train', 'test'))
  mirrored = grid_of(data) if data.flip else None
  reference = Reference(train, heldout, tokenizer, readers.classifier, mirrored)
  counted = evaluation.neighbour_images
  if not counted:
    return reference.measures
  levels, classes = tokenizer.levels, len(tokenizer.class_ids)
  model = neighbours.Neighbours(train[:counted], grid_of(data), levels, classes)
  real = {'neighbour_bits_real': model.bits(heldout)}

  def measures(samples: np.ndarray) -> dict[str, Any]:
    rows = _without_strays(samples, levels)
    bits = {'neighbour_bits': model.bits(rows) if len(rows) else None}
    return reference.measures(samples) | bits | real

  return measures


def check_run(
  data: ImageSettings, directory: pathlib.Path, tokenizer: Tokenizer
) -> None:
  """Refuses a tokenizer of something else, and what `write` would have to delete."""
  del data
  _pixels(tokenizer)
  try:
    from scmdm_jax.report import pictures
  except ImportError:  # `write` says so.
    return
  pictures.check_folder(directory / 'images')


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
  assert isinstance(tokenizer, PixelTokenizer)
  shown = image_rows.from_rows(samples, (channels, side, side), tokenizer)
  pictures.write_folder(directory / 'images', shown)
  sheet = pictures.png(pictures.sheet(shown[:_SHOWN], columns=10), scale=2)
  files.write_bytes(directory / 'samples.png', sheet)


def show(data: ImageSettings, samples: np.ndarray, tokenizer: Tokenizer) -> list[Any]:
  """Every image as a picture, its class below it."""
  from scmdm_jax.domains.images import drawing  # Pillow comes with an extra.

  del data
  return drawing.show(samples, _pixels(tokenizer))


DOMAIN = Domain(
  name='images',
  data_sets=tuple(builder.SETS),
  settings=ImageSettings,
  tokenizers=(BuiltIn('pixels:LEVELS', pixels.is_name, pixels.pixel_tokenizer),),
  judge='classifier',
  read_rows=read_rows,
  measuring=measuring,
  figures=FIGURES,
  swept=('frechet_distance', 'class_accuracy', 'neighbour_bits'),
  evaluation=ImageEvaluation,
  has_classes=True,
  check_settings=check_settings,
  check_run=check_run,
  grid=grid_of,
  show=show,
  film='masked pixels are blue.',
  write=write,
)
