"""kill -9 to both processes of a run while they save."""

import time

import pytest

from tests import tiny_run
from tests.faults import killing
from tests.faults.joining_test import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def begin(start, directory):
  """Both processes of the run below `directory`, on the same data."""
  directory.mkdir(exist_ok=True)
  place = {
    'SCMDM_COORDINATOR': f'127.0.0.1:{free_port()}',
    'SCMDM_NUM_PROCESSES': '2',
    'JAX_ENABLE_COMPILATION_CACHE': '0',
  }
  return [
    start(
      f'--config={directory.parent / "tiny.py"}',
      f'--workdir={directory}',
      *('--config.train.num_steps=30', '--config.train.save_every=5'),
      **place,
      SCMDM_PROCESS_ID=str(n),
    )
    for n in range(2)
  ]


def finish(processes):
  for process in processes:
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert 'Traceback' not in err


def test_both_killed_while_they_save(tmp_path, start, fault):
  tiny_run.write_config(tmp_path)
  finish(begin(start, tmp_path / 'whole'))
  run, kills = tmp_path / 'killed', 0
  for moment in ('-tmp', 'commit_success.txt'):
    processes = begin(start, run)
    before = killing.names_below(run / 'checkpoints')
    while all(p.poll() is None for p in processes):
      new = killing.names_below(run / 'checkpoints') - before
      if any(moment in name for name in new):
        for process in processes:
          process.kill()
        kills += 1
        break
      time.sleep(0.002)
    for process in processes:
      assert process.wait(timeout=60) == -9, process.stderr.read()
  finish(begin(start, run))
  assert tiny_run.curve(run) == tiny_run.curve(tmp_path / 'whole')
  assert tiny_run.model_bytes(run) == tiny_run.model_bytes(tmp_path / 'whole')
  assert killing.saved_steps(run) == killing.saved_steps(tmp_path / 'whole')
  fault(
    'kill -9 of both processes of a run during a save',
    kills,
    'the same bits in the end',
    f'{kills} times the same',
  )
