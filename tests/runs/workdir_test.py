import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from scmdm_jax.errors import BadInput
from scmdm_jax.runs import workdir
from scmdm_jax.settings.options import MethodSettings, Settings, TrainSettings

SETTINGS = Settings()


def open_and_close(path, settings=SETTINGS):
  with workdir.opened(str(path), settings) as directory:
    return directory


def refusal(path, settings=SETTINGS):
  with pytest.raises(BadInput) as caught:
    open_and_close(path, settings)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_config_and_metadata_are_written(tmp_path):
  path = tmp_path / 'a' / 'b'
  assert open_and_close(path) == path
  config = json.loads((path / 'config.json').read_text())
  wanted = json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
  assert config == {**wanted, 'workdir': str(path)}
  metadata = json.loads((path / 'metadata.json').read_text())
  assert metadata['command'].startswith('python -m scmdm_jax.main')
  assert metadata['versions']['jax']
  assert metadata['versions']['python'] == '.'.join(map(str, sys.version_info[:3]))
  made = {'command', 'code', 'git_sha', 'hardware', 'versions'}
  assert metadata.keys() == made | {'compilation_cache'}
  assert sorted(os.listdir(path)) == ['.lock', 'config.json', 'metadata.json']


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert open_and_close('run') == tmp_path / 'run'


def test_the_same_options_reopen_it(tmp_path):
  open_and_close(tmp_path)
  before = (tmp_path / 'config.json').read_bytes()
  open_and_close(tmp_path)
  assert (tmp_path / 'config.json').read_bytes() == before


def test_no_path_is_refused():
  assert refusal('') == '--workdir: not given; wanted a directory for this run'


def test_a_file_is_refused(tmp_path):
  file = tmp_path / 'notes.txt'
  file.write_text('mine')
  assert refusal(file) == f'--workdir {file}: a file; wanted a directory'
  assert file.read_text() == 'mine'


def test_below_a_file_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  message = refusal(tmp_path / 'notes.txt' / 'run')
  assert 'cannot be written (Not a directory); give another' in message


def test_what_cannot_be_written_is_refused(tmp_path):
  # Not even root can create directories there.
  if pathlib.Path('/proc/self').exists():
    assert 'cannot be written' in refusal('/proc/run')
  (tmp_path / '.lock').mkdir()
  assert f'--workdir {tmp_path}: cannot be written' in refusal(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason='root may write anywhere')
def test_a_read_only_directory_is_refused(tmp_path):
  tmp_path.chmod(0o500)
  assert 'cannot be written (Permission denied)' in refusal(tmp_path)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (Settings(seed=1), 'seed: found 1, but {} says 0'),
    (Settings(mode='sample'), "mode: found 'sample', but {} says 'train'"),
    (
      Settings(train=TrainSettings(num_steps=7, learning_rate=0.5)),
      'train.num_steps: found 7, but {} says 1000',
    ),
    (
      Settings(method=MethodSettings(rate=0.5), train=TrainSettings(keep=9)),
      'method.rate: found 0.5, but {} says 1.0',
    ),
  ],
)
def test_other_options_are_refused_by_name(tmp_path, settings, message):
  open_and_close(tmp_path)
  before = (tmp_path / 'config.json').read_bytes()
  path = tmp_path / 'config.json'
  wanted = message.format(path)
  advice = '; resume with the same options or give another --workdir'
  assert refusal(tmp_path, settings) == wanted + advice
  assert path.read_bytes() == before
  if message.startswith('train.num_steps'):  # Of a finished run there is more to say.
    (tmp_path / 'model').mkdir()
    advice += f', with --config.checkpoint={tmp_path} to train its model on'
    assert refusal(tmp_path, settings) == wanted + advice


