"""Any number of signals at any time: one line, or two where SIGTERM is announced."""

import pathlib
import random
import signal
import time

import pytest

from tests import tiny_run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

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


def loaded(process, library):
  """Whether `process` has loaded a library whose path contains this."""
  return library in pathlib.Path(f'/proc/{process.pid}/maps').read_text()


# When the signals come: by what the run has done, however fast the machine is. Before
# the program's first line, which comes before `math`, signals are the interpreter's.
MOMENTS = {
  'the first imports': lambda process, run: loaded(process, '/math.'),
  'the last imports': lambda process, run: loaded(process, 'jaxlib'),
  'compilation': lambda process, run: (run / 'config.json').exists(),
  'the first step': lambda process, run: (run / 'metrics.jsonl').exists(),
  'a save': lambda process, run: list(run.glob('checkpoints/*tmp*')),
  'later': lambda process, run: (run / 'checkpoints' / '100').exists(),
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_interrupts_at_random_times(tmp_path, start, fault, moment):
  draw = random.Random(moment)
  process = train(start, tmp_path)
  while not MOMENTS[moment](process, tmp_path / 'run'):
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.001)
  time.sleep(draw.uniform(0, 0.1))
  signals = draw.choice([1, 2, 3, 10])
  for _ in range(signals):
    process.send_signal(signal.SIGINT)
    time.sleep(draw.choice([0, 0.001, 0.3]))
  out, err = process.communicate(timeout=500)
  assert (process.returncode, out, err) == (130, '', INTERRUPTED)
  fault(
    f'{signals} SIGINT within moments of {moment} of a run',
    1,
    'exit 130, one line',
    'as expected',
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
    out, err = process.communicate(timeout=500)
    # The last may come when the handlers are gone again: a shell has 143 for it.
    assert process.returncode in (75, 130, 143, -signal.SIGTERM)
    assert out == '' and 'Traceback' not in err
    lines = [line for line in err.splitlines(keepends=True) if line != ASKED]
    assert len(lines) <= 1, err
  fault(
    'Five signals, SIGTERM and SIGINT in any order, while a run trains',
    count,
    'the announcement of SIGTERM and at most one line',
    f'{count} as expected',
  )
