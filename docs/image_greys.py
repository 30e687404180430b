r"""How many bits the neighbours of a value are worth, by how finely images are cut.

  launch/local.sh python docs/image_greys.py

reads Fashion-MNIST as an installed package has it (`--source=DIR`: its files, copied
elsewhere) and prints a line for each side and number of greys: the bits of a value of
held-out images under counts that know how frequent it is and nothing else; its class
and place; its neighbours to the left and above as well; and what these last are worth,
the difference. Half a minute of a core, and 0.6 GB.
"""

import argparse
import sys

import numpy as np

from scmdm_jax.domains.images import reading, rows
from scmdm_jax.domains.images.neighbours import Neighbours
from scmdm_jax.domains.images.options import ImageSettings
from scmdm_jax.domains.images.tokenizer import CLASSES, PixelTokenizer
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.judges.ngrams import Contexts

NAME = 'fashion_mnist'
SIDES = (14, 7)
LEVELS = (2, 4, 8, 16)
TRAIN, HELD_OUT = 30_000, 5000  # Of the splits, the first ones.


def bits(
  train: np.ndarray, held_out: np.ndarray, grid: tuple[int, int, int], levels: int
) -> tuple[float, float, float]:
  """Bits per held-out value under counts of values; with class and place; neighbours.

  Args:
    train: rows int `[N, L]` of training images.
    held_out: rows of others.
    grid: channels, height and width.
    levels: how many greys there are.
  """

  def windows(images: np.ndarray) -> np.ndarray:
    place = np.broadcast_to(np.arange(images.shape[1] - 1), images[:, 1:].shape)
    label = np.broadcast_to(images[:, :1] - levels, images[:, 1:].shape)
    columns = (label, place, images[:, 1:])
    return np.stack([c.ravel().astype(np.int32) for c in columns], axis=1)

  sizes = (CLASSES, train.shape[1] - 1, levels)
  known, asked = windows(train), windows(held_out)
  found = []
  for first in (2, 0):
    model = Contexts(known[:, first:], sizes[first:])
    found.append(float(-model.log_probs(asked[:, first:]).mean() / np.log(2)))
  neighbours = Neighbours(train, grid, levels, CLASSES)
  return found[0], found[1], neighbours.bits(held_out)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--source', default='')
  data = ImageSettings(name=NAME, source=parser.parse_args().source)
  train = reading.open_images(data, 'train')
  held_out = reading.open_images(data, 'test')
  print('side greys frequency class_and_place neighbours worth')
  for side in SIDES:
    parts = [
      (rows.box_average(images.pixels[:count], side), images.labels[:count])
      for images, count in ((train, TRAIN), (held_out, HELD_OUT))
    ]
    for levels in LEVELS:
      tokenizer = PixelTokenizer(levels)
      cut = [rows.to_rows(pixels, labels, tokenizer) for pixels, labels in parts]
      found = bits(cut[0], cut[1], rows.grid_of(NAME, side), levels)
      print(side, levels, *(f'{b:.3f}' for b in (*found, found[1] - found[2])))


if __name__ == '__main__':
  try:
    main()
  except (BadInput, DamagedData, OSError) as error:
    sys.exit(f'error: {error}')
