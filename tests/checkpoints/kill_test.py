"""kill -9 during a save: the last committed step is what counts."""

import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.checkpoints import training_store

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = (512, 1024)  # 2 MB: a save takes long enough to be hit.
# Every element of step n is n, so that a mixture of two steps would show.
CHILD = f"""
import sys
import jax.numpy as jnp
from scmdm_jax.checkpoints import store, training_store
steps = training_store.TrainingStore(sys.argv[1], keep=2)
for step in range(1, 10_000):
  state = {{'a': jnp.full({SHAPE}, step), 'b': jnp.full({SHAPE}, step)}}
  steps.save(step, state, {{'next_index': step}}, {{}})
"""


def unfinished(directory):
  return list(directory.glob('*.orbax-checkpoint-tmp'))


def has_come(moment, directory):
  try:
    return directory.exists() and MOMENTS[moment](directory)
  except FileNotFoundError:  # The child renamed what was being listed.
    return False


# The temporary directory of a step turns into the step by one rename.
MOMENTS = {
  'first save': unfinished,
  'arrays being written': lambda d: (
    list(d.glob('*-tmp/state*/*')) and (d / '3').exists()
  ),
  'about to commit': lambda d: list(d.glob('*-tmp/commit_success.txt')),
  'pruning': lambda d: (d / '6').exists(),
}


@pytest.mark.long
@pytest.mark.parametrize('moment', MOMENTS)
def test_last_committed_step_survives(tmp_path, moment):
  directory = tmp_path / 'steps'
  child = subprocess.Popen([sys.executable, '-c', CHILD, str(directory)], cwd=ROOT)
  deadline = time.monotonic() + 500
  try:
    while not has_come(moment, directory):
      assert child.poll() is None, 'the child died by itself'
      assert time.monotonic() < deadline
      time.sleep(0.0005)
  finally:
    child.send_signal(signal.SIGKILL)
    child.wait()
  seen = {p.name for p in directory.iterdir()}
  with training_store.TrainingStore(directory, keep=2) as steps:
    latest = steps.latest_step()
    committed = [int(name) for name in seen if name.isdecimal()]
    assert latest == max(committed, default=None)
    template = {'a': jnp.zeros(SHAPE, int), 'b': jnp.zeros(SHAPE, int)}
    if latest is not None:
      state, data_state, _ = steps.restore(latest, template)
      assert data_state == {'next_index': latest}
      for leaf in state.values():
        np.testing.assert_array_equal(leaf, np.full(SHAPE, latest))
    # And the run goes on where it was.
    following = (latest or 0) + 1
    assert steps.save(following, template, {}, {})
    steps.wait()
    assert steps.latest_step() == following
  assert not unfinished(directory)
