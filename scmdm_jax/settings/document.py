"""docs/options.md, made from the tables: `python -m scmdm_jax.settings.document`."""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from scmdm_jax.settings.options import Settings

_HEAD = """\
# Options

Every option, as `--config.NAME=VALUE` on the command line or `config.NAME = VALUE` in a
config file. What depends on another option, or on the sampler, the schedule or the
optimizer that options stand for, is checked too, before anything runs.

Written by `python -m scmdm_jax.settings.document > docs/options.md`.
"""


def markdown() -> str:
  """Returns the page: a table per group, with name, default, rule and meaning."""
  settings = Settings()
  lines = [_HEAD, '## The run', '', *_table(settings, '')]
  for field in dataclasses.fields(settings):
    group = getattr(settings, field.name)
    if dataclasses.is_dataclass(group):
      about = (group.__doc__ or '').strip().splitlines()[0]
      lines += ['', f'## {field.name}', '', about, '']
      lines += _table(group, f'{field.name}.')
  return '\n'.join(lines) + '\n'


def _table(group: Any, prefix: str) -> Iterator[str]:
  """Yields the lines of the table of one group."""
  yield '| option | default | wanted | meaning |'
  yield '| --- | --- | --- | --- |'
  for field in dataclasses.fields(group):
    value = getattr(group, field.name)
    if dataclasses.is_dataclass(value):
      continue
    wanted = field.metadata['rule'][0] or _KINDS[field.type]
    cells = (f'`{prefix}{field.name}`', f'`{value!r}`', wanted)
    cells = (*cells, field.metadata['meaning'])
    yield '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


_KINDS = {
  bool: 'True or False',
  float: 'a number',
  int: 'a whole number',
  str: 'a text',
}

if __name__ == '__main__':
  sys.stdout.write(markdown())