@pytest.mark.parametrize(
  'text', ['', '{"mode": "tr', '[1]', 'null', '{"vocab_size": 9}']
)
def test_a_config_that_is_none_is_refused(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  message = refusal(tmp_path)
  assert message.startswith(f'{tmp_path / "config.json"}: not ')
  assert message.endswith('; give another --workdir')
  assert (tmp_path / 'config.json').read_text() == text


def test_an_option_that_was_unknown_then_takes_its_value(tmp_path):
  # Written by an older version of the package.
  open_and_close(tmp_path)
  path = tmp_path / 'config.json'
  config = json.loads(path.read_text())
  del config['train']['keep']
  path.write_text(json.dumps(config))
  open_and_close(tmp_path)
  assert json.loads(path.read_text())['train']['keep'] == 2


def test_a_second_run_is_refused_while_the_first_lasts(tmp_path):
  with workdir.opened(str(tmp_path), SETTINGS):
    message = refusal(tmp_path)
    assert message == f'--workdir {tmp_path}: another run is using it; wait'
  open_and_close(tmp_path)


def test_the_lock_goes_with_the_process(tmp_path):
  # Killed, not closed: nobody has to delete a stale lock.
  hold = (
    'import fcntl, sys, time\n'
    'file = open(sys.argv[1], "w")\n'
    'fcntl.flock(file, fcntl.LOCK_EX)\n'
    'print("locked", flush=True)\n'
    'time.sleep(60)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', hold, str(tmp_path / '.lock')],
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    assert process.stdout.readline() == 'locked\n'
    assert 'another run is using it' in refusal(tmp_path)
  finally:
    process.kill()
    process.communicate(timeout=10)
  open_and_close(tmp_path)


def test_the_lock_is_released_when_the_run_fails(tmp_path):
  with pytest.raises(ZeroDivisionError), workdir.opened(str(tmp_path), SETTINGS):
    _ = 1 / 0
  open_and_close(tmp_path)


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
  open_and_close(tmp_path)
  gone = {
    *('.model.tmp-12-ab', 'imported/.judge.tmp-12-ab'),
    'arms/rate_1/seed_0/.model.tmp-12-ab',
  }
  # Another run's, the user's, and what is complete.
  kept = {'other/.model.tmp-12-ab', '.git.tmp-1', '.model.old-12-ab', 'model'}
  for name in gone | kept:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / 'model.json').write_text('{}')
  open_and_close(tmp_path)
  assert {name for name in gone | kept if (tmp_path / name).exists()} == kept


def test_errors_of_the_run_itself_are_its_own(tmp_path):
  with pytest.raises(OSError, match='of the run'):  # noqa: SIM117
    with workdir.opened(str(tmp_path), SETTINGS):
      raise OSError('of the run')


def test_git_sha_is_a_commit_or_nothing(monkeypatch):
  assert len(workdir.git_sha()) in (0, 40)
  monkeypatch.setenv('PATH', '')
  assert workdir.git_sha() == ''


def test_command_can_be_pasted(monkeypatch):
  arguments = ['main', '--workdir=a b', '--config.sample.prompt=C(=O)$x']
  monkeypatch.setattr(sys, 'argv', arguments)
  printed = f'printf "%s\\n" {workdir.command()}'
  result = subprocess.run(
    ['sh', '-c', printed], capture_output=True, text=True, timeout=10, check=True
  )
  assert result.stdout.splitlines() == [
    *('python', '-m', 'scmdm_jax.main'),
    *arguments[1:],
  ]


def test_a_mistake_found_at_once_does_not_bind_the_workdir(tmp_path):
  path = tmp_path / 'run'
  with pytest.raises(BadInput), workdir.opened(str(path), SETTINGS):
    raise BadInput('checkpoint: a typo')
  open_and_close(path, dataclasses.replace(SETTINGS, seed=5))
  # Once something is made, the options stay.
  with pytest.raises(BadInput), workdir.opened(str(tmp_path / 'b'), SETTINGS) as made:
    (made / 'checkpoints').mkdir()
    raise BadInput('late')
  assert 'seed' in refusal(tmp_path / 'b', dataclasses.replace(SETTINGS, seed=5))


def test_a_model_is_no_workdir(tmp_path):
  (tmp_path / 'model.json').write_text('{}')
  assert 'a model checkpoint' in refusal(tmp_path)


def test_tilde_is_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert open_and_close('~/run') == tmp_path / 'run'
