import re

import jinja2
import pytest

from scmdm_jax.report import compare, page


def test_page_is_balanced_inert_and_links_its_sections(results, parse):
  results |= {'title': 'A "title" </title><script>', 'gallery': {}}
  source = compare.render(compare.complete(results))
  parsed = parse(source)
  # Figures name their namespaces; `parse` looks at what they refer to.
  outside = re.sub('<svg.*?</svg>', '', source, flags=re.DOTALL)
  assert 'http' not in outside.replace('http-equiv', '')
  assert ('href', '#results') in parsed.attributes
  assert ('href', '#samples') not in parsed.attributes
  assert ''.join(parsed.text).count('What was compared') == 2
  assert parsed.text.count('A "title" </title><script>') == 2
  policy = dict(parsed.attributes)['content']
  assert policy.startswith("default-src 'none'")


def test_a_value_that_is_not_given_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match='title'):
    page.render('page.html', sections=[])


def test_paths_flatten_nested_values():
  tree = {'a': {'b': 0.0003, 'c': [1, 2.5]}, 'd': [{'e': None}], 'f': True}
  assert page.paths(tree) == [
    ('a.b', '0.0003'),
    ('a.c', '1, 2.5'),
    ('d.0.e', '\u2013'),
    ('f', 'True'),
  ]
