"""A long run with many saves: nothing grows, and random kills change no bit of it."""

import pathlib
import random
import time

import numpy as np
import pytest

from tests import tiny_run
from tests.faults import killing

STEPS, SAVE_EVERY, KILLS = 300, 5, 20


def observed(process):
  """Descriptors, threads and resident bytes of a process that runs."""
  root = pathlib.Path('/proc', str(process.pid))
  pages = int((root / 'statm').read_text().split()[1])
  return (
    len(list((root / 'fd').iterdir())),
    len(list((root / 'task').iterdir())),
    pages * 4096,
  )


def watch(process, run):
  """What is observed whenever another step was saved, until the process ends."""
  seen, last = [], None
  while process.poll() is None:
    newest = max(killing.saved_steps(run), default=None)
    if newest != last:
      last = newest
      try:
        seen.append(observed(process))
      except (FileNotFoundError, ProcessLookupError):
        break
    time.sleep(0.01)
  return np.array(seen)


def leftovers(directory):
  names = [p.name for p in directory.rglob('*')]
  return [name for name in names if 'tmp' in name or 'incomplete' in name]


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_300_steps_with_saves_samples_and_random_kills(
  program, tmp_path, start, fault, count
):
  draw, kills, lost = random.Random(0), 0, 0
  runs = {name: tmp_path / name / 'run' for name in ('whole', 'killed')}
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  commands = {}
  for name, run in runs.items():
    run.parent.mkdir()
    config = tiny_run.write_config(run.parent)
    commands[name] = (
      *(f'--config={config}', f'--workdir={run}'),
      *(f'--config.train.num_steps={STEPS}', '--config.train.keep=2'),
      *(f'--config.train.save_every={SAVE_EVERY}', '--config.train.evaluate_every=50'),
    )

  def begin(name):
    return start(*commands[name], TMPDIR=str(temporary))

  process = begin('whole')
  seen = watch(process, runs['whole'])
  killing.finish(process)
  assert len(seen) >= STEPS // SAVE_EVERY // 3
  third = len(seen) // 3
  early, late = seen[third : 2 * third].max(0), seen[2 * third :].max(0)
  # Saves come and go in the background, each with a few descriptors and threads.
  assert late[0] <= early[0] + 8 and late[1] <= early[1] + 8, (early, late)
  assert late[2] <= 1.05 * early[2], (early, late)

  killed = runs['killed']
  for n in range(KILLS):
    target = int(STEPS * (n + draw.uniform(0.5, 1)) / (KILLS + 1))
    before = max(killing.saved_steps(killed), default=0)
    delay = draw.uniform(0, 0.05)

    def reached(target=target, delay=delay):
      if killing.lines_in(killed) < target:
        return False
      time.sleep(delay)
      return True

    kills += killing.kill_when(begin('killed'), reached)
    saved = max(killing.saved_steps(killed), default=0)
    assert saved >= before
    lost = max(lost, killing.lines_in(killed) - saved)
  killing.finish(begin('killed'))
  # The save under way, and the step that would have begun the next one.
  assert kills == KILLS and lost <= 2 * SAVE_EVERY
  whole = runs['whole']
  assert tiny_run.curve(killed) == tiny_run.curve(whole)
  assert [step for step, *_ in tiny_run.curve(killed)] == list(range(1, STEPS + 1))
  assert tiny_run.model_bytes(killed) == tiny_run.model_bytes(whole)
  samples = []
  for name, run in runs.items():
    where = tmp_path / name / 'samples'
    program.figures(
      *('--mode=sample', commands[name][0], f'--workdir={where}'),
      *(f'--config.checkpoint={run}', '--config.sample.num_samples=4'),
      '--config.sample.num_steps=4',
    )
    samples.append((where / 'samples.jsonl').read_bytes())
  assert samples[0] == samples[1]
  assert leftovers(killed) == leftovers(temporary) == []
  assert sorted(p.name for p in killed.iterdir()) == sorted(
    p.name for p in whole.iterdir()
  )
  count('random kills, bitwise the same end', KILLS, kills)
  fault(
    f'kill -9 at random moments of {STEPS} steps with a save every {SAVE_EVERY}',
    KILLS,
    f'the same bits, curve and samples; at most {2 * SAVE_EVERY} steps lost each',
    f'{kills} of {KILLS} the same; at most {lost} steps lost',
  )
  fault(
    f'{STEPS} steps with {len(seen)} saves seen',
    1,
    'descriptors, threads and memory flat, no temporary file left',
    'descriptors {}, threads {}, '.format(*late)
    + f'{late[2] / 2**20:.0f} MB; in the middle {early[0]}, {early[1]}, '
    f'{early[2] / 2**20:.0f} MB',
  )
