import json
import pathlib
import pickle
import struct
import tempfile

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from scmdm_jax.checkpoints import safetensors_files as files
from scmdm_jax.errors import BadInput, DamagedData
from tests.checkpoints import manifests

TENSORS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.array([1.5, -0.0], np.float32),
}


@pytest.fixture
def source(tmp_path):
  return manifests.write_directory(tmp_path / 'source', {'x': 1}, TENSORS)


def shard(source):
  """Turns the single file of `source` into two shards with an index."""
  (source / 'model.safetensors').unlink()
  for name in TENSORS:
    safetensors.numpy.save_file({name: TENSORS[name]}, source / f'{name}.safetensors')
  write_index(source, {'a': 'a.safetensors', 'b': 'b.safetensors'})


def write_index(source, weight_map):
  index = source / 'model.safetensors.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))


def read(path):
  source = files.open_source(path)
  return {name: source.read(name) for name in source.tensors}


def assert_equal(tensors):
  assert tensors.keys() == TENSORS.keys()
  for name, value in TENSORS.items():
    assert tensors[name].dtype == np.float32
    assert tensors[name].tobytes() == value.tobytes()


def test_reads_one_file_and_shards(source):
  opened = files.open_source(source)
  assert opened.config == {'x': 1}
  assert opened.shapes == {'a': (2, 3), 'b': (2,)}
  assert opened.num_bytes == (source / 'model.safetensors').stat().st_size
  assert_equal(read(source))
  assert_equal(read(source / 'model.safetensors'))
  shard(source)
  assert_equal(read(source))


def test_reads_in_the_dtype_of_the_file(tmp_path):
  wanted = {
    'f': np.array([[0.1, -0.0]], np.float32),
    'h': np.array([0.1, 65504], np.float16),
    'g': np.array([[[0.1], [3e38]]], ml_dtypes.bfloat16),
    's': np.array(2.5, np.float32),
    'e': np.zeros((0, 3), np.float32),
  }
  source = files.open_source(manifests.write_directory(tmp_path / 's', {}, wanted))
  assert source.where == tmp_path / 's'
  assert source.tensors.keys() == wanted.keys()
  for name, value in wanted.items():
    found = source.read(name)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()
    assert found.flags.writeable  # An array of its own, not a window on the file.


def test_a_file_that_shrinks_after_it_was_opened(source):
  opened = files.open_source(source)
  file = source / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:-1])
  with pytest.raises(DamagedData, match=r"model\.safetensors: ends inside tensor 'b'"):
    opened.read('b')
  file.unlink()
  with pytest.raises(DamagedData, match='No such file'):
    opened.read('a')


def test_tokenizer_files(source):
  assert files.open_source(source).tokenizer_files() == {}
  (source / 'tokenizer.json').write_text('{}')
  (source / 'merges.txt').symlink_to('tokenizer.json')
  (source / 'notes.json').write_text('{}')
  (source / 'tokenizer.model').mkdir()
  assert files.open_source(source).tokenizer_files() == {
    name: source / name for name in ('tokenizer.json', 'merges.txt')
  }
  (source.parent / 'outside').write_text('secret')
  (source / 'vocab.json').symlink_to(source.parent / 'outside')
  with pytest.raises(BadInput, match=r'vocab\.json: a link that leaves the directory'):
    files.open_source(source).tokenizer_files()


def test_other_dtypes_are_refused(tmp_path):
  path = manifests.write_directory(tmp_path / 's', {}, {'w': np.zeros(2, np.float64)})
  with pytest.raises(BadInput, match=r"model\.safetensors: tensor 'w' is F64"):
    read(path)


