"""launch/local.sh without any install: a made-up environment stands in for one."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = 'launch/local.sh'


@pytest.fixture
def project(tmp_path):
  """A copy of what the launcher reads, in a folder whose name has a space."""
  root = tmp_path / 'a project'
  shutil.copytree(ROOT / 'launch', root / 'launch')
  shutil.copytree(ROOT / 'constraints', root / 'constraints')
  for name in ('pyproject.toml', 'setup.py'):
    shutil.copy(ROOT / name, root)
  return root


def launch(project, *command, cwd=None, script=None, **variables):
  inherited = {k: os.environ[k] for k in ('HOME', 'PATH') if k in os.environ}
  return subprocess.run(
    [script or project / SCRIPT, *command],
    cwd=cwd or project,
    env={**inherited, **variables},
    capture_output=True,
    text=True,
    check=False,
    timeout=30,
  )


def executable(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/bin/sh\n{text}\n', encoding='utf-8')
  path.chmod(0o755)
  return path


def tools(directory, **scripts):
  """A PATH with only the standard programs the launcher needs, and `scripts`."""
  directory.mkdir()
  names = 'bash cat cp dirname env mkdir mv readlink rm sh sleep'
  for name in names.split():
    (directory / name).symlink_to(shutil.which(name))
  for name, text in scripts.items():
    executable(directory / name, text)
  return str(directory)


@pytest.fixture
def environment(project):
  """An environment that passes for complete, and its stamp as the launcher has it."""
  venv = project / '.venv'
  executable(venv / 'bin' / 'python', 'echo Python 3.11.99')
  (project / '.venv.lock').touch()
  inputs = [project / 'setup.py', project / 'pyproject.toml']
  inputs += sorted((project / 'constraints').glob('*.txt'))
  texts = [path.read_text(encoding='utf-8') for path in inputs]
  settings = f'{project}\n{venv}\nquickstart,dev\n'
  stamp = venv / 'scmdm_jax.stamp'
  stamp.write_text(settings + ''.join(texts), encoding='utf-8')
  return venv


def test_script_parses_and_may_be_run():
  subprocess.run(['bash', '-n', ROOT / SCRIPT], check=True)
  assert os.access(ROOT / SCRIPT, os.X_OK)


def test_no_command_is_an_error(project):
  done = launch(project)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.count('\n') == 1
  assert 'give a command' in done.stderr


def test_ready_environment_runs_the_command_and_says_nothing(project, environment):
  show = 'import os, sys; print(os.getcwd(), sys.argv[1:], os.environ["VIRTUAL_ENV"])'
  python = shutil.which('python3')
  done = launch(project, python, '-c', show, 'a b', '*', '', cwd='/')
  assert done.stderr == ''
  assert done.stdout == f"{project} ['a b', '*', ''] {environment}\n"


def test_environment_comes_first_on_path(project, environment):
  executable(environment / 'bin' / 'hello', 'echo "from the environment: $*"; exit 7')
  done = launch(project, 'hello', 'you')
  assert (done.returncode, done.stdout) == (7, 'from the environment: you\n')


def test_link_to_the_script_works_from_anywhere(project, environment, tmp_path):
  link = tmp_path / 'link'
  link.symlink_to(project / SCRIPT)
  done = launch(project, 'pwd', cwd='/', script=link, CDPATH=f'/:{tmp_path}')
  assert (done.stdout, done.stderr) == (f'{project}\n', '')


def test_standard_input_and_signals_reach_the_command(project, environment):
  done = subprocess.run(
    [project / SCRIPT, 'sh', '-c', 'cat; kill -TERM $$'],
    input='typed',
    capture_output=True,
    text=True,
    check=False,
    env={'PATH': os.environ['PATH']},
  )
  assert (done.returncode, done.stdout) == (-15, 'typed')


@pytest.mark.parametrize('name', ['pyproject.toml', 'constraints/py312.txt'])
def test_changed_inputs_make_the_environment_stale(
  project, environment, tmp_path, name
):
  with (project / name).open('a', encoding='utf-8') as file:
    file.write('# changed\n')
  done = launch(project, 'true', PATH=tools(tmp_path / 'bin'))
  # Stale, so that it looks for a Python; there is none on this PATH.
  assert (done.returncode, done.stdout) == (2, '')
  assert 'found no Python 3.11 or newer' in done.stderr


def test_environment_without_stamp_is_stale(project, environment, tmp_path):
  (environment / 'scmdm_jax.stamp').unlink()
  assert launch(project, 'true', PATH=tools(tmp_path / 'bin')).returncode == 2


def test_directory_of_somebody_else_is_left_alone(project, tmp_path):
  theirs = tmp_path / 'theirs'
  theirs.mkdir()
  (theirs / 'file').touch()
  done = launch(project, 'true', VENV=str(theirs))
  assert done.returncode == 2
  assert f'{theirs} was not made by launch/local.sh' in done.stderr
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a project', 'theirs']
  assert (theirs / 'file').exists()


@pytest.mark.parametrize(
  ('script', 'complaint'),
  [
    ('echo 3.10 /usr/bin/python3.10', 'is Python 3.10; give 3.11 or newer'),
    ('echo 2.7 /usr/bin/python2.7', 'is Python 2.7; give 3.11 or newer'),
    ('echo "command not found" >&2; exit 127', 'does not run'),
  ],
)
def test_unusable_python_is_one_clear_line(project, tmp_path, script, complaint):
  python = executable(tmp_path / 'old python', script)
  done = launch(project, 'true', PYTHON=str(python))
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.count('\n') == 1
  assert f'PYTHON={python} {complaint}' in done.stderr
  assert not (project / '.venv').exists()


def test_missing_venv_module_names_the_package_to_install(project, tmp_path):
  python = tmp_path / 'python'
  executable(
    python,
    f"""case "$*" in
  *sys.version_info*) echo 3.12 "{python}" ;;
  *ensurepip*) exit 1 ;;
