import json
import pathlib
import re
import struct
import tempfile
import tracemalloc

import hypothesis
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import strategies as st

from scmdm_jax.checkpoints.safetensors_header import MAX_HEADER_BYTES, read_header
from scmdm_jax.errors import BadInput, DamagedData

TENSORS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.array([1.5, -0.0], np.float16),
  'c': np.array(7, np.int64),
}
VALID = safetensors.numpy.save(TENSORS, metadata={'format': 'pt'})
ENTRY = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


def packed(header, data=b'', size=None):
  if not isinstance(header, bytes):
    header = json.dumps(header).encode()
  return struct.pack('<Q', len(header) if size is None else size) + header + data


def read(content):
  """(header or None, message or None) of a file with this content."""
  with tempfile.TemporaryDirectory() as directory:
    file = pathlib.Path(directory, 'model.safetensors')
    file.write_bytes(content)
    try:
      return read_header(file), None
    except BadInput as e:
      assert isinstance(e, DamagedData)
      assert str(e).startswith(f'{file}: not a readable safetensors file (')
      assert str(e).isprintable()
      assert len(str(e)) < 600
      return None, str(e)


def assert_library_agrees(content, found):
  """The Rust library reads the same from what was accepted."""
  listed = dict(safetensors.deserialize(content))
  assert listed.keys() == found.keys()
  for name, tensor in found.items():
    entry = listed[name]
    assert (tuple(entry['shape']), entry['dtype']) == (tensor.shape, tensor.dtype)
    data = content[tensor.offset : tensor.offset + tensor.size]
    assert data == bytes(entry['data'])


def test_tensors_and_where_they_lie():
  found, _ = read(VALID)
  assert {name: (t.shape, t.dtype) for name, t in found.items()} == {
    'a': ((2, 3), 'F32'),
    'b': ((2,), 'F16'),
    'c': ((), 'I64'),
  }
  for name, t in found.items():
    assert VALID[t.offset : t.offset + t.size] == TENSORS[name].tobytes()
  assert_library_agrees(VALID, found)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'a header of 0 bytes in a file of 0'),
    (packed({}, size=3), 'a header of 3 bytes in a file of 10'),
    (packed({}, size=2**63), 'a header of 9223372036854775808 bytes'),
    (packed([]), 'not a JSON object'),
    (packed(b' {}'), 'not a JSON object'),
    (packed('{"a"'.encode('utf-16')), 'not a JSON object'),
    (packed(b'{"a"' + b':[' * 5), 'Expecting value'),
    (packed(b'{"a":' * 50_000), 'recursion'),
    (packed(b'{"a":' + b'9' * 5000 + b'}'), 'integer'),
    (packed({'a': 1}), "'a': wanted dtype, shape and data_offsets"),
    (packed({'a': ENTRY | {'x': 1}}, bytes(8)), 'wanted dtype, shape'),
    (packed({'a': ENTRY | {'dtype': 'F31'}}, bytes(8)), "its dtype is 'F31'"),
    (packed({'a': ENTRY | {'dtype': ['F32']}}, bytes(8)), 'its dtype is'),
    (packed({'a': ENTRY | {'shape': [-2]}}, bytes(8)), r'its shape is \[-2\]'),
    (packed({'a': ENTRY | {'shape': [2.0]}}, bytes(8)), 'its shape is'),
    (packed({'a': ENTRY | {'shape': [True, 2]}}, bytes(8)), 'its shape is'),
    (packed({'a': ENTRY | {'shape': [1] * 32 + [2]}}, bytes(8)), 'its shape is'),
    (packed({'a': ENTRY | {'shape': [0, 2**62]}}, bytes(8)), 'its shape is'),
    (packed({'a': ENTRY | {'shape': [3]}}, bytes(8)), r'8 bytes for F32 \[3\]'),
    (packed({'a': ENTRY | {'data_offsets': [8, 0]}}, bytes(8)), 'data_offsets are'),
    (packed({'a': ENTRY | {'data_offsets': [0]}}, bytes(8)), 'data_offsets are'),
    (packed({'a': ENTRY}), 'bytes are described'),
    (packed({'a': ENTRY}, bytes(9)), 'bytes are described'),
    (packed({'a': ENTRY, 'b': ENTRY}, bytes(8)), "'b': begins at byte 0 .* wanted 8"),
    (
      packed({'a': ENTRY, 'b': ENTRY | {'data_offsets': [12, 20]}}, bytes(20)),
      "'b': begins at byte 12 .* wanted 8",
    ),
    (
      packed({'a': ENTRY | {'data_offsets': [2**62, 2**62 + 8]}}, bytes(8)),
      'begins at byte 4611686018427387904',
    ),
    (packed(b'{"a":{},"a":{}}'), "'a' is there twice"),
    (
      packed(b'{"a":{"dtype":"F32","dtype":"F16"}}'),
      "'dtype' is there twice",
    ),
    (packed({'': ENTRY}, bytes(8)), 'wanted a printable name'),
    (packed({'a\nb': ENTRY}, bytes(8)), r"'a\\nb': wanted a printable name"),
    (packed({'\ud800': ENTRY}, bytes(8)), 'wanted a printable name'),
    (packed({'__metadata__': {'format': 1}}), 'not an object of strings'),
    (packed({'__metadata__': []}), 'not an object of strings'),
  ],
)
def test_lies_are_named(content, message):
  found, told = read(content)
  assert found is None
  assert re.search(message, told)


