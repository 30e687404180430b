"""The whole program as two processes, of two or four devices each."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from tests import compiling, tiny_run
from tests.processes import processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

# The program; given a file and a number of lines, process 1 sends itself SIGTERM as
# soon as the file has them.
PROGRAM = """\
import os, pathlib, signal, sys, threading, time
def interrupt(path, lines):
  while not path.exists() or path.read_text().count('\\n') < lines:
    time.sleep(0.01)
  os.kill(os.getpid(), signal.SIGTERM)
path, lines, *arguments = sys.argv[1:]
if lines != '0' and os.environ['SCMDM_PROCESS_ID'] == '1':
  watcher = (pathlib.Path(path), int(lines))
  threading.Thread(target=interrupt, args=watcher, daemon=True).start()
from scmdm_jax.main import main
from scmdm_jax.processes import multihost
code = main(['main.py', *arguments])
multihost.end(code)
sys.exit(code)
"""


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('two')
  tiny_run.write_config(path)
  return path


def run(
  directory,
  mode,
  name,
  *options,
  count=2,
  devices=2,
  stop_at=0,
  watched='metrics.jsonl',
):
  """Exit code, output and errors of a run in `directory/name`."""
  words = [str(directory / name / watched), str(stop_at)]
  return processes.run(
    count,
    *('-c', PROGRAM, *words, *words_of(directory, mode, name), *options),
    XLA_FLAGS=compiling.flags(devices),
  )


def words_of(directory, mode, name):
  return [
    *(f'--mode={mode}', f'--config={directory / "tiny.py"}'),
    *(f'--workdir={directory / name}', '--config.mesh.data=1'),
    '--config.mesh.fsdp=-1',
  ]


def saved_steps(workdir):
  paths = (workdir / 'checkpoints').glob('*/commit_success.txt')
  return sorted(int(path.parent.name) for path in paths if path.parent.name.isdecimal())


def test_signal_to_one_saves_one_step_in_both_and_the_same_command_resumes(directory):
  options = ['--config.train.num_steps=60', '--config.train.save_every=1000']
  code, out, err = run(directory, 'train', 'run', *options, stop_at=20)
  assert (code, [line for line in out.splitlines() if '{' in line]) == (75, []), err
  (step,) = saved_steps(directory / 'run')
  assert 20 <= step < 60
  for process in range(2):
    assert (
      f'[{process}] training: stopped by SIGTERM, step {step} of 60 is saved' in err
    )

  code, out, err = run(directory, 'train', 'run', *options)
  assert code == 0, err
  (line,) = [line for line in out.splitlines() if '{' in line]
  assert json.loads(line.removeprefix('[0] '))['steps'] == 60
  steps = [step for step, *_ in tiny_run.curve(directory / 'run')]
  assert steps == list(range(1, 61))

  # What two processes have trained, two and one sample alike.
  options = [
    f'--config.checkpoint={directory / "run"}',
    *('--config.sample.num_samples=10', '--config.sample.batch_size=4'),
    '--config.sample.num_steps=4',
  ]
  for count in (1, 2):
    code, _, err = run(directory, 'sample', f'of {count}', *options, count=count)
    assert code == 0, err
  one, two = (directory / f'of {count}' / 'samples.jsonl' for count in (1, 2))
  assert one.read_text() == two.read_text()


def test_second_signal_ends_both_at_once_and_leaves_what_was_saved(directory):
  options = ['--config.train.num_steps=200', '--config.train.save_every=20']
  words = ['', '0', *words_of(directory, 'train', 'twice'), *options]
  process = processes.start(2, '-c', PROGRAM, *words, XLA_FLAGS=compiling.flags(2))
  try:
    while not saved_steps(directory / 'twice'):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    before = saved_steps(directory / 'twice')
    process.terminate()
    while 'SIGTERM: the run stops' not in process.stderr.readline():
      assert process.poll() is None
    process.terminate()
    _, err = process.communicate(timeout=100)
  finally:
    process.terminate()
  # The second may come when the first has already done its work in one of them.
  assert process.returncode in (75, 128 + signal.SIGTERM), err
  assert saved_steps(directory / 'twice')[-1] >= before[-1]
  code, _, err = run(directory, 'train', 'twice', *options)
  assert code == 0, err
  steps = [step for step, *_ in tiny_run.curve(directory / 'twice')]
  assert steps == list(range(1, 201))


def test_two_processes_of_four_devices_are_one_of_eight(directory):
  options = ['--config.train.num_steps=20', '--config.train.save_every=10']
  one, two = {'count': 1, 'devices': 8}, {'count': 2, 'devices': 4}
  for name, how in (('eight', one), ('twice four', two)):
    code, _, err = run(directory, 'train', name, *options, **how)
    assert code == 0, err
  # The first half by one of them, the second by the other.
  for name, first, second in (('one two', one, two), ('two one', two, one)):
    code, _, err = run(directory, 'train', name, *options, **first)
    assert code == 0, err
    shutil.rmtree(directory / name / 'checkpoints' / '20')
    shutil.rmtree(directory / name / 'model')
    code, _, err = run(directory, 'train', name, *options, **second)
    assert code == 0, err
  wanted = np.array(tiny_run.curve(directory / 'eight'))
  assert wanted[:, 0].tolist() == list(range(1, 21))
  model = tiny_run.model_bytes(directory / 'eight')
  for name in ('twice four', 'one two', 'two one'):
    # Float32 sums in another order; of parameters as in `sameness_program`, at a rate
    # of 1e-2 here.
    found = np.array(tiny_run.curve(directory / name))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, err_msg=name)
    for path, data in tiny_run.model_bytes(directory / name).items():
      np.testing.assert_allclose(
        np.frombuffer(data, np.float32),
        np.frombuffer(model[path], np.float32),
        atol=2e-3,
        err_msg=f'{name} {path}',
      )
  for name, how in (('drawn by eight', one), ('drawn by twice four', two)):
    code, _, err = run(
      *(directory, 'sample', name, f'--config.checkpoint={directory / "twice four"}'),
      *('--config.sample.num_samples=10', '--config.sample.num_steps=4'),
      **how,
    )
    assert code == 0, err
  one, two = (
    directory / f'drawn by {n}/samples.jsonl' for n in ('eight', 'twice four')
  )
  assert one.read_text() == two.read_text()


@pytest.mark.parametrize('mode', ['sample', 'evaluate'])
def test_signal_to_one_ends_the_sampling_of_both(directory, mode):
  name = f'base of {mode}'
  code, _, err = run(directory, 'train', name, '--config.train.num_steps=4')
  assert code == 0, err
  code, out, err = run(
    *(directory, mode, mode, f'--config.checkpoint={directory / name}'),
    # Hours.
    *('--config.sample.num_samples=10000000', '--config.evaluate.repeats=10000000'),
    *('--config.sample.num_steps=2', '--config.evaluate.batch_size=8'),
    stop_at=1,
    watched='metadata.json',
  )
  assert (code, [line for line in out.splitlines() if '{' in line]) == (75, []), err
  what = {'sample': 'sampling', 'evaluate': 'evaluation'}[mode]
  for process in range(2):
    assert f'[{process}] {what}: stopped by SIGTERM, nothing half done' in err
  names = {path.name for path in (directory / mode).iterdir()}
  assert names == {'.lock', 'config.json', 'metadata.json'}


def test_other_options_end_both(directory):
  program = PROGRAM.replace(
    'code = main',
    'arguments.append("--config.seed=" + os.environ["SCMDM_PROCESS_ID"])\ncode = main',
  )
  config = f'--config={directory / "tiny.py"}'
  code, out, err = processes.run(
    2, '-c', program, '', '0', config, f'--workdir={directory / "other"}'
  )
  assert (code, out) == (2, '')
  for process in range(2):
    line = f'[{process}] error: seed: process 0 was started with 0, process 1 with 1;'
    assert line in err
  assert not (directory / 'other').exists()
