"""`--mode=doctor`: what a run would find here."""

import json
import os

import pytest

from tests import tiny_run


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


def test_a_run_that_would_start(program, tmp_path):
  config = tiny_run.write_config(tmp_path)
  code, out, err = program.run(
    '--mode=doctor', f'--config={config}', f'--workdir={tmp_path}/a/run'
  )
  figures = json.loads(out)
  assert (code, figures['ok'], figures['run']) == (0, True, 'train')
  lines = err.splitlines()
  assert len(lines) == len(figures['checks'])
  assert all(line.startswith('ok  ') for line in lines)
  assert not (tmp_path / 'a').exists()  # Nothing stays.


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_a_directory_of_others(program, tmp_path):
  tmp_path.chmod(0o500)
  code, out, _ = program.run('--mode=doctor', f'--workdir={tmp_path}/run')
  tmp_path.chmod(0o700)
  assert code == 1 and not json.loads(out)['checks']['workdir']['ok']


def test_what_is_wanting_is_said_of_each(program, tmp_path):
  config = tiny_run.write_config(tmp_path)
  (tmp_path / 'file').write_text('')
  code, out, err = program.run(
    '--mode=doctor',
    f'--config={config}',
    f'--workdir={tmp_path}/file/run',
    f'--config.judge={tmp_path}/none',
    '--config.mesh.tensor=3',
    # 2 layers of 16 * 2**34 parameters and more: no machine has the memory.
    '--config.model.hidden_dim=1048576',
  )
  checks = json.loads(out)['checks']
  wanting = {name for name, found in checks.items() if not found['ok']}
  assert code == 1
  assert {'workdir', 'judge', 'mesh'} <= wanting
  assert 'a file; wanted a directory' in checks['workdir']['found']
  assert f'{tmp_path}/none: no such' in checks['judge']['found']
  assert sum(line.startswith('NO  ') for line in err.splitlines()) == len(wanting)

  code, out, _ = program.run(
    '--mode=doctor',
    *(f'--config={config}', f'--workdir={tmp_path}/run'),
    '--config.model.hidden_dim=1048576',
  )
  found = json.loads(out)['checks']
  assert code == 1
  assert 'for the state of the run alone' in found['memory']['found']
  assert 'bytes are free; wanted' in found['disk']['found']
