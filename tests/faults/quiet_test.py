"""What a run never does: write down a secret, or fetch what nobody asked for."""

import socket

import pytest

from tests import tiny_run
from tests.checkpoints import manifests

SECRETS = {
  'HF_TOKEN': 'hf_canary5517',
  'WANDB_API_KEY': 'canary5518',
  'AWS_SECRET_ACCESS_KEY': 'canary5519',
}


@pytest.fixture
def reached(monkeypatch):
  """Addresses that somebody asked for; nobody gets through."""
  asked = []

  def refuse(*arguments, **_):
    asked.append(arguments)
    raise OSError('no network in this test')

  monkeypatch.setattr(socket, 'getaddrinfo', refuse)
  monkeypatch.setattr(socket, 'create_connection', refuse)
  monkeypatch.setattr(socket.socket, 'connect', refuse)
  monkeypatch.setattr(socket.socket, 'connect_ex', refuse)
  return asked


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_secret_is_written_and_nothing_is_fetched(
  program, tmp_path, monkeypatch, reached, fault, caplog
):
  for name, value in SECRETS.items():
    monkeypatch.setenv(name, value)
  config = f'--config={tiny_run.write_config(tmp_path)}'
  run, said = tmp_path / 'run', []
  source = manifests.write_directory(
    tmp_path / 'source',
    manifests.MDLM_CONFIG,
    manifests.random_tensors(manifests.SMALL_MDLM),
  )
  sizes = ('--config.sample.num_samples=2', '--config.sample.num_steps=2')
  sample = ('--mode=sample', config, f'--config.checkpoint={run}', *sizes)
  commands = [
    (config, f'--workdir={run}', '--config.train.num_steps=4'),
    (*sample, f'--workdir={tmp_path / "samples"}'),
    ('--mode=verify', f'--source={run}'),
    ('--mode=export', f'--source={run}', f'--workdir={tmp_path / "out"}'),
    ('--mode=import', f'--source={source}', f'--workdir={tmp_path / "in"}'),
    ('--mode=doctor', config, f'--workdir={tmp_path / "new"}'),
  ]
  for command in commands:
    code, out, err = program.run(*command)
    assert code == 0, err
    said.append(out + err)
  assert reached == []
  contents = [p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()]
  contents += [text.encode() for text in (*said, caplog.text)]
  for value in SECRETS.values():
    assert not [content for content in contents if value.encode() in content]
  # Asked for, it would have been noticed.
  program.refusal(
    '--mode=import', '--source=hf://a/b', f'--workdir={tmp_path / "far"}', code=2
  )
  assert reached
  fault(
    'Secrets in the environment, no network',
    len(commands),
    'written nowhere; nobody is asked',
    f'{len(contents)} files and outputs without them, {len(commands)} verbs offline',
  )