def test_header_is_capped(tmp_path):
  file = tmp_path / 'model.safetensors'
  with file.open('wb') as opened:  # Sparse: nothing of it is written.
    opened.write(struct.pack('<Q', MAX_HEADER_BYTES + 1))
    opened.truncate(MAX_HEADER_BYTES + 100)
  with pytest.raises(DamagedData, match='a header of 100000001 bytes'):
    read_header(file)


def test_not_a_file(tmp_path):
  with pytest.raises(BadInput, match='not a file'):
    read_header(tmp_path)


@pytest.mark.parametrize(
  'content',
  [
    packed({}, size=2**40),
    packed({'a': ENTRY | {'shape': [2**59]}}, bytes(8)),
    packed({'a': ENTRY | {'shape': [2**58], 'data_offsets': [0, 2**60]}}, bytes(8)),
  ],
)
def test_lies_allocate_nothing(content):
  tracemalloc.start()
  try:
    found, _ = read(content)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert found is None
  assert peak < 1 << 20


@st.composite
def damaged_bytes(draw):
  """`VALID` after a few changes, most of them in the header."""
  content = bytearray(VALID)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(['set', 'digit', 'delete', 'insert', 'cut', 'swap']))
    if kind == 'set':
      content[at] = draw(st.integers(0, 255))
    elif kind == 'digit':
      digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
      if digits:
        content[draw(st.sampled_from(digits))] = draw(st.sampled_from(b'0123456789'))
    elif kind == 'delete':
      del content[at : at + draw(st.integers(1, 9))]
    elif kind == 'insert':
      content[at:at] = draw(st.binary(max_size=9))
    elif kind == 'cut':
      del content[max(at, 1) :]
    else:
      other = draw(st.integers(0, len(content) - 1))
      content[at], content[other] = content[other], content[at]
    if not content:
      break
  return bytes(content)


@hypothesis.given(damaged_bytes())
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_any_damage_is_found_or_harmless(content):
  found, _ = read(content)
  if found is not None:
    assert_library_agrees(content, found)


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
  ),
  max_leaves=6,
)
OFTEN = st.integers(0, 24)
ENTRIES = st.fixed_dictionaries(
  {
    'dtype': st.sampled_from(['F32', 'BF16', 'U8', 'F4']) | JSON,
    'shape': st.lists(OFTEN, max_size=3) | JSON,
    'data_offsets': st.lists(OFTEN, min_size=2, max_size=2).map(sorted) | JSON,
  }
)
HEADERS = st.dictionaries(
  st.sampled_from(['a', 'b', '__metadata__']) | st.text(max_size=3),
  ENTRIES | JSON,
  max_size=3,
)


@hypothesis.given(HEADERS | JSON, st.integers(0, 24))
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_any_header_is_refused_or_true(header, size):
  content = packed(header, bytes(size))
  found, _ = read(content)
  if found is not None:
    assert_library_agrees(content, found)
