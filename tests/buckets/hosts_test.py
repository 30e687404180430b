"""One run of two processes that have a disk each, and a bucket."""

import json
import time

import pytest

from tests import tiny_run
from tests.buckets.runs_test import figures
from tests.processes import processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# The program, with a disk for copies that the other process does not see; it dies when
# a file appears.
PROGRAM = """\
import os, pathlib, signal, sys, tempfile, threading, time
def die(path):
  while not path.exists():
    time.sleep(0.01)
  os.kill(os.getpid(), signal.SIGKILL)
file = pathlib.Path(sys.argv[1], 'kill')
threading.Thread(target=die, args=(file,), daemon=True).start()
tempfile.tempdir = os.path.join(sys.argv[1], os.environ['SCMDM_PROCESS_ID'])
os.makedirs(tempfile.tempdir, exist_ok=True)
from scmdm_jax.main import main
from scmdm_jax.processes import multihost
code = main(['main.py', *sys.argv[2:]])
multihost.end(code)
sys.exit(code)
"""
OPTIONS = ['--mode=train', '--config.mesh.data=1', '--config.mesh.fsdp=2']
# No kill comes after the end.
OPTIONS += ['--config.train.num_steps=60', '--config.train.save_every=5']


@pytest.fixture(scope='module')
def on_disk(tmp_path_factory):
  """A config and the workdir of its run by two processes on one disk."""
  directory = tmp_path_factory.mktemp('on_disk')
  config = f'--config={tiny_run.write_config(directory)}'
  words = [config, *OPTIONS, f'--workdir={directory}/run']
  code, _, err = processes.run(2, '-c', PROGRAM, str(directory), *words)
  assert code == 0, err
  return config, directory / 'run'


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_hosts_without_a_common_disk_train_into_a_bucket(
  on_disk, cloud, tree, tmp_path, scheme
):
  config, whole = on_disk
  files, bucket = cloud(scheme)
  url, root = f'{bucket}/run', f'{bucket.partition("://")[2]}/run'
  words = ['-c', PROGRAM, str(tmp_path), config, *OPTIONS, f'--workdir={url}']
  child = processes.start(2, *words, SCMDM_KILL_AFTER='0')
  try:
    while len(files.glob(f'{root}/checkpoints/*.digests.json')) < 2:
      assert child.poll() is None, child.communicate()
      time.sleep(0.1)
  finally:
    (tmp_path / 'kill').touch()
    child.communicate()
  (tmp_path / 'kill').unlink()
  found = tree(files, url)
  assert not any(name.startswith('model/') for name in found)
  newest = max(int(n.split('/')[1]) for n in found if n.endswith('/commit_success.txt'))
  assert newest < 60

  code, out, err = processes.run(2, *words)
  assert code == 0, err
  assert json.loads(out.splitlines()[-1].removeprefix('[0] '))['steps'] == 60
  assert figures(files, url) == tiny_run.curve(whole)
  files.get(f'{root}/', f'{tmp_path}/got/', recursive=True)
  assert tiny_run.model_bytes(tmp_path / 'got') == tiny_run.model_bytes(whole)

  # A step has the parts of both, and only those that are kept are there.
  found = tree(files, url)
  kept = {name.split('/')[1] for name in found if name.startswith('checkpoints/')}
  assert kept == {p.name for p in (whole / 'checkpoints').iterdir()}
  manifest = json.loads(found['checkpoints/60.digests.json'])['files']
  of_step = {n for n in found if n.startswith('checkpoints/60/')}
  assert {f'checkpoints/60/{name}' for name in manifest} == of_step
  assert not [name for name in found if 'tmp' in name or name.startswith('.lock')]
  # One process alone goes on from it, on a disk again.
  words = [config, '--mode=verify', f'--source={url}']
  assert processes.run(1, '-m', 'scmdm_jax.main', *words)[0] == 0
