"""The steps of a training in a bucket: kept, pruned, resumed after kill -9."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scmdm_jax.buckets import staging
from scmdm_jax.checkpoints import training_store
from scmdm_jax.errors import DamagedData

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = (64, 1024)
# Every element of step n is n, so that a mixture of two steps would show.
CHILD = f"""
import sys
import numpy as np
from scmdm_jax.buckets import staging
from scmdm_jax.checkpoints import training_store
with staging.staged(sys.argv[1]) as workdir:
  with training_store.TrainingStore(workdir / 'checkpoints', keep=2) as steps:
    for step in range((steps.latest_step() or 0) + 1, int(sys.argv[2])):
      state = {{'a': np.full({SHAPE}, step), 'b': np.full({SHAPE}, step)}}
      steps.save(step, state, {{'next_index': step}}, {{}})
"""


def steps_of(names):
  """Steps with files, and those with a manifest."""
  found = []
  for pattern in (r'checkpoints/(\d+)/.*', r'checkpoints/(\d+)\.digests\.json'):
    matches = (re.fullmatch(pattern, name) for name in names)
    found.append({int(match[1]) for match in matches if match})
  return found


def resumed(url):
  """The newest step of a run that is opened again, and what it holds."""
  with (
    staging.staged(url) as workdir,
    training_store.TrainingStore(workdir / 'checkpoints', keep=2) as steps,
  ):
    step = steps.sound_step(fall_back=True)
    assert step is not None
    template = {'a': np.zeros(SHAPE, int), 'b': np.zeros(SHAPE, int)}
    state, data_state, _ = steps.restore(step, template)
    assert data_state == {'next_index': step}
    return step, state


@pytest.mark.long
@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_a_run_that_was_killed_goes_on_from_the_bucket(cloud, tree, tmp_path, scheme):
  files, bucket = cloud(scheme)
  url = f'{bucket}/run'
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)}
  command = [sys.executable, '-c', CHILD, url, '1000']
  child = subprocess.Popen(command, cwd=ROOT, env=environment)
  root = f'{url.partition("://")[2]}/checkpoints'
  try:
    while not files.glob(f'{root}/[3-9].digests.json'):
      assert child.poll() is None
      time.sleep(0.05)
  finally:
    child.send_signal(signal.SIGKILL)
    child.wait()
  _, whole = steps_of(tree(files, url))
  step, state = resumed(url)
  assert step == max(whole)
  for leaf in state.values():
    np.testing.assert_array_equal(leaf, np.full(SHAPE, step))
  # Retention, and nothing left of a step that was under way.
  found, whole = steps_of(tree(files, url))
  assert found == whole and step in whole
  subprocess.run([*command[:-1], str(step + 3)], cwd=ROOT, env=environment, check=True)
  found, whole = steps_of(tree(files, url))
  assert found == whole == {step + 1, step + 2}
  # What the killed one had copied is gone, too; and no lock is left.
  assert not list(tmp_path.glob('.scmdm_jax-*'))
  assert not [name for name in tree(files, url) if name.startswith('.lock')]

  # A byte that was flipped in the bucket: the step before it counts.
  there = tree(files, url)
  names = [name for name in there if name.startswith(f'checkpoints/{step + 2}/')]
  name = max(names, key=lambda name: len(there[name]))
  path = f'{url.partition("://")[2]}/{name}'
  content = bytearray(there[name])
  content[len(content) // 2] ^= 1
  files.pipe_file(path, bytes(content))
  assert resumed(url)[0] == step + 1


def test_a_save_that_the_server_refuses_ends_the_run(cloud, monkeypatch, tmp_path):
  _, bucket = cloud('s3')
  with (
    pytest.raises(DamagedData, match='the server failed'),
    staging.staged(f'{bucket}/run') as workdir,
    training_store.TrainingStore(workdir / 'checkpoints', keep=2) as steps,
  ):

    def refuse(*_):
      raise DamagedData('s3://b: the server failed')

    monkeypatch.setattr('scmdm_jax.buckets.objects.Objects.upload', refuse)
    steps.save(1, {'a': np.zeros(3)}, {}, {})
    steps.wait()
