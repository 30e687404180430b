"""Every script of launch/: it parses, may be run, and shellcheck finds nothing."""

import os
import shutil
import subprocess

import pytest

from tests.launch.fakes import ROOT

SCRIPTS = sorted(
  path for path in (ROOT / 'launch').iterdir() if path.suffix in ('.sh', '.sbatch')
)


def test_all_are_found():
  names = [path.name for path in SCRIPTS]
  wanted = 'gke.sh local.sh local_multiprocess.sh slurm.sbatch tpu_vm.sh'
  assert names == wanted.split()


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_parses_and_may_be_run(script):
  subprocess.run(['bash', '-n', script], check=True)
  assert os.access(script, os.X_OK)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  if shutil.which('shellcheck') is None:
    pytest.skip('shellcheck is not installed')
  done = subprocess.run(
    ['shellcheck', script], capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stdout) == (0, '')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_without_arguments_it_is_one_line_and_exit_code_2(script, fakes):
  done = fakes.run(script.name)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.count('\n') == 1
  assert done.stderr.startswith(f'launch/{script.name}: ')


def test_image_is_pinned_and_unprivileged():
  lines = (ROOT / 'launch' / 'Dockerfile').read_text().splitlines()
  steps = [line for line in lines if line and line[0].isupper()]
  base = next(line for line in steps if line.startswith('FROM '))
  name, _, tag = base.removeprefix('FROM ').partition(':')
  assert name == 'python'
  assert tag.split('-')[0].count('.') == 2  # A full version.
  # A user by number: Kubernetes cannot tell that a name is not root.
  assert steps[-2:-1] == ['USER 10001']
  assert steps[-1].startswith('CMD [')
  install = next(line for line in steps if line.startswith('RUN pip '))
  assert '--constraint constraints/py312.txt' in install
  assert 'python:3.12.' in base


def test_image_is_built_from_named_files_only():
  lines = (ROOT / 'launch' / 'Dockerfile.dockerignore').read_text().splitlines()
  rules = [line for line in lines if line and not line.startswith('#')]
  assert rules[0] == '*'
  named = [rule[1:] for rule in rules if rule.startswith('!')]
  assert all((ROOT / name).exists() for name in named)
  assert {'scmdm_jax', 'pyproject.toml', 'setup.py', 'constraints'} <= set(named)
