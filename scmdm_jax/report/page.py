"""Pages from templates: self-contained HTML, no script, nothing to fetch.

The templates lie in `templates/`. What they are given is escaped, and characters that a
reader could not see are shown as their code points; only what is marked as finished
HTML (figures) goes in as it is.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from scmdm_jax.report import text


@functools.cache
def _environment() -> jinja2.Environment:
  def shown(value: Any) -> Any:
    plain = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
    return text.visible(value) if plain else value

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('scmdm_jax.report'),
    autoescape=True,
    finalize=shown,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters['number'] = text.number
  return environment


def render(template: str, **values: Any) -> str:
  """The page of a template.

  Raises:
    jinja2.UndefinedError: the template wants a value that is not given.
  """
  return _environment().get_template(template).render(values)


def finished(html: str) -> markupsafe.Markup:
  """Marks `html` as safe to go into a page as it is."""
  return markupsafe.Markup(html)


def paths(tree: object, prefix: str = '') -> list[tuple[str, str]]:
  """Flattens nested mappings and lists into `(a.b.c, value)` texts.

  Numbers are shortened by `number`, None becomes a dash.
  """
  if isinstance(tree, Mapping):
    items = tree.items()
  elif isinstance(tree, list) and any(isinstance(x, Mapping | list) for x in tree):
    items = enumerate(tree)
  else:
    if isinstance(tree, list):
      return [(prefix, ', '.join(map(_leaf, tree)))]
    return [(prefix, _leaf(tree))]
  return [
    pair
    for key, value in items
    for pair in paths(value, f'{prefix}.{key}' if prefix else str(key))
  ]


def _leaf(value: object) -> str:
  if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
    return text.number(value)
  return str(value)
