"""What is installed: modules, versions and package data."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'scmdm_jax'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
CONSTRAINTS = sorted((ROOT / 'constraints').glob('*.txt'))

IMPORT_EVERYTHING = """
import importlib, importlib.util, pkgutil, sys
import scmdm_jax
names = [module.name for module in pkgutil.walk_packages(
    scmdm_jax.__path__, 'scmdm_jax.', onerror=lambda name: sys.exit(name))]
# Of extras: there is no CPU build of PyTorch for every Python.
optional = {'benchmarks.torch_mdlm': 'torch', 'runs.harness': 'lm_eval'}
for name in names:
  wanted = optional.get(name.removeprefix('scmdm_jax.'), 'jax')
  if importlib.util.find_spec(wanted):
    importlib.import_module(name)
assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'
print(len(names))
"""


def canonical(name):
  """The one spelling of a distribution's name (PEP 503)."""
  return re.sub('[-_.]+', '-', name).lower()


def pinned(path):
  lines = path.read_text(encoding='utf-8').splitlines()
  return dict(line.split('==') for line in lines if not line.startswith('#'))


@pytest.mark.slow
def test_every_module_imports_without_tensorflow_or_warnings(tmp_path):
  """Run elsewhere, so that the installed package is found, not the source tree."""
  command = [sys.executable, '-I', '-W', 'error', '-c', IMPORT_EVERYTHING]
  done = subprocess.run(
    command, cwd=tmp_path, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  files = [f for f in PACKAGE.rglob('*.py') if f.name != '__init__.py']
  packages = [f for f in PACKAGE.rglob('__init__.py') if f.parent != PACKAGE]
  # A folder without __init__.py would be skipped silently, here and in the wheel.
  assert int(done.stdout) == len(files) + len(packages)


@pytest.mark.parametrize('path', CONSTRAINTS, ids=lambda path: path.name)
def test_constraints_are_plain_versions(path):
  lines = path.read_text(encoding='utf-8').splitlines()
  plain = re.compile(r'[a-z0-9]+(-[a-z0-9]+)*==[0-9]+(\.[0-9a-z]+)*')
  listed = [line for line in lines if not line.startswith('#')]
  assert [line for line in listed if not plain.fullmatch(line)] == []
  assert listed == sorted(listed, key=lambda line: line.split('==')[0])


@pytest.mark.parametrize('path', CONSTRAINTS, ids=lambda path: path.name)
def test_constraints_pin_every_declared_dependency(path):
  extras = PROJECT['project']['optional-dependencies']
  wanted = PROJECT['project']['dependencies'] + [
    requirement
    for extra in ('molecules', 'report', 'cloud', 'dev')
    for requirement in extras[extra]
    if not requirement.startswith('scmdm_jax[')  # One extra within another.
  ]
  names = {canonical(re.match('[A-Za-z0-9_.-]+', line)[0]) for line in wanted}
  assert names <= pinned(path).keys()
  assert 'torch' not in pinned(path)


def test_the_two_constraint_files_cover_the_same_packages():
  assert [path.name for path in CONSTRAINTS] == ['py311.txt', 'py312.txt']
  old, new = map(pinned, CONSTRAINTS)
  assert old.keys() == new.keys()
  # Why there are two: this is the last release of JAX for Python 3.11.
  assert old['jax'] == '0.10.2'
  assert new['jax'] != old['jax']


def test_setup_py_is_a_stub():
  lines = (ROOT / 'setup.py').read_text(encoding='utf-8').splitlines()
  assert [line.split('#')[0].strip() for line in lines if line] == [
    'from setuptools import setup',
    'setup()',
  ]


def test_version_has_one_source():
  version = PROJECT['project']['version']
  assert importlib.metadata.version('scmdm_jax') == version
  copies = [p for p in PACKAGE.rglob('*.py') if f"'{version}'" in p.read_text('utf-8')]
  assert copies == []


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(tmp_path):
  """Builds from a copy: a build leaves files in the tree it is run in."""
  source = tmp_path / 'source'
  source.mkdir()
  for name in ('LICENSE', 'pyproject.toml', 'setup.py'):
    (source / name).write_bytes((ROOT / name).read_bytes())
  tracked = [
    path
    for path in [*PACKAGE.rglob('*'), *(ROOT / 'configs').rglob('*')]
    if path.is_file() and '__pycache__' not in path.parts
  ]
  for path in tracked:
    copy = source / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(path.read_bytes())
  command = [sys.executable, '-m', 'pip', 'wheel', '-qq', '--no-deps', '-w']
  subprocess.run([*command, str(tmp_path), str(source)], check=True)

  (wheel,) = tmp_path.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  held = {name for name in names if '.dist-info/' not in name}
  assert held == {
    path.relative_to(ROOT).as_posix()
    for path in tracked
    if path.is_relative_to(PACKAGE)
  }
  assert any(name.endswith('licenses/LICENSE') for name in names)


def test_what_is_bundled_has_a_licence():
  page = (ROOT / 'docs' / 'licences.md').read_text(encoding='utf-8')
  rows = [line for line in page.splitlines() if line.startswith('| `')]
  models = sorted(path.name for path in (PACKAGE / 'assets').iterdir())
  data = [p for p in (ROOT / 'tests').iterdir() if p.suffix != '.py' and p.is_file()]
  assert len(models) > 5 and len(data) > 3
  for path in data:
    assert any(f'`tests/{path.name}`' in row for row in rows), path
  for name in models:
    (row,) = [row for row in rows if f'{name}`' in row]
    card = (PACKAGE / 'assets' / name / 'README.md').read_text(encoding='utf-8')
    licence = re.search(r'^license(?:_name)?: (?!other)(.*)', card, re.MULTILINE)
    assert licence, name
    for word in licence[1].replace('-and-', ' ').replace('-', ' ').split():
      assert word in row.lower(), (name, word)
