"""Training killed with SIGKILL at random moments and restarted by the same command."""

import random
import time

import pytest

from scmdm_jax.checkpoints import training_store
from tests import tiny_run
from tests.faults import starting
from tests.faults.killing import finish, kill_when, lines_in, saved_steps

STEPS, SAVE_EVERY, KEEP = 48, 3, 2


@pytest.fixture
def start(tmp_path):
  """Starts the command on a workdir; a cache spares all but the first the compiling."""
  (tmp_path / 'cache').mkdir()
  processes = []

  def run(config, workdir):
    processes.append(
      starting.start(
        tmp_path / 'cache',
        *('--mode=train', f'--config={config}', f'--workdir={workdir}'),
        f'--config.train.num_steps={STEPS}',
        f'--config.train.save_every={SAVE_EVERY}',
        f'--config.train.keep={KEEP}',
      )
    )
    return processes[-1]

  yield run
  for process in processes:
    process.kill()
    process.communicate()


@pytest.mark.long
def test_killed_runs_end_where_an_uninterrupted_one_does(tmp_path, start):
  for name in ('one', 'many'):
    (tmp_path / name).mkdir()
  whole, run = tmp_path / 'one' / 'run', tmp_path / 'many' / 'run'
  finish(start(tiny_run.write_config(tmp_path / 'one'), whole))
  config = tiny_run.write_config(tmp_path / 'many')

  draw = random.Random(0)
  kills = 0

  def restart_and_kill(reached):
    nonlocal kills
    before = max(saved_steps(run), default=0)
    kills += kill_when(start(config, run), reached)
    saved = saved_steps(run)
    # Progress is never undone, and what is lost is at most the save under way and the
    # steps since it was started.
    assert max(saved, default=0) >= before
    assert lines_in(run) - max(saved, default=0) <= 2 * SAVE_EVERY
    return max(saved, default=0)

  # Some time after a random step: mostly in a save, which takes longer than steps;
  # once at the very moment the temporary directory of a checkpoint appears ...
  for share in (0.2, 0.6):
    target = int(STEPS * (share + draw.uniform(-0.1, 0.1)))
    delay = draw.uniform(0, 0.05)

    def reached(target=target, delay=delay):
      if lines_in(run) < target:
        return False
      time.sleep(delay)
      return True

    restart_and_kill(reached)
  seen = set((run / 'checkpoints').iterdir())
  restart_and_kill(
    lambda: any('tmp' in p.name for p in {*(run / 'checkpoints').iterdir()} - seen)
  )
  # ... and while the finished model is written.
  restart_and_kill(lambda: any(run.glob('.model.tmp-*')))
  assert kills == 4

  finish(start(config, run))
  assert tiny_run.curve(run) == tiny_run.curve(whole)
  assert [step for step, *_ in tiny_run.curve(run)] == list(range(1, STEPS + 1))
  assert tiny_run.model_bytes(run) == tiny_run.model_bytes(whole)
  assert saved_steps(run) == saved_steps(whole) == [STEPS - SAVE_EVERY, STEPS]
  with training_store.TrainingStore(run / 'checkpoints', KEEP) as checkpoints:
    assert checkpoints.steps() == [STEPS - SAVE_EVERY, STEPS]
  leftovers = [
    *(p for p in tmp_path.rglob('*') if 'tmp' in p.name or 'incomplete' in p.name)
  ]
  assert [p for p in leftovers if tmp_path / 'cache' not in p.parents] == []
  names = sorted(path.name for path in run.iterdir())
  assert names == sorted(path.name for path in whole.iterdir())
