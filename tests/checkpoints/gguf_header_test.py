import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scmdm_jax.checkpoints import gguf_files, gguf_header
from scmdm_jax.errors import BadInput, DamagedData
from tests.checkpoints import tiny_gguf as tiny


@pytest.fixture
def written(tmp_path):
  def write(data):
    path = tmp_path / 'model.gguf'
    path.write_bytes(data)
    return path

  return write


def read(path):
  return gguf_header.read_header(path)


def test_reads_what_the_format_s_own_reader_reads(written):
  path = written(
    tiny.llama(
      **{
        'x.flag': (tiny.BOOL, True),
        'x.numbers': ((tiny.ARRAY, tiny.FLOAT32), [0.5, -2.0]),
        'x.flags': ((tiny.ARRAY, tiny.BOOL), [True, False]),
        'x.long': (tiny.UINT64, 2**40),
      }
    )
  )
  found, wanted = read(path), gguf.GGUFReader(path)
  assert found.tensors.keys() == {tensor.name for tensor in wanted.tensors}
  for tensor in wanted.tensors:
    info = found.tensors[tensor.name]
    assert list(info.shape) == tensor.shape.tolist()[::-1]
    assert info.type == tensor.tensor_type
    assert (info.offset, info.size) == (tensor.data_offset, tensor.n_bytes)
  names = [name for name in wanted.fields if not name.startswith('GGUF.')]
  assert list(found.fields) == names
  for name in names:
    value, theirs = found.fields[name], wanted.fields[name].contents()
    value = value.tolist() if isinstance(value, np.ndarray) else value
    assert value == theirs


