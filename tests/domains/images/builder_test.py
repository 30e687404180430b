import dataclasses
import gzip
import pathlib
import re

import numpy as np
import pytest

from scmdm_jax.domains.images import builder, files, reading
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput, DamagedData
from tests.domains.images.idx_files import idx, random_images, write_fashion

LABELS, IMAGES = 'train-labels-idx1-ubyte.gz', 'train-images-idx3-ubyte.gz'


def read(name, directory, split, source=''):
  return reading.open_images(DataSettings(name, str(directory), str(source)), split)


def prepare(name, directory, source=''):
  settings = DataSettings(name, str(directory), str(source))
  return pathlib.Path(reading.prepared(settings).data_dir)


@pytest.fixture
def fashion(tmp_path):
  return write_fashion(tmp_path / 'fashion')


def test_fashion_comes_back_as_it_was_written(tmp_path, fashion, capsys):
  for split, seed, count in (('train', 1, 30), ('test', 2, 10)):
    found = read('fashion_mnist', tmp_path / 'data', split, fashion)
    pixels, labels = random_images(count, seed)
    assert found.pixels.dtype == found.labels.dtype == np.uint8
    assert np.array_equal(found.pixels, pixels[..., None])
    assert np.array_equal(found.labels, labels)
  assert capsys.readouterr().out == ''


def test_files_that_changed_are_another_data_set(tmp_path, fashion):
  first = prepare('fashion_mnist', tmp_path / 'data', fashion)
  write_fashion(fashion, train=40)
  assert prepare('fashion_mnist', tmp_path / 'data', fashion) != first


def write_cifar(folder):
  """Files of two records, whose pixels say where they stand."""
  folder.mkdir()
  for number, name in enumerate(builder.SETS['cifar10'].files):
    records = np.random.default_rng(number).integers(0, 256, (2, 3073), np.uint8)
    records[:, 0] = [number, 9]
    (folder / name).write_bytes(records.tobytes())
  return folder


def test_cifar_planes_become_pixels(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'CIFAR_RECORDS', 2)
  source = write_cifar(tmp_path / 'cifar')
  train, test = (
    read('cifar10', tmp_path / 'data', split, source) for split in ('train', 'test')
  )
  assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
  assert test.labels.tolist() == [5, 9] and test.pixels.shape == (2, 32, 32, 3)
  second = (source / 'data_batch_2.bin').read_bytes()
  for row, column, channel in ((0, 0, 0), (3, 7, 1), (31, 31, 2)):
    place = 1 + channel * 1024 + row * 32 + column
    assert train.pixels[2, row, column, channel] == second[place]
    assert train.pixels[3, row, column, channel] == second[3073 + place]


@pytest.mark.parametrize('size', [0, 3073, 2 * 3073 - 1, 3 * 3073])
def test_cifar_of_another_size_is_damaged(tmp_path, monkeypatch, size):
  monkeypatch.setattr(files, 'CIFAR_RECORDS', 2)
  source = write_cifar(tmp_path / 'cifar')
  (source / 'test_batch.bin').write_bytes(bytes(size))
  with pytest.raises(
    DamagedData, match=rf'test_batch\.bin: {size} bytes; wanted 2 rec'
  ):
    prepare('cifar10', tmp_path / 'data', source)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('fashion_mnist', 'run apt-get install dataset-fashion-mnist, or give the folder'),
    ('cifar10', 'give the folder cifar-10-batches-bin of cifar-10-binary.tar.gz'),
  ],
)
def test_missing_files_say_where_to_get_them(tmp_path, monkeypatch, name, message):
  wanted = builder.SETS[name]
  folder = str(tmp_path / 'nowhere') if wanted.folder else ''
  elsewhere = dataclasses.replace(wanted, folder=folder)
  monkeypatch.setitem(builder.SETS, name, elsewhere)
  with pytest.raises(BadInput, match=message):
    prepare(name, tmp_path / 'data')
  with pytest.raises(BadInput, match=re.escape(f'no file {tmp_path / "there"}')):
    prepare(name, tmp_path / 'data', tmp_path / 'there')


def damaged(fashion, name, change):
  path = fashion / name
  path.write_bytes(change(path.read_bytes()))
  return path


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    (IMAGES, lambda b: b[: len(b) // 2], 'cannot be read'),
    (IMAGES, lambda b: b'text', 'cannot be read'),
    (IMAGES, lambda b: b[:10] + bytes([b[10] ^ 6]) + b[11:], 'Error -3 while'),
    (IMAGES, lambda b: b'', 'begins with ; wanted 00 00 08 03'),
    (IMAGES, lambda b: gzip.compress(gzip.decompress(b)[:-1]), '23535 bytes; wanted '),
    (IMAGES, lambda b: gzip.compress(gzip.decompress(b) + b'0'), '23537 bytes; wanted'),
    (IMAGES, lambda b: gzip.compress(gzip.decompress(b)[:9]), '9 bytes; wanted 16 for'),
    (LABELS, lambda b: gzip.compress(idx(np.zeros((30, 1), np.uint8))), '00 00 08 02'),
    (LABELS, lambda b: gzip.compress(idx(np.zeros(29, np.uint8))), '29 labels for the'),
    (LABELS, lambda b: gzip.compress(idx(np.full(30, 10, np.uint8))), 'is of class 10'),
  ],
)
def test_damaged_files_are_named(tmp_path, fashion, name, change, message):
  path = damaged(fashion, name, change)
  wanted = IMAGES if 'class' in message else path.name  # Labels are of those images.
  with pytest.raises(DamagedData) as caught:
    prepare('fashion_mnist', tmp_path / 'data', fashion)
  assert wanted in str(caught.value) and message in str(caught.value)
  assert '\n' not in str(caught.value) and 'replace' in str(caught.value)


def test_no_images_are_not_a_data_set(tmp_path, fashion):
  write_fashion(fashion, train=0)
  with pytest.raises(BadInput, match=rf'{IMAGES}: it has no images'):
    prepare('fashion_mnist', tmp_path / 'data', fashion)


def test_images_of_another_size_are_another_set(tmp_path, fashion):
  pixels, _ = random_images(30, 1, (14, 14))
  (fashion / IMAGES).write_bytes(gzip.compress(idx(pixels)))
  with pytest.raises(BadInput, match=r'\(14, 14\) pixels; wanted \(28, 28\)'):
    prepare('fashion_mnist', tmp_path / 'data', fashion)
