"""The commands at the heads of launchers and configs start, also as two processes."""

import json
import pathlib
import re
import shlex

import pytest

from scmdm_jax import command_line
from scmdm_jax.main import VERBS
from scmdm_jax.settings.resolve import resolve
from tests.parallel.several_test import REDUCED
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


def mode_of(arguments):
  options = command_line.parse(['main.py', *arguments])
  assert options.config is not None
  return options.mode or resolve(options.config).mode


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
    mode = mode_of(arguments)
    assert options.workdir or settings.workdir
    # A plan is of other machines than the one it is made on.
    assert VERBS[mode].shared or mode == 'plan', arguments
    assert settings.checkpoint or mode != 'compare', arguments


# Whether each of many runs would start, by one pair of processes.
DOCTOR = """\
import json, sys
from scmdm_jax import command_line
from scmdm_jax.processes import multihost
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import doctor
with multihost.joined():
  for arguments in json.loads(sys.argv[1]):
    options = command_line.parse(['main.py', *arguments])
    settings = resolve(options.config)
    found = doctor.run(settings, options.workdir)['checks']
    wrong = {name: check['found'] for name, check in found.items() if not check['ok']}
    print(json.dumps([arguments, list(found), wrong]), flush=True)
"""


@pytest.mark.long
def test_two_processes_would_start_every_head(tmp_path):
  heads = [arguments for name in FILES for arguments in commands(name)]
  words = [
    (*(a for a in arguments if 'workdir' not in a), f'--workdir={tmp_path}/run')
    for arguments in heads
    if mode_of(arguments) != 'plan'
  ]
  heads = [list(arguments) for arguments in dict.fromkeys(words)]
  code, out, err = processes.run(2, '-c', DOCTOR, json.dumps(heads))
  assert code == 0, err
  for process in range(2):
    begin = f'[{process}] [["'  # Libraries write lines of `[Gloo]`.
    lines = [json.loads(x[4:]) for x in out.splitlines() if x.startswith(begin)]
    assert [arguments for arguments, _, _ in lines] == heads
    for arguments, checks, wrong in lines:
      assert {'versions', 'devices', 'mesh', 'workdir', 'memory', 'disk'} <= {*checks}
      # All that may be wanting is what an earlier command makes, or a published file,
      # and what is read of it.
      given = {'checkpoint', 'judge', 'data.source'} & wrong.keys()
      assert all('no such file' in wrong[name] for name in given), wrong
      assert given or not wrong, (arguments, wrong)
      assert wrong.keys() <= given | {'memory', 'disk'}, (arguments, wrong)


@pytest.mark.long
def test_what_launchers_show_runs_as_two_processes(tmp_path):
  launched = [commands(name) for name in FILES if name.startswith('launch')]
  found = {arguments[0] for heads in launched for arguments in heads}
  # Of the quick start see `parallel/several_test.py`.
  (config,) = found - {'--config=configs/quickstart.py'}
  words = [config, *REDUCED, f'--workdir={tmp_path}/run']
  code, out, err = processes.run(2, '-m', 'scmdm_jax.main', *words)
  assert code == 0, err
  figures = json.loads(out.splitlines()[-1].removeprefix('[0] '))
  assert figures['arms'].keys() == {'rate 0, equal FLOPs', 'rate 1'}
  assert (tmp_path / 'run/report/index.html').is_file()


@pytest.mark.long
@pytest.mark.timeout(300)
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
