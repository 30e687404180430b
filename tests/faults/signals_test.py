"""Any number of signals at any time: one line, or two where SIGTERM is announced."""

import random
import signal
import time

import pytest

from tests import tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INTERRUPTED = 'error: interrupted; the same command resumes\n'
ASKED = 'SIGTERM: the run stops after this step; a second one ends it at once\n'


def train(start, directory):
  config = tiny_run.write_config(directory)
  return start(
    f'--config={config}',
    f'--workdir={directory / "run"}',
    '--config.train.num_steps=100000',
    '--config.train.save_every=20',
  )


def wait_until_python_runs(process):
  """Until the program's first line: before it, signals are the interpreter's."""
  maps = f'/proc/{process.pid}/maps'
  while process.poll() is None:
    with open(maps) as file:
      if 'math' in (text := file.read()) or 'numpy' in text:
        return
    time.sleep(0.005)


def test_interrupts_at_random_times(tmp_path, start, fault):
  draw, seen = random.Random(0), []
  for n in range(6):
    directory = tmp_path / str(n)
    directory.mkdir()
    process = train(start, directory)
    wait_until_python_runs(process)
    time.sleep(draw.choice([0.05, 0.5, 2, 6, 12]))
    for _ in range(draw.choice([1, 2, 3, 10])):
      process.send_signal(signal.SIGINT)
      time.sleep(draw.choice([0, 0.001, 0.3]))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, '', INTERRUPTED)
    seen.append(err)
  fault(
    '1 to 10 SIGINT within moments, at random times of a run',
    len(seen),
    'exit 130, one line',
    f'{len(seen)} times one line',
  )


def test_sigterm_and_interrupts_mixed(tmp_path, start, fault):
  draw, count = random.Random(1), 4
  process = None
  for n in range(count):
    directory = tmp_path / str(n)
    directory.mkdir()
    process = train(start, directory)
    while not (directory / 'run' / 'metrics.jsonl').exists():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.01)
    for _ in range(5):
      process.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM]))
      time.sleep(draw.choice([0, 0.001, 0.1]))
    out, err = process.communicate(timeout=120)
    assert process.returncode in (75, 130, 143)
    assert out == '' and 'Traceback' not in err
    lines = [line for line in err.splitlines(keepends=True) if line != ASKED]
    assert len(lines) <= 1, err
  fault(
    'Five signals, SIGTERM and SIGINT in any order, while a run trains',
    count,
    'the announcement of SIGTERM and at most one line',
    f'{count} as expected',
  )
