import numpy as np
import pytest
from PIL import Image

from scmdm_jax.data import image_rows
from scmdm_jax.data.tokenizers import PixelTokenizer, get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges import images as judges
from scmdm_jax.modes.classifiers import ClassJudge
from scmdm_jax.modes.domains import images
from scmdm_jax.settings import resolve
from tests.data.datasets.images.idx_files import random_images, write_fashion

SIXTEEN = PixelTokenizer(16)


def settings_with(tmp_path, **data):
  options = {
    'name': 'fashion_mnist',
    'side': 14,
    'length': 197,
    'tokenizer': 'pixels:16',
    'source': str(write_fashion(tmp_path / 'fashion')),
    'directory': str(tmp_path / 'data'),
    **data,
  }
  return resolve({'data': options, 'sample': {'num_samples': 4}})


def test_rows_are_averaged_cut_into_levels_and_mirrored(tmp_path):
  settings = settings_with(tmp_path, flip=True)
  train, test = (
    images.read_rows(settings.data, SIXTEEN, split) for split in ('train', 'test')
  )
  assert (len(train), len(test)) == (60, 10)  # Training images alone are mirrored.
  pixels, labels = random_images(30, seed=1)
  for i in (0, 13):
    boxes = pixels[i].reshape(14, 2, 14, 2).mean((1, 3))
    wanted = np.floor(boxes + 0.5).astype(int) * 16 // 256
    assert train[i].tolist() == [16 + labels[i], *wanted.reshape(-1)]
    assert train[30 + i].tolist() == [16 + labels[i], *wanted[:, ::-1].reshape(-1)]


def test_a_tokenizer_of_text_is_refused(tmp_path):
  settings = settings_with(tmp_path, tokenizer='checkpoint')
  with pytest.raises(
    BadInput, match=r"the checkpoint's is 'dna'; wanted that of a mod"
  ):
    images.read_rows(settings.data, get_tokenizer('dna'), 'test')


def class_judge():
  """Features are the first three values; the class is that of their sum."""

  def features(rows):
    return rows[:, 1:4].astype(np.float32)

  def logits(rows):
    return np.eye(10, dtype=np.float32)[rows[:, 1:4].sum(1) % 10]

  return ClassJudge(features, logits, first_class=16)


def random_rows(count, seed):
  rng = np.random.default_rng(seed)
  rows = rng.integers(0, 16, (count, 17)).astype(np.int16)
  rows[:, 0] = 16 + rng.integers(0, 10, count)
  return rows


def test_measures_are_the_judges_beside_their_floor():
  train, heldout = random_rows(50, 0), random_rows(21, 1)
  samples = random_rows(6, 2).astype(np.int32)
  samples[0, 2] = 20  # A class where a value should be.
  judge = class_judge()
  found = images.Reference(train, heldout, 16, judge, count=6).measures(samples)
  seen = np.where(samples < 16, samples, 0)
  seen[:, 0] = samples[:, 0]
  assert found['stray_rate'] == pytest.approx(1 / 96)
  wanted = np.mean(seen[:, 1:4].sum(1) % 10 == samples[:, 0] - 16)
  assert found['class_accuracy'] == pytest.approx(wanted)
  distance = judges.frechet_distance(seen[:, 1:4], train[:, 1:4])
  assert found['frechet_distance'] == pytest.approx(distance, rel=1e-9)
  nearest = judges.nearest_distances(seen[:, 1:], train[:, 1:], 15).mean()
  assert found['nearest_distance'] == pytest.approx(nearest)
  # Held-out images in turn, six at a time: three sets of the 21.
  real = heldout[judges.in_turn(heldout[:, 0])]
  distances = [
    judges.frechet_distance(real[i : i + 6, 1:4], train[:, 1:4]) for i in (0, 6, 12)
  ]
  assert found['frechet_distance_real'] == pytest.approx(np.mean(distances))
  assert found['frechet_distance_real_spread'] == pytest.approx(
    np.std(distances, ddof=1)
  )
  nearest = judges.nearest_distances(real[:6, 1:], train[:, 1:], 15).mean()
  assert found['nearest_distance_real'] == pytest.approx(nearest)


def test_copies_of_training_images_are_nearer_than_real_ones():
  train, heldout = random_rows(50, 0), random_rows(20, 1)
  found = images.Reference(train, heldout, 16, None, 10).measures(train[:10])
  assert found['nearest_distance'] == 0 < found['nearest_distance_real']
  assert found['frechet_distance'] is None and found['class_accuracy'] is None


def test_one_sample_has_no_distance():
  rows = random_rows(20, 0)
  found = images.Reference(rows, rows, 16, class_judge(), 1).measures(rows[:1])
  assert found['frechet_distance'] is None and found['class_accuracy'] in (0, 1)


def test_samples_are_written_as_png(tmp_path):
  pixels, labels = random_images(12, 3, (8, 8))
  for channels in (1, 3):
    shown = np.repeat(pixels[..., None], channels, axis=-1)
    shown[..., channels - 1] = 255 - shown[..., channels - 1]
    rows = image_rows.to_rows(shown, labels, PixelTokenizer(256))
    images.write(tmp_path, rows.astype(np.int32), PixelTokenizer(256))
    files = sorted((tmp_path / 'images').iterdir())
    assert [f.name for f in files] == [f'{i:06d}.png' for i in range(12)]
    for file, wanted in zip(files, shown, strict=True):
      with Image.open(file) as picture:
        found = np.asarray(picture).reshape(8, 8, -1)
      assert np.array_equal(found, wanted)
    with Image.open(tmp_path / 'samples.png') as sheet:
      found = np.asarray(sheet)[::2, ::2].reshape(19, 91, -1)  # Two rows of ten.
    assert np.array_equal(found[10:18, 10:18], shown[11])
    assert np.all(found[0] == 128) and np.all(found[10:18, 19:27] == 128)
