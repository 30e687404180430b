"""The programs in docs/, which belong to no package, as modules."""

import importlib.util
import pathlib
import types

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def program(name: str) -> types.ModuleType:
  """Runs docs/NAME.py as a module of that name."""
  spec = importlib.util.spec_from_file_location(name, DOCS / f'{name}.py')
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
