"""SIGTERM to the program, in every mode that takes its time."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import compiling, tiny_run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 2000
# Starting a program takes seconds, on a busy machine many.
ASKED = 'SIGTERM: the run stops after this step; a second one ends it at once\n'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A folder with a config, its data, a model, and compiled programs."""
  directory = tmp_path_factory.mktemp('trained')
  config = tiny_run.write_config(directory)
  options = [f'--config={config}', f'--workdir={directory / "model"}']
  process = _start(directory, '--mode=train', *options)
  assert process.wait(timeout=500) == 0, process.stderr.read()
  process.communicate()
  return directory


def _start(directory, *options):
  return subprocess.Popen(
    [sys.executable, '-m', 'scmdm_jax.main', *options],
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': compiling.flags(),
      'JAX_COMPILATION_CACHE_DIR': str(directory / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def start(trained, tmp_path):
  """Starts a mode on `tmp_path/NAME`; ended at the end of the test, however it went."""
  processes = []

  def run(mode, name, *options):
    config, workdir = trained / 'tiny.py', tmp_path / name
    words = [f'--mode={mode}', f'--config={config}', f'--workdir={workdir}']
    processes.append(_start(trained, *words, *options))
    return processes[-1]

  yield run
  for process in processes:
    process.kill()
    process.communicate()


def wait_for(process, reached):
  while not reached():
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)


def lines_in(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def train(start, name, steps=STEPS):
  return start(
    'train',
    name,
    f'--config.train.num_steps={steps}',
    '--config.train.save_every=1000000',
  )


def saved_steps(workdir):
  paths = (workdir / 'checkpoints').glob('*/commit_success.txt')
  return sorted(int(path.parent.name) for path in paths if path.parent.name.isdecimal())


def test_training_saves_its_step_and_leaves(tmp_path, start):
  run = tmp_path / 'run'
  process = train(start, 'run')
  wait_for(process, lambda: lines_in(run) > 10)
  process.terminate()
  out, err = process.communicate(timeout=500)
  assert (process.returncode, out) == (75, '')
  (step,) = saved_steps(run)
  assert 10 < step < STEPS
  assert err.endswith(
    f'{ASKED}training: stopped by SIGTERM, step {step} of {STEPS} is saved; the same '
    'command resumes\n'
  )
  assert not (run / 'model').exists()


@pytest.mark.long
def test_stopped_run_ends_in_the_same_bits(tmp_path, start):
  steps = 100
  whole = train(start, 'whole', steps)
  assert whole.wait(timeout=500) == 0
  for _ in range(2):
    process = train(start, 'parts', steps)
    before = lines_in(tmp_path / 'parts')
    wait_for(process, lambda before=before: lines_in(tmp_path / 'parts') > before + 20)
    process.terminate()
    assert process.wait(timeout=500) == 75
  assert train(start, 'parts', steps).wait(timeout=500) == 0
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert tiny_run.curve(parts) == tiny_run.curve(whole)
  assert tiny_run.model_bytes(parts) == tiny_run.model_bytes(whole)


@pytest.mark.long
def test_second_signal_leaves_the_last_checkpoint_intact(tmp_path, start):
  run = tmp_path / 'run'
  process = train(start, 'run')
  wait_for(process, lambda: lines_in(run) > 10)
  process.terminate()
  process.wait(timeout=500)
  (step,) = saved_steps(run)
  again = train(start, 'run')
  wait_for(again, lambda: lines_in(run) > step + 10)
  again.terminate()
  assert again.stderr.readline() == ASKED
  again.terminate()
  assert again.wait(timeout=500) in (75, 128 + signal.SIGTERM)
  assert saved_steps(run)[-1] >= step
  third = train(start, 'run', STEPS)
  wait_for(third, lambda: lines_in(run) > step + 20)
  third.terminate()
  assert third.wait(timeout=500) == 75


@pytest.mark.parametrize('mode', ['sample', 'evaluate'])
def test_others_stop_between_batches_and_leave_nothing_half_done(
  tmp_path, start, trained, mode
):
  process = start(
    mode,
    'run',
    f'--config.checkpoint={trained / "model"}',
    # Hours.
    '--config.sample.num_samples=10000000',
    '--config.evaluate.repeats=10000000',
  )
  wait_for(process, (tmp_path / 'run' / 'metadata.json').exists)
  time.sleep(1)
  process.terminate()
  out, err = process.communicate(timeout=500)
  assert (process.returncode, out) == (75, '')
  what = {'sample': 'sampling', 'evaluate': 'evaluation'}[mode]
  assert err.endswith(
    f'{ASKED}{what}: stopped by SIGTERM, nothing half done was written; the same '
    'command starts it again\n'
  )
  names = {path.name for path in (tmp_path / 'run').iterdir()}
  assert names == {'.lock', 'config.json', 'metadata.json'}


def test_judging_stops_between_batches(tmp_path, start):
  texts = tmp_path / 'texts.jsonl'
  texts.write_text('{"text": "CCO"}\n' * 200_000)
  assets = ROOT / 'scmdm_jax' / 'assets'
  options = [f'--source={texts}', f'--config.judge={assets / "qm9_judge"}']
  process = start('judge', 'run', *options, '--config.evaluate.batch_size=1')
  wait_for(process, (tmp_path / 'run' / 'metadata.json').exists)
  time.sleep(1)
  process.terminate()
  out, err = process.communicate(timeout=500)
  assert (process.returncode, out) == (75, '')
  assert err.endswith(
    f'{ASKED}judging: stopped by SIGTERM, nothing half done was written; the same '
    'command starts it again\n'
  )
  names = {path.name for path in (tmp_path / 'run').iterdir()}
  assert names == {'.lock', 'config.json', 'metadata.json', 'imported'}
