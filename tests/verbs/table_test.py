"""A verb is a page: no other verb knows it, and `main` finds it in one table."""

import ast
import importlib
import inspect
import pathlib

import pytest

from scmdm_jax import verbs
from scmdm_jax.main import VERBS
from scmdm_jax.settings.options import MODES

PAGES = sorted(pathlib.Path(verbs.__file__).parent.glob('[!_]*.py'))


def imported(path):
  """Full names of what a file imports, wherever in it."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0  # Relative imports would have to be resolved first.
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def test_every_page_is_in_the_table_and_every_mode_has_one():
  assert {path.stem for path in PAGES} == {verb.module for verb in VERBS.values()}
  assert set(VERBS) == set(MODES)


def test_nobody_imports_a_verb():
  package = pathlib.Path(verbs.__file__).parent.parent
  knowing = {
    str(path.relative_to(package))
    for path in package.rglob('*.py')
    if any(name.startswith('scmdm_jax.verbs') for name in imported(path))
  }
  assert knowing == set()  # `main` imports the one that it runs, by its name.


@pytest.mark.parametrize('name', VERBS)
def test_run_takes_settings_workdir_and_the_flags_of_the_table(name):
  verb = VERBS[name]
  run = importlib.import_module(f'scmdm_jax.verbs.{verb.module}').run
  settings, workdir, *flags = inspect.signature(run).parameters
  assert (settings, workdir) == ('settings', 'workdir')
  assert tuple(flags) == (*(('source',) if verb.source else ()), *verb.flags)
