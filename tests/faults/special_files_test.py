"""Named pipes in the place of files: refused by name, never waited for."""

import os
import pathlib
import shutil
import socket

import pytest

from scmdm_jax import regular_files
from tests.checkpoints import manifests


def pipe_instead(path: pathlib.Path) -> pathlib.Path:
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  return path


def refused(program, path, *arguments):
  """Exit 2 or 3, and one line that names the pipe."""
  code, out, err = program.run(*arguments)
  assert code in (2, 3), err
  assert (out, err.count('\n')) == ('', 1)
  assert str(path.parent) in err or path.name in err, err
  return err


def test_only_regular_files_are_opened(tmp_path):
  with pytest.raises(OSError, match='a named pipe, not a regular file'):
    regular_files.read_regular(pipe_instead(tmp_path / 'pipe'))
  with pytest.raises(OSError, match='a character device, not a regular file'):
    regular_files.read_regular('/dev/zero')
  with pytest.raises(IsADirectoryError):
    regular_files.read_regular(tmp_path)
  with pytest.raises(OSError):
    regular_files.open_regular(tmp_path / 'pipe', 'a')
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(tmp_path / 'socket'))
    with pytest.raises(OSError):
      regular_files.read_regular(tmp_path / 'socket')
  (tmp_path / 'file').write_bytes(b'abc')
  (tmp_path / 'link').symlink_to('file')
  assert regular_files.read_regular(tmp_path / 'link') == b'abc'
  assert regular_files.special_files(tmp_path) == ['pipe', 'socket']


def test_config_file(program, tmp_path):
  path = pipe_instead(tmp_path / 'config.py')
  assert 'a named pipe' in refused(program, path, f'--config={path}')


def test_text_to_be_judged(program, trained, tmp_path):
  config, _ = trained
  path = pipe_instead(tmp_path / 'texts.jsonl')
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}', '--mode=judge']
  refused(program, path, *options, f'--source={path}', '--config.judge=x')


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl', '.lock'])
@pytest.mark.slow
def test_file_of_a_workdir(program, trained, tmp_path, name):
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  path = pipe_instead(tmp_path / 'run' / name)
  refused(program, path, f'--config={config}', f'--workdir={tmp_path / "run"}')


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'tokenizer.json'])
def test_file_of_foreign_weights(program, tmp_path, name):
  source = manifests.write_directory(
    tmp_path / 'source',
    manifests.MDLM_CONFIG,
    manifests.random_tensors(manifests.SMALL_MDLM),
  )
  path = pipe_instead(source / name)
  options = ['--mode=import', f'--source={source}', f'--workdir={tmp_path / "new"}']
  if name == 'tokenizer.json':  # Only regular files count as one.
    assert program.figures(*options)['mode'] == 'import'
  else:
    refused(program, path, *options)


def files_of(run):
  files = [p.relative_to(run) for p in sorted((run / 'model').rglob('*'))]
  files += [p.relative_to(run) for p in sorted((run / 'checkpoints').rglob('*'))]
  return [file for file in files if (run / file).is_file()]


def test_every_file_of_checkpoints(program, trained, tmp_path, fault):
  _, run = trained
  files = files_of(run)
  for file in files:
    shutil.rmtree(tmp_path / 'run', ignore_errors=True)
    shutil.copytree(run, tmp_path / 'run')
    pipe_instead(tmp_path / 'run' / file)
    code, out, err = program.run('--mode=verify', f'--source={tmp_path / "run"}')
    assert code != 0, (file, out)
    assert 'Traceback' not in err
  fault(
    'A named pipe in the place of a file of a checkpoint',
    len(files),
    'no "ok" from verify, no waiting',
    f'{len(files)} refused',
  )


def test_prepared_data(program, trained, tmp_path):
  config, _ = trained
  shutil.copytree(config.parent / 'data', tmp_path / 'data')
  (path,) = (tmp_path / 'data').rglob('dataset_info.json')
  pipe_instead(path)
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  refused(program, path, *options, f'--config.data.directory={tmp_path / "data"}')
