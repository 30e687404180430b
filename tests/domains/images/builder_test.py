import dataclasses
import gzip
import io
import re

import numpy as np
import pytest
from PIL import Image

from scmdm_jax.data import sources
from scmdm_jax.domains.images import builder, emoji, files
from scmdm_jax.errors import BadInput, DamagedData
from tests.domains.images.idx_files import idx, random_images, write_fashion

LABELS, IMAGES = 'train-labels-idx1-ubyte.gz', 'train-images-idx3-ubyte.gz'


@pytest.fixture
def fashion(tmp_path):
  return write_fashion(tmp_path / 'fashion')


def test_fashion_comes_back_as_it_was_written(tmp_path, fashion, capsys):
  for split, seed, count in (('train', 1, 30), ('test', 2, 10)):
    found = sources.open_images('fashion_mnist', tmp_path / 'data', split, fashion)
    pixels, labels = random_images(count, seed)
    assert found.pixels.dtype == found.labels.dtype == np.uint8
    assert np.array_equal(found.pixels, pixels[..., None])
    assert np.array_equal(found.labels, labels)
  assert capsys.readouterr().out == ''


def test_files_that_changed_are_another_data_set(tmp_path, fashion):
  first = sources.prepare('fashion_mnist', tmp_path / 'data', fashion)
  write_fashion(fashion, train=40)
  assert sources.prepare('fashion_mnist', tmp_path / 'data', fashion) != first


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
    sources.open_images('cifar10', tmp_path / 'data', split, source)
    for split in ('train', 'test')
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
    sources.prepare('cifar10', tmp_path / 'data', source)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('fashion_mnist', 'run apt-get install dataset-fashion-mnist, or give the folder'),
    ('emoji', 'run apt-get install fonts-noto-color-emoji, or give the folder'),
    ('cifar10', 'give the folder cifar-10-batches-bin of cifar-10-binary.tar.gz'),
  ],
)
def test_missing_files_say_where_to_get_them(tmp_path, monkeypatch, name, message):
  wanted = builder.SETS[name]
  folder = str(tmp_path / 'nowhere') if wanted.folder else ''
  elsewhere = dataclasses.replace(wanted, folder=folder)
  monkeypatch.setitem(builder.SETS, name, elsewhere)
  with pytest.raises(BadInput, match=message):
    sources.prepare(name, tmp_path / 'data')
  with pytest.raises(BadInput, match=re.escape(f'no file {tmp_path / "there"}')):
    sources.prepare(name, tmp_path / 'data', tmp_path / 'there')


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
    sources.prepare('fashion_mnist', tmp_path / 'data', fashion)
  assert wanted in str(caught.value) and message in str(caught.value)
  assert '\n' not in str(caught.value) and 'replace' in str(caught.value)


def test_no_images_are_not_a_data_set(tmp_path, fashion):
  write_fashion(fashion, train=0)
  with pytest.raises(BadInput, match=rf'{IMAGES}: it has no images'):
    sources.prepare('fashion_mnist', tmp_path / 'data', fashion)


def test_images_of_another_size_are_another_set(tmp_path, fashion):
  pixels, _ = random_images(30, 1, (14, 14))
  (fashion / IMAGES).write_bytes(gzip.compress(idx(pixels)))
  with pytest.raises(BadInput, match=r'\(14, 14\) pixels; wanted \(28, 28\)'):
    sources.prepare('fashion_mnist', tmp_path / 'data', fashion)


def test_an_emoji_is_centred_on_white_and_averaged():
  picture = Image.new('RGBA', (136, 128), (0, 0, 0, 0))
  picture.paste((255, 0, 0, 255), (0, 0, 68, 128))  # The left half is red.
  found = emoji._small(picture)
  assert found.shape == (32, 32, 3) and found.dtype == np.uint8
  # 136 / 32 = 4.25 lines each: the first is of the four white ones above.
  assert found[1:-1, 0].tolist() == [[255, 0, 0]] * 30
  assert found[:, -1].tolist() == [[255, 255, 255]] * 32
  assert found[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
  ('code', 'wanted'), [(0x1F1E6, 0), (0x1F600, 3), (0x2600, 7), (ord('#'), 8)]
)
def test_the_class_of_an_emoji_is_its_block(code, wanted):
  assert emoji.class_of(code) == wanted


def bitmap(grey):
  data = io.BytesIO()
  Image.new('RGBA', (8, 8), (grey, grey, grey, 255)).save(data, 'PNG')
  return data.getvalue()


class FakeFont(dict):
  """Three letters and a ligature of the last two, as fontTools shows a font."""

  def __init__(self, codes):
    from types import SimpleNamespace as Named

    self._cmap = {code: f'u{code:X}' for code in codes}
    names = [*self._cmap.values(), 'pair', 'nobody']
    glyphs = {name: Named(imageData=bitmap(i)) for i, name in enumerate(names)}
    ligature = Named(LigGlyph='pair')
    table = Named(ligatures={names[-3]: [ligature]})
    lookups = Named(LookupList=Named(Lookup=[Named(SubTable=[table])]))
    super().__init__(CBDT=Named(strikeData=[glyphs]), GSUB=Named(table=lookups))

  def getBestCmap(self):
    return self._cmap


def test_variants_stay_on_one_side_and_unreachable_glyphs_are_left_out(
  tmp_path, monkeypatch
):
  from fontTools import ttLib

  codes = list(range(0x1F600, 0x1F640))
  monkeypatch.setattr(ttLib, 'TTFont', lambda path: FakeFont(codes))
  found = emoji.read_font(tmp_path)
  shown = {split: found[split].pixels[:, 0, 0, 0].tolist() for split in found}
  assert sorted([*shown['train'], *shown['test']]) == list(range(65))
  # The pair (64) is where the last letter (63) is.
  assert any({63, 64} <= set(greys) for greys in shown.values())
  assert {*found['train'].labels, *found['test'].labels} == {3}


def test_a_file_that_is_no_font_is_damaged(tmp_path):
  (tmp_path / 'NotoColorEmoji.ttf').write_bytes(b'no font')
  with pytest.raises(DamagedData, match='not a font'):
    sources.prepare('emoji', tmp_path / 'data', tmp_path)
