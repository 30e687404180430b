"""Labelled images as a TFDS dataset (array_record; TensorFlow is never imported).

Sources are local files, as a package installs them or as they are downloaded elsewhere:

- `fashion_mnist`: 60,000 + 10,000 grey images of 28 x 28 (arXiv 1708.07747; MIT), the
  IDX files of the Debian package or of any copy of it;
- `cifar10`: 50,000 + 10,000 colour images of 32 x 32 (Krizhevsky 2009), the files of
  cifar-10-binary.tar.gz.

The splits are the published ones.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from scmdm_jax.buckets import paths
from scmdm_jax.data import sources
from scmdm_jax.domains.images.files import Images, read_cifar, read_idx
from scmdm_jax.domains.images.rows import SHAPES
from scmdm_jax.domains.images.tokenizer import CLASSES
from scmdm_jax.errors import BadInput

IMAGE, LABEL = 'image', 'label'


@dataclasses.dataclass(frozen=True)
class ImageSet:
  """A data set of images.

  Attributes:
    files: what is read, below the folder of the source.
    folder: where a package installs them; '' if none does.
    advice: how to get them.
  """

  files: tuple[str, ...]
  folder: str
  advice: str


_TRAIN_BATCHES = tuple(f'data_batch_{i}.bin' for i in range(1, 6))
SETS = {
  'fashion_mnist': ImageSet(
    tuple(
      f'{split}-{kind}-ubyte.gz'
      for split in ('train', 't10k')
      for kind in ('images-idx3', 'labels-idx1')
    ),
    '/usr/share/datasets/fashion-mnist',
    'run apt-get install dataset-fashion-mnist, or give the folder of its files in '
    'data.source',
  ),
  'cifar10': ImageSet(
    (*_TRAIN_BATCHES, 'test_batch.bin'),
    '',
    'give the folder cifar-10-batches-bin of cifar-10-binary.tar.gz in data.source',
  ),
}


@dataclasses.dataclass(eq=False)
class ImagesConfig(tfds.core.BuilderConfig):
  """Which set, and in which folder its files lie."""

  set_name: str = 'fashion_mnist'
  source: pathlib.Path = pathlib.Path()


def config_of(set_name: str, source: str | pathlib.Path | None) -> ImagesConfig:
  """Config of local files, named after their paths, sizes and times of change.

  Other files, or the same after an edit, are therefore prepared into another directory.

  Raises:
    BadInput: a file is not there.
  """
  wanted = SETS[set_name]
  if source is None and not wanted.folder:
    raise BadInput(f'data.source: not given; for dataset {set_name} {wanted.advice}')
  folder = paths.local_path(str(source or wanted.folder)).absolute()
  digest = hashlib.sha256()
  for name in wanted.files:
    path = folder / name
    if not path.is_file():
      raise BadInput(f'dataset {set_name}: no file {path}; {wanted.advice}')
    state = path.stat()
    digest.update(
      f'{paths.named(str(path))}\0{state.st_size}\0{state.st_mtime_ns}\0'.encode()
    )
  name = f'{set_name}_{digest.hexdigest()[:16]}'
  return ImagesConfig(name=name, set_name=set_name, source=folder)


class LabelledImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Images uint8 `[H, W, C]` and their classes."""

  name = 'images'
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    assert isinstance(config, ImagesConfig)
    channels, height, width = SHAPES[config.set_name]
    # Bytes: a number of its own per pixel takes eight times the room. TFDS's feature
    # for images wants TensorFlow.
    image = tfds.features.Tensor(
      shape=(height, width, channels), dtype=np.uint8, encoding='bytes'
    )
    label = tfds.features.ClassLabel(num_classes=CLASSES)
    return sources.Info(
      builder=self,
      description='Labelled images.',
      features=tfds.features.FeaturesDict({IMAGE: image, LABEL: label}),
      # Keeps the order of the source.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.builder_config
    assert isinstance(config, ImagesConfig)
    splits = _read(config)
    return {split: self._generate_examples(images) for split, images in splits.items()}

  def _generate_examples(self, images: Images) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, (pixels, label) in enumerate(zip(*images, strict=True)):
      yield position, {IMAGE: pixels, LABEL: int(label)}


def _read(config: ImagesConfig) -> dict[str, Images]:
  """Both splits, in the order of the files."""
  files = [config.source / name for name in SETS[config.set_name].files]
  if config.set_name == 'cifar10':
    *train, test = (read_cifar(path) for path in files)
    joined = Images(*(np.concatenate(parts) for parts in zip(*train, strict=True)))
    return {'train': joined, 'test': test}
  train, test = read_idx(*files[:2]), read_idx(*files[2:])
  wanted = SHAPES[config.set_name]
  for images, path in ((train, files[0]), (test, files[2])):
    if images.pixels.shape[1:] != (*wanted[1:], wanted[0]):
      raise BadInput(
        f'{path}: images of {images.pixels.shape[1:3]} pixels; wanted {wanted[1:]}, as '
        f'dataset {config.set_name} has'
      )
  return {'train': train, 'test': test}