F32_AT_0 = tiny.info('w', (2, 4), tiny.F32, 0)
HUGE = 2**62
# What is wrong, the bytes, the error and a part of its line.
CASES = {
  'empty': (b'', DamagedData, 'wanted a GGUF file'),
  'magic': (b'GGML' + bytes(100), DamagedData, "begins with b'GGML'"),
  'nothing behind the magic': (b'GGUF', DamagedData, 'wants 4 bytes'),
  'old version': (tiny.header(version=1), BadInput, 'version 1'),
  'version to come': (tiny.header(version=4), BadInput, 'version 4'),
  'big-endian': (tiny.header(version=3 << 24), BadInput, 'big-endian'),
  'many fields': (tiny.header(num_fields=HUGE), DamagedData, f'claims {HUGE} fields'),
  'many tensors': (
    tiny.header(num_tensors=HUGE),
    DamagedData,
    f'claims {HUGE} tensors',
  ),
  'one field too many': (
    tiny.header([tiny.field('a', tiny.UINT32, 1)], num_fields=2) + bytes(5),
    DamagedData,
    'bytes',
  ),
  'long name': (
    tiny.header([struct.pack('<Q', HUGE) + bytes(30)]),
    DamagedData,
    f'wants {HUGE} bytes',
  ),
  'long string': (
    tiny.header([tiny.string('a') + struct.pack('<IQ', tiny.STRING, HUGE)]),
    DamagedData,
    f'wants {HUGE} bytes',
  ),
  'many strings': (
    tiny.header(
      [tiny.string('a') + struct.pack('<IIQ', tiny.ARRAY, tiny.STRING, HUGE)]
    ),
    DamagedData,
    f'claims {HUGE} strings',
  ),
  'many numbers': (
    tiny.header(
      [tiny.string('a') + struct.pack('<IIQ', tiny.ARRAY, tiny.UINT64, HUGE)]
    ),
    DamagedData,
    f'wants {8 * HUGE} bytes',
  ),
  'arrays of arrays': (
    tiny.header([tiny.string('a') + struct.pack('<IIQ', tiny.ARRAY, tiny.ARRAY, 1)]),
    DamagedData,
    'array of type 9',
  ),
  'unknown field type': (
    tiny.header([tiny.string('a') + struct.pack('<I', 13)]),
    DamagedData,
    'field of type 13',
  ),
  'not UTF-8': (
    tiny.header([tiny.field(b'\xff\xfe', tiny.UINT32, 1)]),
    DamagedData,
    'not UTF-8',
  ),
  'name with a control character': (
    tiny.header([tiny.field('a\x1b[2Jb\n', tiny.UINT32, 1)]),
    DamagedData,
    'wanted readable characters',
  ),
  'field twice': (
    tiny.header([tiny.field('a', tiny.UINT32, 1)] * 2),
    DamagedData,
    "field 'a' twice",
  ),
  'tensor twice': (
    tiny.pad(tiny.header([], [F32_AT_0, tiny.info('w', (2, 4), tiny.F32, 32)]))
    + bytes(64),
    DamagedData,
    "tensor 'w' twice",
  ),
  'overlap': (
    tiny.pad(tiny.header([], [F32_AT_0, tiny.info('v', (1, 1), tiny.F32, 0)]))
    + bytes(64),
    DamagedData,
    "over the end of 'w'",
  ),
  'cut off': (
    tiny.pad(tiny.header([], [F32_AT_0])) + bytes(31),
    DamagedData,
    "'w' at bytes .* truncated",
  ),
  'far away': (
    tiny.pad(tiny.header([], [tiny.info('w', (2, 4), tiny.F32, HUGE)])) + bytes(64),
    DamagedData,
    "'w' at bytes",
  ),
  'between the steps': (
    tiny.pad(tiny.header([], [tiny.info('w', (2, 4), tiny.F32, 8)])) + bytes(64),
    DamagedData,
    'multiple of 32',
  ),
  'huge dimensions': (
    tiny.pad(tiny.header([], [tiny.info('w', (HUGE,) * 4, tiny.F32, 0)])),
    DamagedData,
    "'w' at bytes",
  ),
  'empty dimension': (
    tiny.header([], [tiny.info('w', (0, 4), tiny.F32, 0)]),
    DamagedData,
    r'shape \[0, 4\]',
  ),
  'no dimension': (
    tiny.header([], [tiny.info('w', (), tiny.F32, 0)]),
    DamagedData,
    '0 dimensions',
  ),
  'many dimensions': (
    tiny.header([], [tiny.info('w', (1,) * 5, tiny.F32, 0)]),
    DamagedData,
    '5 dimensions',
  ),
  'part of a block': (
    tiny.pad(tiny.header([], [tiny.info('w', (2, 48), tiny.Q8_0, 0)])) + bytes(200),
    DamagedData,
    'whole blocks of 32',
  ),
  'unknown tensor type': (
    tiny.header([], [tiny.info('w', (2, 4), 999, 0)]),
    BadInput,
    "'w' is of type 999",
  ),
  'alignment': (
    tiny.header([tiny.field('general.alignment', tiny.UINT32, 24)]),
    DamagedData,
    'alignment 24',
  ),
  'no alignment': (
    tiny.header([tiny.field('general.alignment', tiny.UINT32, 0)]),
    DamagedData,
    'alignment 0',
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_a_header_that_lies_is_refused_at_once(written, case):
  data, error, line = CASES[case]
  path = written(data)
  tracemalloc.start()
  try:
    with pytest.raises(error, match=line) as caught:
      read(path)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert type(caught.value) is error
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)
  # The files have some hundred bytes; the reader's buffer has 128 KiB.
  assert peak < 1 << 20


def test_more_than_a_header_may_take_is_refused(written, monkeypatch):
  monkeypatch.setattr(gguf_header, '_MAX_BYTES', 100)
  path = written(tiny.header([tiny.field('a', tiny.STRING, 'x' * 100)]))
  with pytest.raises(DamagedData, match='a header of more than 100 bytes'):
    read(path)


def test_alignment_is_the_file_s_own(written):
  fields = [tiny.field('general.alignment', tiny.UINT32, 128)]
  data = tiny.pad(tiny.header(fields, [F32_AT_0]), 128) + bytes(range(32))
  info = read(written(data)).tensors['w']
  assert info.offset % 128 == 0
  assert data[info.offset : info.offset + info.size] == bytes(range(32))


@given(data=st.data())
@settings(
  max_examples=300,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_altered_file_opens_or_is_refused(written, data):
  whole = tiny.llama()
  length = data.draw(st.integers(0, len(whole)))
  start = data.draw(st.integers(0, 2500))  # Within the header.
  new = data.draw(st.binary(max_size=12))
  changed = bytearray(whole[:length] if data.draw(st.booleans()) else whole)
  changed[start : start + len(new)] = new
  try:
    source = gguf_files.open_source(written(bytes(changed)))
    source.tokenizer_files()
  except BadInput as e:
    assert '\n' not in str(e)
