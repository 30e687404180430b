"""Small image sets in the formats of the published ones."""

import gzip
import pathlib
import struct

import numpy as np

SPLITS = {'train': 'train', 'test': 't10k'}


def random_images(count, seed, shape=(28, 28)):
  """Pixels uint8 [N, *shape] and labels uint8 [N], each class in turn."""
  pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
  return pixels, np.arange(count, dtype=np.uint8) % 10


def idx(array):
  """An array of bytes as MNIST's files have it."""
  header = struct.pack('>HBB', 0, 8, array.ndim)
  return header + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def write_fashion(folder: pathlib.Path, train=30, test=10) -> pathlib.Path:
  """The four files of Fashion-MNIST with other images; seeds 1 and 2."""
  folder.mkdir(parents=True, exist_ok=True)
  for seed, (split, count) in enumerate((('train', train), ('test', test)), 1):
    pixels, labels = random_images(count, seed)
    name = SPLITS[split]
    for array, kind in ((pixels, 'images-idx3'), (labels, 'labels-idx1')):
      content = gzip.compress(idx(array), mtime=0)
      (folder / f'{name}-{kind}-ubyte.gz').write_bytes(content)
  return folder
