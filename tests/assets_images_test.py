"""The models of images that the package ships, on 200 held-out images.

`fashion_sample.png` has the first test images of Fashion-MNIST (MIT), averaged to 14 x
14, ten in a row, one of each class.
"""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import scmdm_jax
from scmdm_jax.checkpoints import store
from scmdm_jax.diffusion.likelihood import carried_nelbo
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.domains.images import measures
from scmdm_jax.domains.images.rows import to_rows
from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.models import denoiser
from scmdm_jax.runs.converting import import_model
from scmdm_jax.runs.judges import class_judge

ASSETS = pathlib.Path(scmdm_jax.__file__).parent / 'assets'
SAMPLE = pathlib.Path(__file__).parent / 'fashion_sample.png'


@pytest.fixture(scope='module')
def rows():
  """200 real images, int32 [200, 197], each class in turn."""
  with Image.open(SAMPLE) as sheet:
    pixels = np.asarray(sheet).reshape(20, 14, 10, 14).transpose(0, 2, 1, 3)
  labels = np.arange(200) % 10
  return to_rows(pixels.reshape(200, 14, 14, 1), labels, PixelTokenizer(16)).astype(
    np.int32
  )


def shuffled(rows):
  """The same classes, with the pixels of every image in another order."""
  found = rows.copy()
  found[:, 1:] = np.random.default_rng(0).permuted(rows[:, 1:], axis=1)
  return found


def test_classifier_tells_real_images_from_shuffled_ones(rows, tmp_path):
  import_model(str(ASSETS / 'fashion_classifier'), str(tmp_path / 'judge'))
  description, params = store.load_model(tmp_path / 'judge')
  judge = class_judge(params, description, 100)
  labels, noise = rows[:, 0] - 16, shuffled(rows)
  # 0.88 of 10,000 test images (see the card); 200 of them have an error of 0.02.
  assert measures.class_accuracy(judge.logits(rows), labels) > 0.8
  assert measures.class_accuracy(judge.logits(noise), labels) < 0.3
  # Two halves of the real ones are near each other, though few: 0.7 and 18.
  first, second = judge.features(rows[:100]), judge.features(rows[100:])
  real = measures.frechet_distance(first, second)
  assert measures.frechet_distance(judge.features(noise[:100]), second) > 5 * real


@pytest.mark.slow
def test_base_knows_images(rows, tmp_path):
  import_model(str(ASSETS / 'fashion_base'), str(tmp_path / 'base'))
  description, params = store.load_model(tmp_path / 'base')
  assert description.architecture.grid == (1, 14, 14)
  bound = jax.jit(
    lambda tokens: carried_nelbo(
      jax.random.key(0),
      denoiser.bind(params, description),
      tokens,
      schedule=LogLinear(),
      mask_id=description.mask_id,
      num_steps=8,
    )
  )
  real, noise = (float(bound(r[:32]).mean()) / 197 for r in (rows, shuffled(rows)))
  # 1.03 and 2.41 nats per token. The greys of an image are those of a shuffled one:
  # only their places tell.
  assert real < 1.2
  assert noise > 1.5 * real
