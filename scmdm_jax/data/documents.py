"""Documents of text out of files: plain text, HTML, JSON, CSV and parquet."""

import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scmdm_jax.data import reading, splits, tables
from scmdm_jax.errors import BadInput

# .raw and .tokens: WikiText's own files.
_PLAIN = ('.txt', '.text', '.md', '.markdown', '.rst', '.raw', '.tokens')
_HTML = ('.html', '.htm', '.xhtml')
SUFFIXES = (*_PLAIN, *_HTML, *tables.SUFFIXES)
_BLOCKS = re.compile(
  'address|article|aside|blockquote|br|center|d[dlt]|div|fieldset|fig(ure|caption)|'
  'footer|form|h[1-6]|header|hr|li|main|nav|[ou]l|option|p|pre|section|table|t[dhr]'
)
_HIDDEN = frozenset(('head', 'script', 'style', 'template'))


def files_of(
  source: pathlib.Path,
  option: str = 'data.source',
  endings: Sequence[str] = SUFFIXES,
) -> tuple[list[pathlib.Path], list[str]]:
  """The files of a source: itself, or a folder's in the order of their paths.

  In a folder those count that end as texts do, at any depth, but no hidden ones and no
  cards and licences.

  Args:
    source: the file or folder.
    option: who gave it, for messages.
    endings: of names, without that of the packing; any file may do without one.

  Returns:
    The files, and the paths of others in the folder.

  Raises:
    BadInput: nothing is there, or no such file.
  """
  wanted = f'{" ".join(endings)}, each also packed as {" ".join(reading.PACKED)}'
  if source.is_file():
    if reading.suffix(source) not in ('', *endings) and not tables.is_table(source):
      raise BadInput(
        f'{option} {source}: of no format that is known here; wanted {wanted}; '
        'rename it to .txt if it is plain text'
      )
    return [source], []
  if not source.is_dir():
    raise BadInput(
      f'{option} {source}: no regular file or folder; wanted text ({wanted}), or a '
      'folder of it'
    )
  found, others = [], []
  for path in sorted(source.rglob('*')):
    inside = path.relative_to(source)
    if path.is_file() and not any(part.startswith('.') for part in inside.parts):
      if reading.suffix(path) in endings and splits.is_data(path):
        found.append(path)
      else:
        others.append(str(inside))
  if not found:
    beside = f' but {", ".join(others[:3])}' if others else ''
    raise BadInput(
      f'{option} {source}: no text in it{beside}; wanted files that end in {wanted}'
    )
  return found, others


def read(
  files: Sequence[pathlib.Path],
  column: str = 'text',
  empty: Callable[[pathlib.Path], object] = lambda _: None,
) -> Iterator[tuple[str, str]]:
  """The documents of files and their places, a few in memory at a time.

  A row of a table is a document, the empty one too; any other file is one, unless
  there is no text in it. Of HTML the text is read.

  Args:
    files: as `files_of` gives them.
    column: of the tables.
    empty: called with every file that has no document.

  Raises:
    BadInput: a file that is no text, a line or a table without the column.
    DamagedData: a file that cannot be unpacked or parsed.
  """
  for path in files:
    documents = 0
    for place, text in _documents(path, column):
      documents += 1
      yield f'{path}: {place}' if place else str(path), text
    if not documents:
      empty(path)


def _documents(path: pathlib.Path, column: str) -> Iterator[tuple[str, str]]:
  if tables.is_table(path):
    yield from tables.texts(path, (column,))
    return
  text = reading.text(path)
  if reading.suffix(path) in _HTML:
    text = html_text(text)
  if text.strip():
    yield '', text


def html_text(source: str) -> str:
  """The text of a page: one line per paragraph, without markup, scripts and head."""
  import justhtml

  # It is shown, not run: what stands in <noscript> is read, nothing is made harmless.
  page = justhtml.JustHTML(source, sanitize=False, scripting_enabled=False)
  pieces: list[str] = []
  rest: list[Any] = [page.root]
  while rest:
    node = rest.pop()
    if isinstance(node, str):
      pieces.append(node)
    elif isinstance(node, justhtml.Text):
      # A line break in the source is a space; the page's lines come from its blocks.
      pieces.append(re.sub(r'\s+', ' ', node.data or ''))
    elif node.name not in _HIDDEN:
      edge = ['\n'] if _BLOCKS.fullmatch(node.name) else []
      rest += [*edge, *reversed(node.children or ()), *edge]
  lines = (re.sub(' +', ' ', x).strip() for x in ''.join(pieces).split('\n'))
  return ''.join(f'{line}\n' for line in lines if line)
