"""The cache of compiled programs; what the whole program does with it is slow."""

import json
import os
import pathlib
import stat
import subprocess
import sys

import jax
import pytest

from scmdm_jax.errors import BadInput
from scmdm_jax.runs import compilation_cache
from tests import tiny_run

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def config(monkeypatch):
  """JAX's options are as before after each test."""
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_enable_compilation_cache', True)
  yield
  jax.config.update('jax_enable_compilation_cache', False)
  jax.config.update('jax_compilation_cache_dir', before)


def test_directory_is_made_for_the_user_alone(tmp_path):
  compilation_cache.use(str(tmp_path / 'new'))
  report = compilation_cache.report()
  assert report['state'] == 'cold'
  directory = pathlib.Path(report['directory'])
  for path in (directory, directory.parent):
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
  assert directory.parent == tmp_path / 'new'


@pytest.mark.parametrize('mode', [0o777, 0o770, 0o702])
def test_directory_that_others_may_write_to_is_refused(tmp_path, mode):
  tmp_path.chmod(mode)
  with pytest.raises(BadInput, match=f'others may write to {tmp_path}'):
    compilation_cache.use(str(tmp_path))


def test_directory_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(BadInput, match=r'file/cache cannot be made \(Not a directory\)'):
    compilation_cache.use(str(tmp_path / 'file' / 'cache'))


@pytest.mark.slow
def test_fresh_cache_starts_empty_each_time_and_is_found_again():
  def double(x):
    return x + x

  for _ in range(2):
    with compilation_cache.fresh() as found:
      counts = []
      for _ in range(2):
        jax.clear_caches()
        jax.jit(double).lower(1.0).compile()
        counts.append(found())
      assert counts == [0, 1]
  assert jax.config.jax_compilation_cache_dir is None


def test_it_may_be_switched_off(tmp_path, monkeypatch):
  compilation_cache.use(str(tmp_path))
  compilation_cache.use('off')
  assert compilation_cache.report() == {'state': 'off'}
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.use(str(tmp_path / 'unused'))
  assert compilation_cache.report() == {'state': 'off'}
  assert not (tmp_path / 'unused').exists()


def test_default_is_below_home_and_gives_way_to_jaxs_own(tmp_path, monkeypatch):
  monkeypatch.setattr(pathlib.Path, 'home', lambda: tmp_path)
  compilation_cache.use('')
  wanted = tmp_path / '.cache' / 'scmdm_jax' / 'xla'
  assert pathlib.Path(compilation_cache.report()['directory']).parent == wanted
  jax.config.update('jax_compilation_cache_dir', 'elsewhere')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'elsewhere')
  compilation_cache.use('')
  assert compilation_cache.report()['directory'] == 'elsewhere'


@pytest.mark.long
def test_second_run_is_warm_and_traces_are_written(tmp_path):
  config = tiny_run.write_config(tmp_path)
  states = []
  for name in ('first', 'second'):
    workdir = tmp_path / name
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'scmdm_jax.main', f'--config={config}'),
        *(f'--workdir={workdir}', '--config.profile.steps=3:4'),
        f'--config.compilation_cache={tmp_path / "cache"}',
      ],
      cwd=ROOT,
      env={**os.environ, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    metadata = json.loads((workdir / 'metadata.json').read_text())
    states.append(metadata['compilation_cache']['state'])
    assert list((workdir / 'profile').rglob('*.xplane.pb'))
  assert states == ['cold', 'warm']
