import numpy as np
import pytest
from PIL import Image

from scmdm_jax.domains.images import domain
from scmdm_jax.domains.images import measures as judges
from scmdm_jax.domains.images import rows as image_rows
from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.domains.protocol import Readers
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.protocol import ClassJudge
from scmdm_jax.settings.resolve import resolve
from tests.domains.images.idx_files import random_images, write_fashion

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


def measure_of(settings):
  readers = Readers(SIXTEEN, None, None, lambda *_: None, 4)
  return domain.measuring(settings.data, settings.evaluate, readers)


def test_rows_are_averaged_cut_into_levels_and_mirrored(tmp_path):
  settings = settings_with(tmp_path, flip=True)
  train, test = (
    domain.read_rows(settings.data, SIXTEEN, split) for split in ('train', 'test')
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
    domain.read_rows(settings.data, get_tokenizer('dna'), 'test')


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


def balanced_rows(each, seed):
  rows = random_rows(10 * each, seed)
  rows[:, 0] = 16 + np.random.default_rng(seed).permutation(10 * each) % 10
  return rows


def rows_of(count, label, seed):
  rows = random_rows(count, seed)
  rows[:, 0] = 16 + label
  return rows


def test_measures_are_the_judges_beside_their_floor():
  train, heldout = balanced_rows(5, 0), balanced_rows(3, 1)
  samples = balanced_rows(1, 2).astype(np.int32)
  samples[0, 2] = 20  # A class where a value should be.
  judge = class_judge()
  found = domain.Reference(train, heldout, SIXTEEN, judge).measures(samples)
  seen = np.where(samples < 16, samples, 0)
  seen[:, 0] = samples[:, 0]
  assert found['stray_rate'] == pytest.approx(1 / 160)
  wanted = np.mean(seen[:, 1:4].sum(1) % 10 == samples[:, 0] - 16)
  assert found['class_accuracy'] == pytest.approx(wanted)
  distance = judges.frechet_distance(seen[:, 1:4], train[:, 1:4])
  assert found['frechet_distance'] == pytest.approx(distance, rel=1e-9)
  nearest = judges.nearest_distances(seen[:, 1:], train[:, 1:], 15).mean()
  assert found['nearest_distance'] == pytest.approx(nearest)
  # Held-out images in turn, ten at a time: three sets of the thirty.
  real = heldout[judges.in_turn(heldout[:, 0])]
  distances = [
    judges.frechet_distance(real[i : i + 10, 1:4], train[:, 1:4]) for i in (0, 10, 20)
  ]
  assert found['frechet_distance_real'] == pytest.approx(np.mean(distances))
  assert found['frechet_distance_real_spread'] == pytest.approx(
    np.std(distances, ddof=1)
  )
  nearest = judges.nearest_distances(real[:10, 1:], train[:, 1:], 15).mean()
  assert found['nearest_distance_real'] == pytest.approx(nearest)
  assert found['real_count'] == 10


@pytest.mark.parametrize('count', [40, 47, 128, 300])
def test_with_every_class_in_turn_real_images_are_in_turn(monkeypatch, count):
  # As published figures were measured: cut from the sets in turn, without counting.
  monkeypatch.setattr(domain, '_REFERENCE', 120)
  train, heldout, judge = balanced_rows(60, 0), balanced_rows(50, 1), class_judge()
  samples = random_rows(count, 2)
  samples[:, 0] = 16 + np.arange(count) % 10
  found = domain.Reference(train, heldout, SIXTEEN, judge).measures(samples)
  reference = train[judges.in_turn(train[:, 0])][:120, 1:4]
  real = heldout[judges.in_turn(heldout[:, 0])]
  starts = range(0, min(8 * count, 500 - count + 1), count)
  distances = [
    judges.frechet_distance(real[i : i + count, 1:4], reference) for i in starts
  ]
  wanted = {
    'frechet_distance': judges.frechet_distance(samples[:, 1:4], reference),
    'frechet_distance_real': np.mean(distances),
    'class_accuracy_real': np.mean(
      real[:count, 1:4].sum(1) % 10 == real[:count, 0] - 16
    ),
    'nearest_distance_real': judges.nearest_distances(
      real[:count, 1:], train[:, 1:], 15
    ).mean(),
  }
  if len(distances) > 1:
    wanted['frechet_distance_real_spread'] = np.std(distances, ddof=1)
  assert {name: found.get(name) for name in wanted} == wanted  # To the last bit.
  assert ('frechet_distance_real_spread' in found) == (len(distances) > 1)


def test_real_images_have_the_classes_of_the_samples():
  train, heldout, judge = balanced_rows(60, 0), balanced_rows(7, 1), class_judge()
  reference = domain.Reference(train, heldout, SIXTEEN, judge)
  # Of class 3 there are seven held-out images, of class 5 two are wanted.
  samples = np.concatenate([rows_of(9, 3, 2), rows_of(2, 5, 3)])
  found = reference.measures(samples)
  assert found['real_count'] == 7 + 2

  def first(rows, label, count):
    return rows[rows[:, 0] == 16 + label][:count, 1:4]

  # All sixty of class 3, and of class 5 two ninths as many.
  close = np.concatenate([first(train, 3, 60), first(train, 5, 13)])
  real = np.concatenate([first(heldout, 3, 7), first(heldout, 5, 2)])
  for name, rows in (
    ('frechet_distance', samples[:, 1:4]),
    ('frechet_distance_real', real),
  ):
    wanted = judges.frechet_distance(rows, close)
    assert found[name] == pytest.approx(wanted, rel=1e-9)
  assert 'frechet_distance_real_spread' not in found  # No second set of nine.
  # Three of class 3 alone: two sets of them are there.
  found = reference.measures(rows_of(3, 3, 4))
  sets = [first(heldout, 3, 7)[i : i + 3] for i in (0, 3)]
  wanted = np.mean([judges.frechet_distance(x, first(train, 3, 60)) for x in sets])
  assert found['frechet_distance_real'] == pytest.approx(wanted, rel=1e-9)
  assert found['real_count'] == 3


def test_copies_of_training_images_are_nearer_than_real_ones():
  train, heldout = random_rows(50, 0), random_rows(20, 1)
  found = domain.Reference(train, heldout, SIXTEEN, None).measures(train[:10])
  assert found['nearest_distance'] == 0 < found['nearest_distance_real']
  assert found['frechet_distance'] is None and found['class_accuracy'] is None


def test_one_sample_has_no_distance():
  rows = random_rows(20, 0)
  found = domain.Reference(rows, rows, SIXTEEN, class_judge()).measures(rows[:1])
  assert found['frechet_distance'] is None and found['class_accuracy'] in (0, 1)
  assert found['real_count'] == 1


def test_samples_without_a_class_have_no_distance():
  rows = random_rows(20, 0)
  samples = rows[:4].copy()
  samples[:, 0] = 3
  found = domain.Reference(rows, rows, SIXTEEN, class_judge()).measures(samples)
  assert found['frechet_distance'] is None and found['class_accuracy'] == 0
  assert found['real_count'] == 0 and found['nearest_distance'] == 0


def test_a_copy_of_a_mirrored_training_image_is_a_copy(tmp_path):
  settings = settings_with(tmp_path, flip=True)
  train = domain.read_rows(settings.data, SIXTEEN, 'train')
  copies = np.stack([train[i] for i in range(30, 36)])
  assert measure_of(settings)(copies)['nearest_distance'] == 0
  settings = settings_with(tmp_path)
  assert measure_of(settings)(copies)['nearest_distance'] > 0.1


def test_a_folder_with_other_files_is_left_alone(tmp_path):
  options = settings_with(tmp_path).data
  rows = np.zeros((2, 197), np.int32)
  folder = tmp_path / 'images'
  domain.write(tmp_path, np.zeros((3, 197), np.int32), SIXTEEN)
  domain.check_run(options, tmp_path, SIXTEEN)
  domain.write(tmp_path, rows, SIXTEEN)  # What a run wrote is replaced.
  assert sorted(f.name for f in folder.iterdir()) == ['000000.png', '000001.png']
  assert not list(tmp_path.glob('.images*'))
  for name in ('holiday.png', '00001.png', 'x000001.png', '000001.png.txt'):
    (folder / name).write_text('mine')
    before = sorted(f.name for f in folder.iterdir())
    for refuse in (
      lambda: domain.check_run(options, tmp_path, SIXTEEN),
      lambda: domain.write(tmp_path, rows, SIXTEEN),
    ):
      with pytest.raises(BadInput, match=rf'images/{name}: not written by a run'):
        refuse()
    assert sorted(f.name for f in folder.iterdir()) == before
    (folder / name).unlink()
  (tmp_path / 'images.tmp').mkdir()  # Not a name of ours.
  domain.write(tmp_path, rows, SIXTEEN)
  assert (tmp_path / 'images.tmp').is_dir()


@pytest.mark.parametrize('make', ['file', 'link', 'folder'])
def test_what_is_no_folder_of_pictures_is_left_alone(tmp_path, make):
  options = settings_with(tmp_path).data
  path, mine = tmp_path / 'images', tmp_path / 'mine'
  mine.mkdir()
  if make == 'file':
    path.write_text('mine')
  elif make == 'link':
    path.symlink_to(mine)
  else:
    (path / '000000.png').mkdir(parents=True)
  with pytest.raises(BadInput, match=r'images(/000000\.png)?: not '):
    domain.check_run(options, tmp_path, SIXTEEN)


def test_samples_are_written_as_png(tmp_path):
  pixels, labels = random_images(12, 3, (8, 8))
  for channels in (1, 3):
    shown = np.repeat(pixels[..., None], channels, axis=-1)
    shown[..., channels - 1] = 255 - shown[..., channels - 1]
    rows = image_rows.to_rows(shown, labels, PixelTokenizer(256))
    domain.write(tmp_path, rows.astype(np.int32), PixelTokenizer(256))
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
