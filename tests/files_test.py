import json
import os
import pathlib
import re
import stat

import pytest

from scmdm_jax import files

PACKAGE = pathlib.Path(files.__file__).parent


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
  path = tmp_path / 'report.json'
  files.write_text(path, 'old')

  def fail(*args):
    raise OSError('no space')

  for name in ('fsync', 'replace'):
    with monkeypatch.context() as patch:
      patch.setattr(os, name, fail)
      with pytest.raises(OSError, match='no space'):
        files.write_text(path, 'new')
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['report.json']
  mask = os.umask(0)
  os.umask(mask)
  assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_the_file_appears_when_the_block_is_done(tmp_path):
  path = tmp_path / 'x'
  with files.replacing(path) as temporary:
    temporary.write_bytes(b'1')
    assert not path.exists()
  assert path.read_bytes() == b'1'
  with pytest.raises(KeyError), files.replacing(path) as temporary:
    temporary.write_bytes(b'2')
    raise KeyError
  assert (path.read_bytes(), os.listdir(tmp_path)) == (b'1', ['x'])


def test_what_is_written_is_utf8_with_line_feeds(tmp_path):
  path = tmp_path / 'x.json'
  files.write_json(path, {'x': [1, None, 'ü']})
  assert json.loads(path.read_bytes()) == {'x': [1, None, 'ü']}
  files.write_text(path, 'ü\n')
  assert path.read_bytes() == b'\xc3\xbc\n'
  with pytest.raises(ValueError, match='JSON'):
    files.write_json(path, {'x': float('nan')}, allow_nan=False)
  assert path.read_bytes() == b'\xc3\xbc\n'


def test_nobody_else_renames_a_file():
  """Directories are renamed where they appear whole, or are set aside."""
  renaming = re.compile(r'\.rename\(|\.replace\(\w+\)$|os\.(rename|replace)\(', re.M)
  found = {
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob('*.py')
    if renaming.search(path.read_text())
  }
  assert found == {
    'files.py',
    'checkpoints/disk.py',
    'checkpoints/training_store.py',
    'report/pictures.py',
  }
