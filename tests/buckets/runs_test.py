"""Whole runs whose paths are in a bucket, on an S3 and a Cloud Storage server."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from scmdm_jax.main import main
from tests import tiny_run

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


def figures(files, url):
  """Every line of metrics.jsonl but for its time."""
  lines = files.cat_file(f'{url.partition("://")[2]}/metrics.jsonl').splitlines()
  records = [json.loads(line) for line in lines]
  return [(r['step'], r['loss'], r['grad_norm']) for r in records]


@pytest.mark.long
def test_a_run_in_a_bucket_is_that_on_a_disk(program, cloud, tree, tmp_path):
  files, bucket = cloud('s3')
  config = f'--config={tiny_run.write_config(tmp_path)}'
  on_disk = program.figures(config, f'--workdir={tmp_path}/run')
  url = f'{bucket}/runs/one'
  in_bucket = program.figures(config, f'--workdir={url}')
  assert in_bucket['model'] == f'{url}/model'
  assert on_disk['steps'] == in_bucket['steps'] == 6
  assert figures(files, url) == tiny_run.curve(tmp_path / 'run')
  found = tree(files, url)
  steps = {name.split('/')[1] for name in found if re.match(r'checkpoints/\d+/', name)}
  assert steps == {p.name for p in (tmp_path / 'run/checkpoints').glob('?')}
  assert not [name for name in found if 'tmp' in name or name.startswith('.lock')]
  assert json.loads(found['config.json'])['workdir'] == url

  # Its model is read from there, and every byte of it compared.
  arguments = ('--mode=sample', config, '--config.sample.num_samples=2')
  arguments += ('--config.sample.num_steps=2',)
  for where, name in ((f'{tmp_path}/run', 'a'), (url, 'b')):
    checkpoint = f'--config.checkpoint={where}'
    program.figures(*arguments, checkpoint, f'--workdir={tmp_path}/{name}')
  a, b = ((tmp_path / name / 'samples.jsonl').read_bytes() for name in 'ab')
  assert a == b
  assert program.figures('--mode=verify', f'--source={url}')['ok']
  program.figures('--mode=export', f'--source={url}', f'--workdir={bucket}/out')
  exported = tree(files, f'{bucket}/out')
  imported = f'--workdir={bucket}/in'
  program.figures('--mode=import', f'--source={bucket}/out', imported)
  assert 'digests.json' in tree(files, f'{bucket}/in')
  program.figures('--mode=export', f'--source={bucket}/in', f'--workdir={bucket}/again')
  again = tree(files, f'{bucket}/again')
  weights = [name for name in exported if name.endswith('.safetensors')]
  assert weights and all(exported[name] == again[name] for name in weights)

  # One flipped byte of the bucket is found, and named by its URL.
  name = max(
    (n for n in found if n.startswith('model/params')), key=lambda n: len(found[n])
  )
  damaged = bytearray(found[name])
  damaged[len(damaged) // 2] ^= 1
  files.pipe_file(f'{url.partition("://")[2]}/{name}', bytes(damaged))
  message = program.refusal('--mode=verify', f'--source={url}', code=3)
  assert f'{url}/model: not what was written: altered' in message
  message = program.refusal(
    *arguments, f'--config.checkpoint={url}', f'--workdir={tmp_path}/c', code=3
  )
  assert f'{url}/model: not what was written: altered' in message


def test_what_is_missing_is_one_line(program, cloud, monkeypatch, tmp_path):
  _, bucket = cloud('s3')
  config = f'--config={tiny_run.write_config(tmp_path)}'
  message = program.refusal(config, '--workdir=s3://no-such-bucket/run')
  assert message.startswith('s3://no-such-bucket/run')
  message = program.refusal('--mode=verify', f'--source={bucket}/nothing')
  assert message.startswith(f'{bucket}/nothing: no such directory')
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
  import fsspec

  fsspec.get_filesystem_class('s3').clear_instance_cache()
  message = program.refusal('--mode=verify', f'--source={bucket}/nothing')
  assert message.startswith(bucket)


def test_doctor_looks_into_a_bucket(program, cloud):
  files, bucket = cloud('s3')
  code, out, _ = program.run('--mode=doctor', f'--workdir={bucket}/run')
  assert code == 0, out
  root = bucket.partition('://')[2]
  assert not files.find(root)
  files.pipe_file(f'{root}/run/.lock/1', b'{}')
  _, out, _ = program.run('--mode=doctor', f'--workdir={bucket}/run')
  assert 'another run may use it' in json.loads(out)['checks']['workdir']['found']
  code, out, _ = program.run('--mode=doctor', '--workdir=s3://no-such-bucket/run')
  assert code == 1
  assert 'no such bucket' in json.loads(out)['checks']['workdir']['found']


CHILD = """
import sys
from scmdm_jax.main import main
sys.exit(main(['main.py', *sys.argv[1:]]))
"""


@pytest.mark.long
@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_a_killed_run_resumes_from_the_bucket_to_the_same_bits(
  cloud, tree, tmp_path, capsys, caplog, monkeypatch, scheme
):
  files, bucket = cloud(scheme)
  config = f'--config={tiny_run.write_config(tmp_path)}'
  options = [config, '--config.train.num_steps=400', '--config.train.log_every=20']
  options += ['--config.train.save_every=20']
  assert main(['main.py', *options, f'--workdir={tmp_path}/whole']) == 0
  url = f'{bucket}/run'
  root = url.partition('://')[2]
  command = [sys.executable, '-c', CHILD, *options, f'--workdir={url}']
  environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT)}
  child = subprocess.Popen(command, cwd=ROOT, env=environment)
  try:
    while not files.glob(f'{root}/checkpoints/*.digests.json'):
      assert child.poll() is None
      time.sleep(0.1)
    # Meanwhile nobody else may have it.
    capsys.readouterr()
    assert main(['main.py', *options, f'--workdir={url}']) == 2
    assert 'another run is using it' in capsys.readouterr().err
  finally:
    child.send_signal(signal.SIGKILL)
    child.wait()
  assert not files.exists(f'{root}/model/digests.json')
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  assert main(['main.py', *options, f'--workdir={url}']) == 0
  assert 'took over the lock' in caplog.text
  assert figures(files, url) == tiny_run.curve(tmp_path / 'whole')
  files.get(f'{root}/model/', f'{tmp_path}/got/model/', recursive=True)
  assert tiny_run.model_bytes(tmp_path / 'got') == tiny_run.model_bytes(
    tmp_path / 'whole'
  )
  assert not list(files.find(f'{root}/.lock'))
  # What the killed one had copied is gone, too.
  assert not list(tmp_path.glob('.scmdm_jax-*'))
