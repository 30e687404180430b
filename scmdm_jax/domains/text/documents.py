"""Documents of text out of files: plain text, HTML, JSON lines, parquet."""

import html.parser
import json
import pathlib
import re
from collections.abc import Iterator, Sequence

from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular, read_regular

_PLAIN = ('.txt', '.text', '.md', '.rst')
_HTML = ('.html', '.htm')
_SUFFIXES = (*_PLAIN, *_HTML, '.jsonl', '.parquet')
# A file that says which split it holds, as Hugging Face's do:
# train-00000-of-00080.parquet, lambada_test.jsonl.
_SPLIT = re.compile(
  r'(?:^|[^a-z])(train|test|validation|valid|val)(?:[^a-z]|$)', re.IGNORECASE
)


def files_of(source: pathlib.Path) -> list[pathlib.Path]:
  """The files of a source: itself, or a folder's in the order of their paths.

  In a folder those count that end in .txt .text .md .rst .html .htm .jsonl .parquet,
  at any depth, but no hidden ones.

  Raises:
    BadInput: nothing is there, or no such file.
  """
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise BadInput(
      f'data.source {source}: no file or folder; wanted text ({", ".join(_SUFFIXES)}), '
      'or a folder of it'
    )
  found = [
    path
    for path in sorted(source.rglob('*'))
    if path.suffix.lower() in _SUFFIXES
    and path.is_file()
    and not any(part.startswith('.') for part in path.relative_to(source).parts)
  ]
  if not found:
    raise BadInput(
      f'data.source {source}: no text in it; wanted files that end in '
      f'{", ".join(_SUFFIXES)}'
    )
  return found


def named_splits(files: Sequence[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
  """Files by the split their names say, 'train' and 'test'; {} unless all say one.

  A validation split is the test split of a source that has no other.
  """
  splits: dict[str, list[pathlib.Path]] = {}
  for path in files:
    match = _SPLIT.search(path.name)
    if match is None:
      return {}
    splits.setdefault(match[1].lower(), []).append(path)
  validation = [splits.pop(n) for n in ('validation', 'valid', 'val') if n in splits]
  if validation:
    splits.setdefault('test', validation[0])
  return splits


def read(files: Sequence[pathlib.Path], column: str = 'text') -> Iterator[str]:
  """The documents of files, one after the other, a few in memory at a time.

  A line of `.jsonl` or a row of `.parquet` is a document, the empty one too; any other
  file is one, unless it is empty. Of HTML the text is read.

  Args:
    files: as `files_of` gives them.
    column: field of the JSON objects, or column of the table.

  Raises:
    BadInput: a file that is not UTF-8, a line or a table without the column.
    DamagedData: a file that cannot be read.
  """
  for path in files:
    try:
      yield from _documents(path, column)
    except OSError as error:
      raise DamagedData(f'{path}: cannot be read ({error.strerror})') from error


def _documents(path: pathlib.Path, column: str) -> Iterator[str]:
  match path.suffix.lower():
    case '.jsonl':
      yield from _lines(path, column)
      return
    case '.parquet':
      yield from _rows(path, column)
      return
  text = _decoded(read_regular(path), path, 0).removeprefix('\ufeff')
  if path.suffix.lower() in _HTML:
    text = html_text(text)
  if text.strip():
    yield text


def _lines(path: pathlib.Path, column: str) -> Iterator[str]:
  start = 0
  with open_regular(path) as file:
    for number, line in enumerate(file, 1):
      text = _decoded(line, path, start)
      start += len(line)
      if not text.strip():
        continue
      try:
        document = json.loads(text)[column]
        if not isinstance(document, str):
          raise TypeError
        document.encode()  # JSON can write half of a surrogate pair, UTF-8 cannot.
      except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInput(
          f'{path}: line {number} is no JSON object with a text "{column}"; '
          'correct or remove it'
        ) from error
      yield document


def _rows(path: pathlib.Path, column: str) -> Iterator[str]:
  import pyarrow as pa
  from pyarrow import parquet

  row = 0
  try:
    with parquet.ParquetFile(path) as file:
      names = file.schema_arrow.names
      if column not in names:
        raise BadInput(f'{path}: no column {column}; found {names}')
      for batch in file.iter_batches(batch_size=1000, columns=[column]):
        for value in batch.column(0).to_pylist():
          if not isinstance(value, str):
            raise BadInput(
              f'{path}: row {row} of column {column} is {value!r}; wanted a text'
            )
          yield value
          row += 1
  except pa.ArrowException as error:
    reason = str(error).splitlines()[0]
    raise DamagedData(
      f'{path}: cannot be parsed ({reason}); replace the file'
    ) from error


def _decoded(data: bytes, path: pathlib.Path, start: int) -> str:
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise BadInput(
      f'{path}: not UTF-8 at byte {start + error.start} '
      f'(0x{data[error.start]:02x}); convert the file'
    ) from error


class _Reader(html.parser.HTMLParser):
  """Collects what a browser would show, a line per block."""

  _BLOCKS = re.compile(
    'address|article|aside|blockquote|br|center|d[dlt]|div|fieldset|fig(ure|caption)|'
    'footer|form|h[1-6]|header|hr|li|main|nav|[ou]l|p|pre|section|table|t[dhr]'
  )
  _HIDDEN = frozenset(('head', 'script', 'style', 'template'))

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.pieces: list[str] = []
    self._hidden = 0

  def handle_starttag(self, tag, attrs):
    del attrs
    self._hidden += tag in self._HIDDEN
    self._break(tag)

  def handle_endtag(self, tag):
    self._hidden = max(0, self._hidden - (tag in self._HIDDEN))
    self._break(tag)

  def handle_data(self, data):
    if not self._hidden:
      # A line break in the source is a space; the page's lines come from its blocks.
      self.pieces.append(re.sub(r'\s+', ' ', data))

  def _break(self, tag: str) -> None:
    if self._BLOCKS.fullmatch(tag):
      self.pieces.append('\n')


def html_text(source: str) -> str:
  """The text of a page: one line per paragraph, without markup, scripts and head."""
  reader = _Reader()
  reader.feed(source)
  reader.close()
  lines = (re.sub(' +', ' ', x).strip() for x in ''.join(reader.pieces).split('\n'))
  return '\n'.join(line for line in lines if line) + '\n'
