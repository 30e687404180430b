"""Sizes of files and functions: what is larger says why."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'scmdm_jax'
FILES = sorted(ROOT.rglob('*.py'))
LINES_OF_A_FILE, LINES, PARAMETERS = 400, 60, 8
# "It has nine parameters, because ...": one sentence of the docstring.
REASON = re.compile(r'\b(lines|parameters),\s+because\b')


def functions(source):
  """Name, lines, parameters and docstring of every function, methods' self apart."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      args = node.args
      names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
      count = len(names) - (names[:1] in (['self'], ['cls']))
      count += (args.vararg is not None) + (args.kwarg is not None)
      lines = (node.end_lineno or 0) - node.lineno + 1
      yield node.name, lines, count, ast.get_docstring(node) or ''


def too_large(source):
  """Functions that are too large without a reason, or give one without need."""
  for name, lines, count, text in functions(source):
    large = lines > LINES or count > PARAMETERS
    if large != bool(REASON.search(text)):
      yield f'{name}: {lines} lines, {count} parameters'


def test_files():
  assert len(FILES) > 100
  sizes = {path: len(path.read_text().splitlines()) for path in FILES}
  assert not {str(p): n for p, n in sizes.items() if n > LINES_OF_A_FILE}


def test_functions():
  found = [f'{path}: {f}' for path in FILES for f in too_large(path.read_text())]
  assert not found


BODY = '  pass\n' * 60
WHY = '  """Returns. It has 61 lines, because it is one table."""\n'


@pytest.mark.parametrize(
  ('source', 'found'),
  [
    ('def f():\n' + BODY, ['f: 61 lines, 0 parameters']),
    ('def f():\n' + BODY[7:], []),
    ('def f():\n' + WHY + BODY, []),
    ('def f():\n' + WHY, ['f: 2 lines, 0 parameters']),
    ('def f(a, b, c, d, e, *f, g, h, **i): ...', ['f: 1 lines, 9 parameters']),
    ('class A:\n  def f(self, a, b, c, d, e, f, g, h): ...', []),
    ('def f():\n  async def g(a, b, c, d, e, f, g, h, i): ...', None),
  ],
)
def test_what_is_found(source, found):
  wanted = ['g: 1 lines, 9 parameters'] if found is None else found
  assert list(too_large(source)) == wanted
