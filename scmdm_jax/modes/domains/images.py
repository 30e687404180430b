"""Images: a row is a class and the values of pixels; a classifier reads samples."""

import pathlib

from scmdm_jax.data import image_rows, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import PixelTokenizer, Tokenizer
from scmdm_jax.modes import data
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.settings import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """One image per row."""
  images = sources.open_images(
    options.name, data.directory(options), split, options.source or None
  )
  return image_rows.ImageRows(
    image_rows.to_rows(
      image_rows.box_average(images.pixels, options.side),
      images.labels,
      _pixels(tokenizer),
    ),
    image_rows.grid_of(options.name, options.side),
    flip=options.flip and split == 'train',
  )


def _pixels(tokenizer: Tokenizer) -> PixelTokenizer:
  assert isinstance(tokenizer, PixelTokenizer)  # `settings.resolve` saw to it.
  return tokenizer


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """Nothing yet."""
  del settings, workdir, tokenizer
  return lambda samples: {}


DOMAIN = Domain('images', read_rows, judging, swept=())