esac""",
  )
  done = launch(project, 'true', PATH=tools(tmp_path / 'bin'), PYTHON=str(python))
  assert done.returncode == 2
  assert 'apt-get install python3.12-venv' in done.stderr
  assert not (project / '.venv').exists()


def test_failed_install_leaves_no_stamp_and_is_repeated(project, tmp_path):
  python = tmp_path / 'python'
  executable(
    python,
    f"""case "$*" in
  *sys.version_info*) echo 3.12 "{python}" ;;
  '-m venv'*) mkdir .venv; echo cannot >&2; exit 9 ;;
esac""",
  )
  # Makes half an environment, then fails until the file `network` is there.
  uv = f"""case "$*" in
  venv*) mkdir -p .venv/bin; cp "{python}" .venv/bin/python ;;
  pip*) echo "$@" >> calls; test -e network || {{ echo no network >&2; exit 8; }} ;;
esac"""
  path = tools(tmp_path / 'bin', uv=uv)
  ran = ('sh', '-c', 'echo ran')

  done = launch(project, *ran, PATH=path, PYTHON=str(python))
  assert (done.returncode, done.stdout) == (9, '')
  assert done.stderr.splitlines()[1:] == [
    'no network',
    'launch/local.sh: uv failed, trying pip',
    'cannot',
  ]
  assert not (project / '.venv' / 'scmdm_jax.stamp').exists()
  (project / '.venv' / 'leftover').touch()

  (project / 'network').touch()
  done = launch(project, *ran, PATH=path, PYTHON=str(python))
  assert (done.returncode, done.stdout) == (0, 'ran\n')
  assert not (project / '.venv' / 'leftover').exists()
  assert not (project / '.venv.stale').exists()
  calls = (project / 'calls').read_text(encoding='utf-8').splitlines()
  assert len(calls) == 2
  assert '--constraint constraints/py312.txt --editable .[quickstart,dev]' in calls[1]

  done = launch(project, *ran, PATH=path)
  assert (done.stdout, done.stderr) == ('ran\n', '')
  assert (project / 'calls').read_text(encoding='utf-8').splitlines() == calls


def test_of_two_at_once_one_installs(project, tmp_path):
  python = tmp_path / 'python'
  # Only the lock is real: the other answers are made up.
  executable(
    python,
    f"""case "$*" in
  *sys.version_info*) echo 3.12 "{python}" ;;
  -V) echo Python 3.12.99 ;;
  *fcntl*) exec "{sys.executable}" "$@" ;;
esac""",
  )
  uv = f"""case "$*" in
  venv*) mkdir -p .venv/bin; cp "{python}" .venv/bin/python ;;
  pip*) echo call >> calls; sleep 0.5 ;;
esac"""
  path = tools(tmp_path / 'bin', uv=uv)
  command = [project / SCRIPT, 'sh', '-c', 'echo ran']
  runs = [
    subprocess.Popen(
      command, env={'PATH': path, 'PYTHON': str(python)}, stdout=subprocess.PIPE
    )
    for _ in range(3)
  ]
  assert [run.communicate(timeout=30)[0] for run in runs] == [b'ran\n'] * 3
  assert (project / 'calls').read_text(encoding='utf-8') == 'call\n'
