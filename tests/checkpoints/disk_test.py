import codecs
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.checkpoints import disk
from scmdm_jax.errors import BadInput, DamagedData


def test_directory_appears_with_all_its_files(tmp_path):
  path = tmp_path / 'deep' / 'down'
  with disk.new_directory(path) as temporary:
    (temporary / 'sub').mkdir()
    (temporary / 'sub' / 'a').write_text('a')
    assert not path.exists()
  assert (path / 'sub' / 'a').read_text() == 'a'
  assert [p.name for p in path.parent.iterdir()] == ['down']


@pytest.mark.parametrize('error', [ValueError('bug'), KeyboardInterrupt()])
def test_interrupted_directory_leaves_the_old_one(tmp_path, error):
  path = tmp_path / 'x'
  path.mkdir()
  (path / 'old').touch()
  with pytest.raises(type(error)), disk.new_directory(path) as temporary:
    (temporary / 'new').touch()
    raise error
  assert [p.name for p in tmp_path.iterdir()] == ['x']
  assert [p.name for p in path.iterdir()] == ['old']


def test_an_empty_directory_through_a_link(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  with disk.new_directory(tmp_path / 'link') as temporary:
    (temporary / 'a').touch()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['link', 'real']
  assert (tmp_path / 'link').is_symlink()
  assert [p.name for p in (tmp_path / 'real').iterdir()] == ['a']


def test_what_a_killed_process_left_is_removed_but_not_what_a_live_one_writes(tmp_path):
  path = tmp_path / 'x[1]'
  abandoned, other = tmp_path / '.x[1].tmp-1-ab', tmp_path / '.x[1]y.tmp-1-ab'
  for directory in (abandoned, other):
    (directory / 'sub').mkdir(parents=True)
  with disk.new_directory(path) as temporary:
    assert not abandoned.exists()
    with disk.new_directory(path) as second:
      (second / 'b').touch()
    assert temporary.exists()
    (temporary / 'a').touch()
  assert [p.name for p in path.iterdir()] == ['a']
  assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, path.name]


def test_full_disk_is_one_line_with_the_free_space(tmp_path):
  with (
    pytest.raises(DamagedData, match=r'No space left on device\), \d+ bytes are free'),
    disk.new_directory(tmp_path / 'x'),
  ):
    raise OSError(errno.ENOSPC, 'No space left on device')
  assert list(tmp_path.iterdir()) == []


def test_parent_that_is_a_file(tmp_path):
  (tmp_path / 'file').touch()
  with (
    pytest.raises(BadInput, match='file/x: cannot create it'),
    disk.new_directory(tmp_path / 'file' / 'x'),
  ):
    pass


def test_json_that_is_not_there(tmp_path):
  with pytest.raises(BadInput, match='No such file'):
    disk.read_json(tmp_path / 'c.json')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_json_with_any_mark(tmp_path, encoding):
  (tmp_path / 'c.json').write_bytes('{"é":\r\n 1}'.encode(encoding))
  assert disk.read_json(tmp_path / 'c.json') == {'é': 1}


@settings(max_examples=200, deadline=None)
@given(st.binary(), st.sampled_from([b'', b'{"a": ', codecs.BOM_UTF8, b'\xff\xfe']))
def test_any_bytes_are_an_object_or_one_line(tmp_path_factory, content, head):
  path = tmp_path_factory.mktemp('t') / 'c.json'
  path.write_bytes(head + content)
  try:
    assert isinstance(disk.read_json(path), dict)
  except DamagedData as error:
    assert '\n' not in str(error)
