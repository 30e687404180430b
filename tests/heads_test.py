"""The commands at the heads of launchers and configs start, also as two processes."""

import json
import pathlib
import re
import shlex

import pytest

from scmdm_jax import command_line
from scmdm_jax.main import VERBS
from scmdm_jax.settings.resolve import resolve
from tests.processes import processes

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
  p.relative_to(ROOT).as_posix()
  for p in (*ROOT.glob('configs/*.py'), *ROOT.glob('launch/*'))
  if p.suffix != '.md' and 'scmdm_jax.main' in p.read_text()
)
PROGRAM = 'python -m scmdm_jax.main '


def commands(name):
  """What follows the program's name in the commands of a file's head."""
  head = []
  for line in (ROOT / name).read_text().splitlines():
    if head and not line.startswith('#') and name.startswith('launch'):
      break
    head.append(line.removeprefix('#'))
    if line.endswith('"""') and len(head) > 1:
      break
  text = re.sub(r'\\\n\s*', '', '\n'.join(head))
  text = re.sub(r'(?m)^\s*run (?=--)', PROGRAM, text)
  found = []
  for line in text.splitlines():
    _, program, rest = line.partition(PROGRAM)
    if program and rest.startswith('--config') and '...' not in rest:
      found.append(shlex.split(re.sub(r'\s\(.*|"\$@".*|[;|].*', '', rest)))
  return found


def test_heads_are_found():
  assert {'configs/quickstart.py', 'launch/slurm.sbatch', 'launch/gke.sh'} <= {*FILES}
  assert ['--config=configs/quickstart.py'] in commands('configs/quickstart.py')
  assert commands('launch/local_multiprocess.sh') == [
    ['--config=configs/quickstart.py', '--workdir=runs/two']
  ]


@pytest.mark.parametrize('name', FILES)
def test_a_head_is_a_run_that_several_processes_may_do(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  found = commands(name)
  assert found or name.endswith(('Dockerfile', '.yaml'))
  for arguments in found:
    options = command_line.parse(['main.py', *arguments])
    assert options.config is not None
    settings = resolve(options.config)
    mode = options.mode or settings.mode
    assert options.workdir or settings.workdir
    # A plan is of other machines than the one it is made on.
    assert VERBS[mode].shared or mode == 'plan', arguments


@pytest.mark.slow
def test_two_processes_would_start_the_quick_start(tmp_path):
  words = ['--config=configs/quickstart.py', '--mode=doctor', f'--workdir={tmp_path}/x']
  code, out, err = processes.run(2, '-m', 'scmdm_jax.main', *words)
  assert code == 0, err
  (line,) = [line for line in out.splitlines() if '{' in line]
  figures = json.loads(line.removeprefix('[0] '))
  assert figures['ok'] and figures['run'] == 'compare'
  assert figures['checks']['mesh']['found'].endswith('processes 2')
  for process in range(2):
    assert f'[{process}] ok  memory' in err