def damage(kind, data):
  size = struct.unpack('<Q', data[:8])[0]
  return {
    'half': data[: len(data) // 2],
    'one byte short': data[:-1],
    'one byte more': data + b'\0',
    'empty': b'',
    'seven bytes': data[:7],
    'header too long': struct.pack('<Q', 1 << 40) + data[8:],
    'header flipped': data[:9] + bytes([data[9] ^ 0x80]) + data[10:],
    'offsets overlap': data.replace(b'[24,32]', b'[20,32]'),
    'shape too large': data.replace(b'[2,3]', b'[9,9]'),
    'unknown dtype': data.replace(b'"F32"', b'"Q32"', 1),
    'pickle': pickle.dumps({'a': [1, 2]}),
    'zip': b'PK\x03\x04' + data[4:],
    'header only': data[: 8 + size],
  }[kind]


@pytest.mark.parametrize(
  'kind',
  [
    'half',
    'one byte short',
    'one byte more',
    'empty',
    'seven bytes',
    'header too long',
    'header flipped',
    'offsets overlap',
    'shape too large',
    'unknown dtype',
    'pickle',
    'zip',
    'header only',
  ],
)
def test_damaged_files_are_named(source, kind):
  file = source / 'model.safetensors'
  data = file.read_bytes()
  damaged = damage(kind, data)
  assert damaged != data
  file.write_bytes(damaged)
  with pytest.raises(DamagedData) as caught:
    read(source)
  assert str(file) in str(caught.value)
  assert '\n' not in str(caught.value)


class Canary:
  """Creates a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize(
  'name',
  ['pytorch_model.bin', 'model.pt', 'mdlm.ckpt', 'model.pkl', 'model.safetensors'],
)
def test_pickles_are_never_opened(tmp_path, name):
  canary = tmp_path / 'canary'
  source = tmp_path / 'source'
  source.mkdir()
  (source / 'config.json').write_text('{}')
  (source / name).write_bytes(pickle.dumps(Canary(canary)))
  for path in (source, source / name):
    with pytest.raises(BadInput) as caught:
      read(path)
    assert name in str(caught.value)
    if name != 'model.safetensors':
      assert 'weights_only=True' in str(caught.value)
  assert not canary.exists()
  pickle.loads((source / name).read_bytes())  # The canary does sing.
  assert canary.exists()


def test_pickle_beside_safetensors_is_ignored(source):
  (source / 'pytorch_model.bin').write_bytes(b'never read')
  assert_equal(read(source))


@pytest.mark.parametrize('name', ['../outside.safetensors', '{absolute}', 'a/../../o'])
def test_index_cannot_leave_the_directory(source, name):
  shard(source)
  outside = source.parent / 'outside.safetensors'
  safetensors.numpy.save_file({'b': TENSORS['b']}, outside)
  name = name.format(absolute=outside)
  write_index(source, {'a': 'a.safetensors', 'b': name})
  with pytest.raises(BadInput, match='outside the directory'):
    files.open_source(source)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
def test_links_cannot_leave_the_directory(source, name):
  outside = source.parent / 'outside'
  (source / name).rename(outside)
  (source / name).symlink_to(outside)
  with pytest.raises(BadInput, match=f'{name}: a link that leaves the directory'):
    files.open_source(source)


def test_hub_cache_links_are_followed(tmp_path):
  # The layout of `hf download`: snapshots/REVISION/name -> ../../blobs/HASH.
  snapshot = manifests.write_directory(
    tmp_path / 'models--x' / 'snapshots' / 'abc', {'x': 1}, TENSORS
  )
  blobs = tmp_path / 'models--x' / 'blobs'
  blobs.mkdir()
  for name in ('config.json', 'model.safetensors'):
    (snapshot / name).rename(blobs / name)
    (snapshot / name).symlink_to(pathlib.Path('..', '..', 'blobs', name))
  assert_equal(read(snapshot))


def test_index_must_agree_with_the_shards(source):
  shard(source)
  write_index(source, {'a': 'a.safetensors', 'b': 'gone.safetensors'})
  with pytest.raises(DamagedData, match=r'gone\.safetensors, which is not there'):
    files.open_source(source)
  write_index(
    source, {'a': 'b.safetensors', 'b': 'a.safetensors', 'c': 'a.safetensors'}
  )
  with pytest.raises(DamagedData, match=r'disagrees with the shards on a .*, b .*, c'):
    files.open_source(source)
  write_index(source, {'a': 'a.safetensors', 'b': 'b.bin'})
  with pytest.raises(BadInput, match=r'b\.bin: \.bin files can run code'):
    files.open_source(source)
  write_index(source, ['a'])
  with pytest.raises(DamagedData, match='weight_map is not an object'):
    files.open_source(source)


NAMES = st.text(max_size=4) | st.sampled_from(
  ['a.safetensors', 'b.safetensors', '.', '../a', '/', 'a.bin', 'config.json']
)
INDICES = st.dictionaries(
  st.sampled_from(['weight_map', 'metadata']),
  st.dictionaries(st.sampled_from(['a', 'b']) | st.text(max_size=2), NAMES)
  | st.none()
  | st.lists(NAMES, max_size=2),
)


@hypothesis.given(INDICES)
@hypothesis.example({'weight_map': {'a': 'a.safetensors', 'b': 'b.safetensors'}})
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
def test_any_index_is_refused_or_true(index):
  with tempfile.TemporaryDirectory() as directory:
    source = manifests.write_directory(pathlib.Path(directory, 's'), {'x': 1}, TENSORS)
    shard(source)
    text = json.dumps(index)
    (source / 'model.safetensors.index.json').write_text(text)
    try:
      assert_equal(read(source))
    except BadInput as e:
      assert str(e).isprintable()
    else:
      # Only the truth is believed.
      assert index['weight_map'] == {'a': 'a.safetensors', 'b': 'b.safetensors'}


@pytest.mark.parametrize('name', ['x' * 300, 'a\0b', 'a\nb', '\ud800', '', '.'])
def test_index_with_impossible_names(source, name):
  shard(source)
  write_index(source, {'a': 'a.safetensors', 'b': name})
  with pytest.raises(BadInput) as caught:
    files.open_source(source)
  assert str(caught.value).isprintable()


def test_shards_in_two_folders_of_the_same_name(source):
  shard(source)
  (source / 'sub').mkdir()
  (source / 'b.safetensors').rename(source / 'sub' / 'a.safetensors')
  write_index(source, {'a': './a.safetensors', 'b': 'sub/a.safetensors'})
  assert_equal(read(source))
  write_index(source, {'b': 'a.safetensors', 'a': 'sub/a.safetensors'})
  with pytest.raises(DamagedData, match=r'disagrees with the shards on a .*, b '):
    files.open_source(source)


def test_a_tensor_in_two_shards_is_refused(source):
  shard(source)
  safetensors.numpy.save_file(TENSORS, source / 'b.safetensors')
  with pytest.raises(DamagedData, match="tensor 'a' is also in a"):
    files.open_source(source)


def test_one_file_beside_an_index_of_others_is_refused(source):
  single = (source / 'model.safetensors').read_bytes()
  shard(source)
  files.open_source(source)
  (source / 'model.safetensors').write_bytes(single)
  message = (
    r'holds model\.safetensors and, of other files, model\.safetensors\.index\.json: '
    r'a\.safetensors, b\.safetensors; remove .* --source=.*model\.safetensors$'
  )
  with pytest.raises(BadInput, match=message):
    files.open_source(source)
  # Also where the shards are gone: which of the two is outdated is not known.
  (source / 'a.safetensors').unlink()
  with pytest.raises(BadInput, match=message):
    files.open_source(source)
  assert files.open_source(source / 'model.safetensors').tensors.keys() == {'a', 'b'}
  # An index of the file itself says nothing else.
  write_index(source, {'a': 'model.safetensors', 'b': 'model.safetensors'})
  assert files.open_source(source).tensors.keys() == {'a', 'b'}


def test_one_file_beside_shards_without_an_index_is_refused(source):
  extra = source / 'model-00001-of-00002.safetensors'
  extra.write_bytes((source / 'model.safetensors').read_bytes())
  with pytest.raises(BadInput, match=r'model-00001-of-00002\.safetensors, model\.saf'):
    files.open_source(source)
  # What else lies beside it is no part of the model.
  extra.rename(source / 'adapter_model.safetensors')
  assert files.open_source(source).tensors.keys() == {'a', 'b'}


def test_files_of_other_programs_are_no_part_of_the_model(source):
  strays = ('adapter_model.safetensors', 'consolidated.safetensors')
  other = {'c': np.zeros(3, np.float32)}
  for name in strays:
    safetensors.numpy.save_file(other, source / name)
  # The single file comes first, as in Transformers.
  assert files.open_source(source).tensors.keys() == {'a', 'b'}
  shard(source)
  assert files.open_source(source).tensors.keys() == {'a', 'b'}
  # A shard that is missing is not made up for by what lies beside it.
  (source / 'b.safetensors').unlink()
  with pytest.raises(DamagedData, match=r'names b\.safetensors, which is not there'):
    files.open_source(source)
  # None of the two is the model.
  (source / 'a.safetensors').unlink()
  (source / 'model.safetensors.index.json').unlink()
  with pytest.raises(BadInput, match=r'adapter_model\.s.*, consolidated\.s.* and no'):
    files.open_source(source)


def test_an_index_of_the_single_file_and_another_is_believed(source):
  safetensors.numpy.save_file({'c': np.zeros(3, np.float32)}, source / 'c.safetensors')
  one = {'a': 'model.safetensors', 'b': 'model.safetensors'}
  write_index(source, one | {'c': 'c.safetensors'})
  assert files.open_source(source).tensors.keys() == {'a', 'b', 'c'}
  # One that leaves out what the single file holds is not.
  write_index(source, {'a': 'model.safetensors', 'c': 'c.safetensors'})
  with pytest.raises(DamagedData, match=r'disagrees with the shards on b'):
    files.open_source(source)


def test_several_files_need_an_index(source):
  shard(source)
  (source / 'model.safetensors.index.json').unlink()
  with pytest.raises(BadInput, match=r'a\.safetensors, b\.safetensors and no model'):
    files.open_source(source)


@pytest.mark.parametrize(
  ('text', 'error', 'message'),
  [
    ('{"a": ', DamagedData, 'not JSON'),
    ('{"a": NaN}', DamagedData, 'NaN is not a JSON number'),
    ('[1]', DamagedData, 'a JSON list; wanted an object'),
    ('[' * 100_000, DamagedData, 'not JSON'),
    ('\xff', DamagedData, 'not JSON'),
    ('"' + 'x' * (9 << 20) + '"', BadInput, 'more than'),
  ],
  ids=['cut', 'nan', 'list', 'deep', 'latin1', 'large'],
)
def test_bad_config_json(source, text, error, message):
  (source / 'config.json').write_text(text, encoding='latin1')
  with pytest.raises(error, match=message) as caught:
    files.open_source(source)
  assert str(source / 'config.json') in str(caught.value)


def test_missing_pieces_are_named(tmp_path, source):
  with pytest.raises(BadInput, match='no such directory'):
    files.open_source(tmp_path / 'nowhere')
  (source / 'config.json').unlink()
  with pytest.raises(BadInput, match=r'no config\.json; found model\.safetensors'):
    files.open_source(source)
  (source / 'model.safetensors').unlink()
  with pytest.raises(BadInput, match=r'no \*\.safetensors; found nothing'):
    files.open_source(source)
  with pytest.raises(BadInput, match=r'not a \.safetensors file'):
    files.open_source(__file__)
  with pytest.raises(BadInput, match=r'/dev/null: not a \.safetensors file'):
    files.open_source('/dev/null')
