"""Files of text: packing, encodings, line ends."""

import codecs
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data import reading
from scmdm_jax.errors import BadInput, DamagedData
from tests.data import packed

TEXT = 'one\r\ntwo é\u2028 and \x85\rthree\n\n'
READ = 'one\ntwo é\u2028 and \x85\nthree\n\n'
# Any text that UTF-8 can write.
UNICODE = st.text(st.characters(exclude_categories=['Cs']))
# A folder of hypothesis' own: `tmp_path` would be one for all examples.
QUICK = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize('ending', packed.WAYS)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_text_is_text_however_it_is_written(tmp_path, ending, encoding):
  path = tmp_path / f'a.TXT{ending.upper()}'
  path.write_bytes(packed.WAYS[ending](TEXT.encode(encoding)))
  assert reading.text(path) == READ
  assert list(reading.lines(path)) == READ.split('\n')[:-1]
  assert reading.suffix(path) == '.txt'


@pytest.mark.parametrize('mark', [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_big_endian(tmp_path, mark):
  name = 'utf-16-be' if mark == codecs.BOM_UTF16_BE else 'utf-32-be'
  (tmp_path / 'a').write_bytes(mark + TEXT.encode(name))
  assert reading.text(tmp_path / 'a') == READ


def test_pieces_may_end_anywhere(tmp_path, monkeypatch):
  path = tmp_path / 'a'
  path.write_bytes(('\ufeff' + TEXT * 3).encode())
  for size in range(1, 9):  # Inside of a character, and between \r and \n.
    monkeypatch.setattr(reading, '_CHUNK', max(size, 4))
    assert reading.text(path) == READ * 3
    assert '\n'.join([*reading.lines(path), '']) == READ * 3


@pytest.mark.parametrize('ending', [e for e in packed.WAYS if e])
def test_what_is_cut_short_is_damage(tmp_path, ending):
  path = tmp_path / f'a.txt{ending}'
  whole = packed.WAYS['.gz' if ending == '.bgz' else ending](b'some text' * 999)
  for cut in (1, len(whole) // 2, len(whole) - 15):
    path.write_bytes(whole[:-cut])
    with pytest.raises(DamagedData, match='cannot be read') as caught:
      reading.text(path)
    assert '\n' not in str(caught.value)


def test_packing_is_known_by_content(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(packed.WAYS['.zst'](b'text'))
  assert reading.text(path) == 'text'
  (tmp_path / 'a.txt.gz').write_bytes(b'text')
  with pytest.raises(
    DamagedData, match=r'begins with b.text.\); take \.gz off its name'
  ):
    reading.text(tmp_path / 'a.txt.gz')
  # Ordinary texts that begin as a packed file nearly does.
  for text in ('BZh', 'BZh91', 'P*M\x18', '\x1f', '](', 'PAR'):
    path.write_text(text)
    assert reading.text(path) == text


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'abc\xe9 caf', r'not UTF-8 at byte 3 \(0xe9\)'),
    (b'\xef\xbb\xbfabc\xe2\x82', r'not UTF-8 at byte 6 \(0xe2\)'),
    (b'a' * 3_000_001 + b'\xff', r'not UTF-8 at byte 3000001 \(0xff\)'),
    (codecs.BOM_UTF16_LE + b'a', 'not UTF-16-LE at byte 2'),
    ('ab'.encode('utf-16-le'), 'character 0'),
    (b'a\0b', 'character 0'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'git lfs pull'),
  ],
)
def test_what_is_no_text_is_named_with_its_place(tmp_path, content, message):
  path = tmp_path / 'a.txt'
  path.write_bytes(content)
  with pytest.raises(BadInput, match=f'{re.escape(str(path))}: .*{message}'):
    reading.text(path)


def test_missing_files_are_named(tmp_path):
  with pytest.raises(BadInput, match='gone: No such file'):
    reading.text(tmp_path / 'gone')
  with pytest.raises(BadInput, match='Is a directory'):
    reading.text(tmp_path)


@QUICK
@given(UNICODE)
def test_any_text_comes_back_or_is_refused(tmp_path_factory, text):
  path = tmp_path_factory.mktemp('t') / 'a'
  path.write_bytes(text.encode())
  # Line ends are unified, one mark at the start is none of the text.
  wanted = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
  try:
    assert reading.text(path) == wanted
  except BadInput:
    assert '\0' in text
  assert reading.decode(text.replace('\0', '').encode(), 'x') == wanted.replace(
    '\0', ''
  )


@QUICK
@given(
  st.binary(), st.sampled_from([b'', b'\x1f\x8b', b'\xfd7zXZ\0', b'\x28\xb5\x2f\xfd'])
)
def test_any_bytes_are_text_or_one_line(tmp_path_factory, content, head):
  path = tmp_path_factory.mktemp('t') / 'a'
  path.write_bytes(head + content)
  try:
    list(reading.lines(path))
  except BadInput as error:
    assert '\n' not in str(error)


def test_time_grows_with_the_length_only(tmp_path):
  path, seconds = tmp_path / 'a', []
  for size in (2_000_000, 8_000_000):  # One line, then many empty ones.
    path.write_bytes(b'x' * size + b'\n' * size)
    start = time.process_time()
    assert sum(1 for _ in reading.lines(path)) == size
    seconds.append(time.process_time() - start)
  # Four times as long: 4 if linear, 16 if quadratic.
  assert seconds[1] < 8 * seconds[0] + 0.1
