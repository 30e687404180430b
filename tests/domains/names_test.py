"""No code outside its folder names a domain, its data sets or its tokenizers."""

import ast
import pathlib
import re

import pytest

import scmdm_jax
from scmdm_jax.domains import registry

PACKAGE = pathlib.Path(scmdm_jax.__file__).parent
DOMAINS = {domain.name: domain for domain in registry.domains()}
# Words of English, or of Python: in code they are something else.
PLAIN = {'text', 'images', 'molecules', 'genomes', 'arxiv'}
NAMES = {name for d in DOMAINS.values() for name in (d.name, *d.data_sets)} - PLAIN
TOKENIZERS = {
  kind.pattern.split(':')[0] for d in DOMAINS.values() for kind in d.tokenizers
}


def sources(*folders):
  """Files of the package and their syntax trees, without some folders of domains."""
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(PACKAGE).parts
    if parts[:2] not in {('domains', folder) for folder in folders}:
      yield path, ast.parse(path.read_text())


def docstrings(tree):
  return {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    and node.body
    and isinstance(node.body[0], ast.Expr)
  }


def imports(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def test_nobody_imports_a_domain():
  for path, tree in sources(*DOMAINS):
    for name in imports(tree):
      parts = name.split('.')
      assert parts[:2] != ['scmdm_jax', 'domains'] or parts[2] not in DOMAINS, path


@pytest.mark.parametrize('name', DOMAINS)
def test_a_domain_imports_no_other_and_nothing_above_it(name):
  folder = PACKAGE / 'domains' / name
  above = ('runs', 'verbs', 'settings', 'training', 'models', 'main')
  for path in folder.rglob('*.py'):
    for imported in imports(ast.parse(path.read_text())):
      _, *parts = imported.split('.')
      if not imported.startswith('scmdm_jax.'):
        continue
      assert parts[0] not in above or parts[:2] == ['settings', 'rules'], path
      assert parts[0] != 'report' or parts[1] == 'pictures', path
      assert parts[0] != 'domains' or parts[1] not in {*DOMAINS} - {name}, path
      assert parts[:2] != ['domains', 'registry'], path


def test_no_string_or_name_is_that_of_a_domain_a_data_set_or_a_tokenizer():
  # A tokenizer's chat template is a thing of its own.
  words = re.compile(rf'\b({"|".join(sorted(NAMES))})\b(?! template)')
  exact = {*DOMAINS, *TOKENIZERS} - {'text'}
  for path, tree in sources(*DOMAINS):
    if path == PACKAGE / 'domains' / 'registry.py':
      continue  # A line for each.
    skipped = docstrings(tree)
    for node in ast.walk(tree):
      where = f'{path}:{getattr(node, "lineno", 0)}'
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if id(node) not in skipped:
          assert not words.search(node.value), where
          assert node.value not in exact, where
      elif isinstance(node, ast.Name | ast.Attribute):
        found = node.id if isinstance(node, ast.Name) else node.attr
        assert found.lower() not in NAMES, where


def test_own_options_are_named_in_their_folder_only():
  own = {
    path.split('.')[1]: name
    for name, domain in DOMAINS.items()
    for path in registry.own_options(domain)
  }
  assert {'side', 'flip', 'frame', 'mauve_seeds', 'reverse_complement'} <= set(own)
  for path, tree in sources(*DOMAINS):
    for node in ast.walk(tree):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
        option = node.value.attr in ('data', 'evaluate') and node.attr in own
        assert not option, f'{path}:{node.lineno}: {node.attr} is of {own[node.attr]}'
