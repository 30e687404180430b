"""Sentences of the package: plain words, and docstrings that say what is returned."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'scmdm_jax'
# "is told", "anew", "kin": a dialect. A colleague says given, again, related.
WORDS = re.compile(r'\b(told|tells?|said|kin|anew)\b')
# Folders whose functions all begin with what they do: "Returns ...", "Draws ...".
FOLDERS = ('diffusion', 'parallel', 'settings')


def test_plain_words():
  found = [
    f'{path.relative_to(ROOT)}:{number}: {match[0]}'
    for path in sorted(ROOT.rglob('*.py'))
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if (match := WORDS.search(line))
  ]
  assert not found


def functions(folder):
  for path in sorted((ROOT / folder).rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef):
        names = [getattr(d, 'id', '') for d in node.decorator_list]
        if 'property' not in names and (text := ast.get_docstring(node)):
          yield f'{path.relative_to(ROOT)}:{node.name}', text


@pytest.mark.parametrize('folder', FOLDERS)
def test_docstrings_begin_with_what_a_function_does(folder):
  found = list(functions(folder))
  assert len(found) > 10
  wrong = [name for name, text in found if not re.match(r'[A-Z][a-z]+s\b', text)]
  assert not wrong
