"""Prepared images read back into memory, at most some 180 megabytes."""

from typing import Any

import numpy as np

from scmdm_jax.data import sources
from scmdm_jax.domains.images import builder
from scmdm_jax.domains.images.files import Images
from scmdm_jax.domains.options import DataSettings


def prepared(data: DataSettings) -> builder.LabelledImages:
  """The builder of the data set, prepared if need be.

  Raises:
    BadInput: an unsuitable source.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  config = builder.config_of(data.name, data.source or None)
  return sources.prepared(builder.LabelledImages, config, data.folder)


def open_images(data: DataSettings, split: str) -> Images:
  """The images of a split, in its order; errors as `prepared`, or no such split."""
  found = prepared(data)
  count = sources.count(found, data.name, split)
  shape: Any = found.info.features
  pixels = np.empty((count, *shape[builder.IMAGE].shape), np.uint8)
  labels = np.empty(count, np.uint8)
  for i, record in enumerate(sources.records(found, split)):
    with sources.damage_named(found.data_dir):
      pixels[i] = record[builder.IMAGE]
      labels[i] = record[builder.LABEL]
  return Images(pixels, labels)
