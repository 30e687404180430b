import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from scmdm_jax.checkpoints import digests
from scmdm_jax.errors import BadInput, DamagedData

EVERYTHING = 1 << 62


@pytest.fixture
def written(tmp_path):
  """A directory of two files with its manifest inside."""
  (tmp_path / 'a').write_bytes(b'x' * 100)
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub' / 'b').write_bytes(b'')
  digests.record(tmp_path, tmp_path / digests.MANIFEST)
  return tmp_path


def check(directory, verify_below=EVERYTHING):
  return digests.check(directory, directory / digests.MANIFEST, verify_below)


def test_manifest_is_what_sha256sum_says(written):
  assert json.loads((written / 'digests.json').read_text()) == {
    'format': 1,
    'files': {
      'a': {'bytes': 100, 'sha256': hashlib.sha256(b'x' * 100).hexdigest()},
      'sub/b': {'bytes': 0, 'sha256': hashlib.sha256().hexdigest()},
    },
  }
  assert check(written) == {'files': 2, 'bytes': 100, 'contents': True}


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda d: flip(d / 'a', 50), 'altered a'),
    (lambda d: (d / 'a').write_bytes(b'x' * 99), 'a: 99 bytes, wanted 100'),
    (lambda d: (d / 'sub' / 'b').unlink(), 'missing sub/b'),
    (lambda d: (d / 'sub' / 'c').touch(), 'foreign sub/c'),
    (lambda d: (d / 'sub' / 'd').symlink_to('/'), 'foreign sub/d'),
  ],
)
def test_every_damage_is_named(written, damage, message):
  damage(written)
  with pytest.raises(DamagedData) as caught:
    check(written)
  assert str(caught.value) == (
    f'{written}: not what was written: {message}; use another copy'
  )


def test_many_damages_are_one_line(written):
  for i in range(20):
    (written / f'new{i:02}').touch()
  with pytest.raises(DamagedData, match=r'foreign new07 and 12 more; use') as caught:
    check(written)
  assert '\n' not in str(caught.value)


def test_above_the_limit_contents_are_not_read_and_that_is_said(written, caplog):
  flip(written / 'a', 50)
  assert check(written, 100) == {'files': 2, 'bytes': 100, 'contents': False}
  assert 'contents not verified: 100 bytes, and verify_below is 100' in caplog.text
  caplog.clear()
  assert not check(written, 0)['contents']
  assert caplog.text == ''  # Asked for.
  with pytest.raises(DamagedData, match='altered a'):
    check(written, 101)
  # Names and sizes are compared all the same.
  (written / 'a').write_bytes(b'x' * 99)
  with pytest.raises(DamagedData, match='a: 99 bytes'):
    check(written, 0)


@pytest.mark.parametrize(
  ('text', 'error', 'message'),
  [
    ('{"format": 2, "files": {}}', BadInput, 'format is 2; this version reads 1'),
    ('{"format": 1, "files": []}', DamagedData, 'not a manifest'),
    ('{"format": 1, "files": {"a": {"bytes": 1}}}', DamagedData, 'not a manifest'),
    ('{"format": 1', DamagedData, 'not JSON'),
  ],
)
def test_bad_manifests(written, text, error, message):
  (written / 'digests.json').write_text(text)
  with pytest.raises(error, match=message):
    check(written)


def test_orbax_alone_lets_a_flipped_bit_through(tmp_path):
  """Why digests are needed: one bit of array data, loaded without a word."""
  values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
  context = ocp.Context()
  context.array.saving.use_compression = False
  with context:
    ocp.save(str(tmp_path / 'params'), {'x': jnp.asarray(values)})
  digests.record(tmp_path, tmp_path / digests.MANIFEST)
  (file,) = [p for p in tmp_path.rglob('*') if p.is_file() and p.stat().st_size > 9000]
  position = file.read_bytes().index(values.tobytes()[:64])
  flip(file, position + 2)
  loaded = ocp.load(str(tmp_path / 'params'), {'x': jnp.zeros((64, 64))})['x']
  assert int((np.asarray(loaded) != values).sum()) == 1
  with pytest.raises(DamagedData, match=f'altered {file.relative_to(tmp_path)}'):
    check(tmp_path)
