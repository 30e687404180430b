"""One column of a table: parquet, JSON or JSON lines, CSV or TSV, packed or not.

A value comes with its place in the file (`line 7`, `row 6`), for messages. Parquet is
known by its first bytes, the others by the ending of their name.
"""

import csv
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from scmdm_jax.data import reading
from scmdm_jax.errors import BadInput, DamagedData, first_line
from scmdm_jax.regular_files import open_regular

JSON = ('.json', '.jsonl', '.ndjson', '.jsonlines')
PARQUET = ('.parquet', '.pq')
_DELIMITERS = {'.csv': ',', '.tsv': '\t'}
SUFFIXES = (*JSON, *_DELIMITERS, *PARQUET)
_BATCH = 1000  # Rows of parquet in memory at a time.
_BLANK = ' \t\n\r\ufeff'  # Between values of JSON; the mark of files put together.


class NoColumn(BadInput):
  """A table lacks a column."""


def is_table(path: pathlib.Path) -> bool:
  """Whether a file is a table, by its name or, for parquet, by its first bytes."""
  if reading.suffix(path) in SUFFIXES:
    return True
  with reading.opened(path) as file:
    return file.read(4) == b'PAR1'


def texts(path: pathlib.Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
  """The texts of a column and their places, in the order of the file.

  Args:
    path: a table.
    names: the column's; of several the first that is there. Case does not count where
      no column is spelt so.

  Raises:
    BadInput: no such column, or a value of it that is no text.
    DamagedData: the file cannot be parsed.
  """
  with reading.opened(path) as file:
    is_parquet = file.read(4) == b'PAR1'
  ending = reading.suffix(path)
  if is_parquet or ending in PARQUET:
    rows = parquet_rows(path, [names])
    values = ((place, value) for place, (value,) in rows)
  elif ending in JSON:
    found = records(path)
    values = ((place, _field(path, place, record, names)) for place, record in found)
  else:
    values = delimited(path, names, _DELIMITERS[ending])
  for place, value in values:
    try:
      value.encode()  # JSON can write half of a surrogate pair, UTF-8 cannot.
    except (AttributeError, UnicodeEncodeError) as error:
      raise BadInput(
        f'{path}: {place} has {str(value)[:60]!a} as {names[0]}; wanted a text'
      ) from error
    yield place, value


def chosen(found: Iterable[str], names: Sequence[str]) -> str | None:
  """Which of the columns `found` is meant by `names`; None: none."""
  columns = {name.strip().casefold(): name for name in found}
  columns |= {name: name for name in found}
  return next((columns[name] for name in names if name in columns), None)


def parquet_rows(
  path: pathlib.Path,
  columns: Sequence[Sequence[str]],
  batch_size: int = _BATCH,
) -> Iterator[tuple[str, tuple[Any, ...]]]:
  """Places and values of the rows of a parquet file.

  Args:
    path: the file.
    columns: those that are wanted, each by its possible names.
    batch_size: rows in memory at a time.

  Raises:
    BadInput: a column is missing.
    DamagedData: the file cannot be parsed.
  """
  import pyarrow as pa
  from pyarrow import parquet

  row = 0
  with open_regular(path) as plain, reading.opened(path) as stream:
    # Parquet is read from its end: what is packed has to be unpacked first.
    packed = plain.read(4) != b'PAR1'
    source: Any = pa.py_buffer(stream.read()) if packed else path
  try:
    with parquet.ParquetFile(source) as file:
      found = file.schema_arrow.names
      wanted = [(names[0], chosen(found, names)) for names in columns]
      if missing := [name for name, column in wanted if column is None]:
        raise NoColumn(f'{path}: no column {missing[0]}; found {found}')
      own = [column for _, column in wanted]
      for batch in file.iter_batches(batch_size=batch_size, columns=own):
        for values in zip(*(batch.column(c).to_pylist() for c in own), strict=True):
          yield f'row {row}', values
          row += 1
  except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
    raise DamagedData(
      f'{path}: cannot be parsed as parquet ({first_line(error)}); wanted a whole '
      'parquet file'
    ) from error


def records(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """Places and values of JSON lines, an array of objects, or objects one by one.

  Raises:
    BadInput: something is no JSON.
  """
  lines = reading.lines(path)
  first = next((line for line in lines if line.strip()), '')
  if isinstance(_parsed(first), dict):
    for number, line in enumerate(reading.lines(path), 1):
      if stripped := line.strip(_BLANK):
        yield f'line {number}', _parsed(stripped)
    return
  whole, at, number = reading.text(path), 0, 0
  decoder = json.JSONDecoder()
  while at < len(whole):
    if whole[at] in _BLANK:
      at += 1
      continue
    try:
      value, at = decoder.raw_decode(whole, at)
    except (ValueError, RecursionError) as error:
      line = whole.count('\n', 0, getattr(error, 'pos', at)) + 1
      raise BadInput(
        f'{path}: line {line} is no JSON object ({first_line(error)}); correct it'
      ) from error
    for entry in value if isinstance(value, list) else [value]:
      number += 1
      yield f'entry {number}', entry


def _parsed(line: str) -> Any:
  """The value of a line of JSON; None where it is none."""
  try:
    return json.loads(line.strip(_BLANK))
  except (ValueError, RecursionError):
    return None


def _field(path: pathlib.Path, place: str, record: Any, names: Sequence[str]) -> Any:
  name = None
  if isinstance(record, dict):
    name = names[0] if names[0] in record else chosen(record, names)
  if name is None:
    found = f'; found {[*record][:20]}' if isinstance(record, dict) else ''
    raise BadInput(
      f'{path}: {place} is no JSON object with a "{names[0]}"{found}; correct or '
      'remove it'
    )
  return record[name]


def delimited(
  path: pathlib.Path, names: Sequence[str], delimiter: str = ','
) -> Iterator[tuple[str, str]]:
  """Places and values of a column of lines of fields, the first of which names them.

  Fields are parted by `delimiter`, or by what parts them so that the column is there,
  and may stand in quotes, as in RFC 4180.

  Raises:
    BadInput: no such column.
    DamagedData: a line has another number of fields, or a quote is left open.
  """
  first = next(reading.lines(path), '')
  delimiter = header_delimiter(first, names, delimiter) or delimiter
  csv.field_size_limit(sys.maxsize)  # By default a field has 128 KiB at most.
  # The line ends that `reading` took away may stand inside of quotes.
  ended = (line + '\n' for line in reading.lines(path))
  reader = csv.reader(ended, delimiter=delimiter, strict=True)
  begins, header, position = 1, None, 0
  try:
    for row in reader:
      if header is None:
        header = row
        name = chosen(header, names)
        if name is None:
          raise BadInput(f'{path}: no column {names[0]}; found {header}')
        position = header.index(name)
      elif row:
        if len(row) != len(header):
          raise csv.Error(f'{len(row)} fields instead of {len(header)}')
        yield f'line {begins}', row[position]
      begins = reader.line_num + 1
  except csv.Error as error:
    raise DamagedData(
      f'{path}: line {begins} cannot be parsed ({error}); correct the line'
    ) from error
  if header is None:
    raise DamagedData(f'{path}: cannot be parsed (it is empty); wanted a table')


def header_delimiter(line: str, names: Sequence[str], tried: str) -> str | None:
  """What parts the names in a first line, if a column is among them; else None."""
  for mark in (tried, ',', '\t', ';', '|'):
    try:
      fields = next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
      continue
    if chosen(fields, names):
      return mark
  return None
