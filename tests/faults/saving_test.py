"""Saves that can't be made: known before anything compiles, or soon after."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import numpy as np
import pytest

from scmdm_jax.checkpoints import steps
from scmdm_jax.errors import BadInput
from tests import tiny_run

pytestmark = pytest.mark.timeout(1200)


@contextlib.contextmanager
def mounted(path: pathlib.Path, size: str):
  """A file system of its own of `size`; skips where that is not allowed."""
  path.mkdir(parents=True)
  command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'none', str(path)]
  if (
    os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode
  ):
    pytest.skip('only root of a machine may mount')
  try:
    yield path
  finally:
    subprocess.run(['umount', '-l', str(path)], check=True)


def test_read_only_checkpoints(program, trained, tmp_path, fault):
  config, run = trained
  with mounted(tmp_path / 'run', '4m') as where:
    shutil.copytree(run, where, dirs_exist_ok=True)
    subprocess.run(['mount', '-o', 'remount,ro', str(where)], check=True)
    began = time.monotonic()
    message = program.refusal(f'--config={config}', f'--workdir={where}')
    taken = time.monotonic() - began
  assert 'cannot be written (Read-only file system)' in message
  fault('A read-only workdir', 1, 'exit 2, one line, at once', f'{taken:.1f} s')


def test_read_only_checkpoints_alone(program, tmp_path, fault):
  config = tiny_run.write_config(tmp_path)
  with mounted(tmp_path / 'run' / 'checkpoints', '4m') as where:
    subprocess.run(['mount', '-o', 'remount,ro', str(where)], check=True)
    began = time.monotonic()
    message = program.refusal(f'--config={config}', f'--workdir={where.parent}')
    taken = time.monotonic() - began
  assert message.startswith(f'{where}: cannot be written (Read-only file system)')
  fault('Read-only checkpoints', 1, 'exit 2, one line, at once', f'{taken:.1f} s')


def test_no_room(program, tmp_path, fault):
  config = tiny_run.write_config(tmp_path)
  with mounted(tmp_path / 'run' / 'checkpoints', '64k') as where:
    began = time.monotonic()
    message = program.refusal(f'--config={config}', f'--workdir={where.parent}')
    taken = time.monotonic() - began
  assert message.startswith(f'{where.parent}') or str(where) in message
  assert 'bytes are free; wanted' in message
  fault('No room for the checkpoints', 1, 'exit 2, both numbers', f'{taken:.1f} s')


@pytest.mark.parametrize('saves', [1, 2, 3, 9])
def test_room_is_asked_for_what_will_be_there(tmp_path, monkeypatch, saves):
  state = {'x': np.zeros(1000, np.float32)}
  where = tmp_path / 'checkpoints'
  wanted = 4000 * min(saves, 3)  # keep = 2, and the one that is being written.
  for free, enough in ((wanted, True), (wanted - 1, False)):
    usage = shutil._ntuple_diskusage(10**9, 0, free)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path, usage=usage: usage)
    with contextlib.nullcontext() if enough else pytest.raises(BadInput):
      steps.require_room(where, state, keep=2, saves=saves)


def fill(directory: pathlib.Path, process: subprocess.Popen) -> None:
  """Takes all room, that of steps which are deleted meanwhile too, until the end."""
  filler = os.open(directory / 'filler', os.O_WRONLY | os.O_CREAT)
  try:
    while process.poll() is None:
      with contextlib.suppress(OSError):
        while os.write(filler, b'0' * 4096):
          pass
      time.sleep(0.001)
  finally:
    os.close(filler)


@pytest.mark.long
@pytest.mark.parametrize('how', ['full', 'read-only'])
def test_a_save_that_fails_in_the_background(tmp_path, start, fault, how):
  config = tiny_run.write_config(tmp_path)
  with mounted(tmp_path / 'run' / 'checkpoints', '4m') as where:
    process = start(
      f'--config={config}',
      f'--workdir={where.parent}',
      '--config.train.num_steps=100000',
      '--config.train.save_every=200',
    )
    while not list(where.glob('*.digests.json')):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.01)
    began = time.monotonic()
    if how == 'full':
      fill(where, process)
    else:
      subprocess.run(['mount', '-o', 'remount,ro', str(where)], check=False)
    out, err = process.communicate(timeout=500)
    taken = time.monotonic() - began
    assert (process.returncode, out, err.count('\n')) == (3, '', 1), err
    assert f'{where}: saving failed (' in err
    assert 'are intact' in err
    (step, *_) = steps.complete_steps(where)
  fault(
    f'The disk of the checkpoints becomes {how} while a run trains',
    1,
    'exit 3, one line, within seconds, complete steps intact',
    f'{taken:.0f} s, step {step} intact',
  )
