import json
import os
import weakref

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from scmdm_jax.checkpoints import safetensors_files, safetensors_writer
from scmdm_jax.errors import BadInput, DamagedData

TENSORS = {
  'h': np.arange(3, dtype=np.float16),
  'z': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.array([[1.5, -0.0]], ml_dtypes.bfloat16),
  'größe': np.array(2.5, np.float32),
}
SPECS = {name: (value.shape, value.dtype) for name, value in TENSORS.items()}


def write(path, **kwargs):
  return safetensors_writer.write(path, {'x': 1}, SPECS, TENSORS.__getitem__, **kwargs)


def assert_reads_back(path):
  source = safetensors_files.open_source(path)
  assert source.config == {'x': 1}
  assert source.tensors.keys() == TENSORS.keys()
  for name, value in TENSORS.items():
    found = source.read(name)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()


def test_the_bytes_of_the_library(tmp_path):
  written = write(tmp_path / 'out')
  data = (tmp_path / 'out' / 'model.safetensors').read_bytes()
  assert data == safetensors.numpy.save(TENSORS, metadata={'format': 'pt'})
  assert written == len(data)
  assert_reads_back(tmp_path / 'out')
  assert sorted(os.listdir(tmp_path / 'out')) == ['config.json', 'model.safetensors']


def test_a_transposed_view_is_written_as_it_reads(tmp_path):
  value = np.asarray(TENSORS['z'].T.copy().T)
  assert not value.flags['C_CONTIGUOUS']
  safetensors_writer.write(tmp_path / 'out', {}, {'z': SPECS['z']}, lambda name: value)
  found = safetensors_files.open_source(tmp_path / 'out').read('z')
  np.testing.assert_array_equal(found, TENSORS['z'])


# 6, 24, 4 and 4 bytes, in this order; a tensor above the limit has its own file.
@pytest.mark.parametrize(
  ('shard_bytes', 'groups'),
  [
    (38, [['h', 'z', 'b', 'größe']]),
    (37, [['h', 'z', 'b'], ['größe']]),
    (30, [['h', 'z'], ['b', 'größe']]),
    (8, [['h'], ['z'], ['b', 'größe']]),
    (1, [['h'], ['z'], ['b'], ['größe']]),
  ],
)
def test_shards_and_index(tmp_path, shard_bytes, groups):
  path = tmp_path / 'out'
  written = write(path, shard_bytes=shard_bytes)
  files = sorted(path.glob('*.safetensors'))
  assert written == sum(file.stat().st_size for file in files)
  assert [set(safetensors.numpy.load_file(file)) for file in files] == [
    set(group) for group in groups
  ]
  assert_reads_back(path)
  index = path / 'model.safetensors.index.json'
  if len(groups) == 1:
    assert not index.exists()
    return
  count = len(groups)
  assert json.loads(index.read_text()) == {
    'metadata': {'total_size': 38},
    'weight_map': {
      name: f'model-{i:05d}-of-{count:05d}.safetensors'
      for i, group in enumerate(groups, 1)
      for name in group
    },
  }


def test_extra_files(tmp_path):
  (tmp_path / 'vocab').write_bytes(b'\xff\x00')
  extra = {'README.md': '# größe\n', 'vocab.bin': tmp_path / 'vocab'}
  write(tmp_path / 'out', extra_files=extra)
  assert (tmp_path / 'out' / 'README.md').read_text(encoding='utf-8') == '# größe\n'
  assert (tmp_path / 'out' / 'vocab.bin').read_bytes() == b'\xff\x00'
  assert_reads_back(tmp_path / 'out')


def test_one_tensor_is_read_at_a_time(tmp_path):
  handed_out = []

  def read(name):
    assert all(reference() is None for reference in handed_out)
    value = np.ones(64, np.float32)
    handed_out.append(weakref.ref(value))
    return value

  specs = {name: ((64,), np.dtype(np.float32)) for name in 'abc'}
  safetensors_writer.write(tmp_path / 'out', {}, specs, read)
  assert len(handed_out) == 3


def test_an_occupied_path_is_refused(tmp_path):
  write(tmp_path / 'out')
  with pytest.raises(BadInput, match='not empty'):
    write(tmp_path / 'out')


@pytest.mark.parametrize(
  'value', [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float16)]
)
def test_a_broken_promise_leaves_nothing(tmp_path, value):
  with pytest.raises(ValueError, match=r'z: .* was read, float32\[2, 3\] announced'):
    safetensors_writer.write(
      tmp_path / 'out', {}, {'z': SPECS['z']}, lambda name: value
    )
  assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path):
  def read(name):
    if name == 'b':
      raise OSError(28, 'No space left on device')
    return TENSORS[name]

  with pytest.raises(DamagedData, match='No space left on device'):
    safetensors_writer.write(tmp_path / 'out', {}, SPECS, read)
  assert os.listdir(tmp_path) == []
