import dataclasses
import pathlib

import pytest

from scmdm_jax.settings import document
from scmdm_jax.settings.options import Settings
from tests.settings.options_test import FIELDS, value_at

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'options.md'


def test_the_page_is_that_of_the_options():
  wanted = 'python -m scmdm_jax.settings.document > docs/options.md'
  assert PAGE.read_text() == document.markdown(), f'out of date; {wanted}'


@pytest.mark.parametrize('name', [name for name, *_ in FIELDS])
def test_every_option_says_what_it_means(name):
  (line,) = [x for x in PAGE.read_text().splitlines() if x.startswith(f'| `{name}` |')]
  _, _, default, wanted, meaning, _ = line.replace('\\|', '').split('|')
  assert default.strip() == f'`{value_at(Settings(), name)!r}`'
  assert wanted.strip()
  assert meaning.strip()[-1] == '.'


def test_every_group_says_what_it_is():
  for field in dataclasses.fields(Settings):
    group = getattr(Settings(), field.name)
    if dataclasses.is_dataclass(group):
      assert f'\n## {field.name}\n\n{group.__doc__.splitlines()[0]}\n' in (
        PAGE.read_text()
      )
