"""One column of parquet, JSON, CSV and TSV."""

import csv
import io
import json
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from scmdm_jax.data import tables
from scmdm_jax.errors import BadInput, DamagedData
from tests.data import packed

TEXTS = ['first\nsecond', '', 'literal [MASK] <|endoftext|>', 'é\u2028x', '"quoted", x']
UNICODE = st.text(st.characters(exclude_categories=['Cs']))
QUICK = settings(max_examples=150, deadline=None)


def delimited(texts, delimiter=',', end='\n'):
  written = io.StringIO()
  # Before Python 3.13 the writer leaves a lone CR bare, as no line end may be.
  bare = any('\r' in text for text in texts)
  quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
  writer = csv.writer(written, delimiter=delimiter, lineterminator=end, quoting=quoting)
  writer.writerows([('n', 'text'), *((i, text) for i, text in enumerate(texts))])
  return written.getvalue().encode()


def parquet_bytes(texts, **options):
  sink = io.BytesIO()
  table = pa.table({'n': range(len(texts)), 'text': pa.array(texts, pa.string())})
  parquet.write_table(table, sink, **options)
  return sink.getvalue()


def json_lines(texts, end='\n'):
  lines = [json.dumps({'n': 1, 'text': t}, ensure_ascii=False) for t in texts]
  return (end.join(lines) + end + end).encode()


def json_array(texts):
  return json.dumps([{'text': t} for t in texts], indent=1).encode()


def json_one_by_one(texts):
  return '\n'.join(json.dumps({'text': t}, indent=2) for t in texts).encode()


FORMATS = {
  'a.jsonl': json_lines,
  'b.JSONL': json_lines,
  'c.ndjson': json_lines,
  'd.json': json_lines,
  'e.json': json_array,
  'f.jsonl': json_array,
  'g.json': json_one_by_one,
  'h.csv': delimited,
  'i.Tsv': lambda texts: delimited(texts, '\t'),
  'j.csv': lambda texts: delimited(texts, ';'),
  'k.parquet': parquet_bytes,
  'l.txt': parquet_bytes,  # Known by its first bytes.
  'm': parquet_bytes,
}


@pytest.mark.parametrize('ending', packed.WAYS)
@pytest.mark.parametrize('name', FORMATS)
def test_a_column_comes_back_from_any_format(tmp_path, name, ending):
  path = tmp_path / (name + ending)
  path.write_bytes(packed.WAYS[ending](FORMATS[name](TEXTS)))
  assert tables.is_table(path)
  assert [text for _, text in tables.texts(path, ('text',))] == TEXTS


@pytest.mark.parametrize(
  'name', [n for n in FORMATS if FORMATS[n] is not parquet_bytes]
)
@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_byte_order_marks_and_line_ends(tmp_path, name, encoding):
  path = tmp_path / name
  written = FORMATS[name](TEXTS).decode().replace('\n', '\r\n')
  path.write_bytes(written.encode(encoding))
  assert [text for _, text in tables.texts(path, ('text',))] == TEXTS


def test_files_put_together_have_marks_inside(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(2 * '\ufeff{"text": "a"}\r\n'.encode())
  assert list(tables.texts(path, ('text',))) == [('line 1', 'a'), ('line 2', 'a')]


def test_places_are_those_in_the_file(tmp_path):
  def places(name, content):
    (tmp_path / name).write_bytes(content)
    return [place for place, _ in tables.texts(tmp_path / name, ('text',))]

  assert places('a.jsonl', b'\n{"text": "a"}\n\n{"text": ""}') == ['line 2', 'line 4']
  assert places('a.csv', delimited(['a\nb', 'c'])) == ['line 2', 'line 4']
  assert places('a.parquet', parquet_bytes(['a', 'b'])) == ['row 0', 'row 1']
  assert places('a.json', json_array(['a', 'b'])) == ['entry 1', 'entry 2']


def test_columns_are_found_without_regard_to_case(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('id, SMILES ,Text\n1,C,x\n')
  assert [*tables.texts(path, ('smiles',))] == [('line 2', 'C')]
  assert [*tables.texts(path, ('gone', 'text'))] == [('line 2', 'x')]
  path.write_text('TEXT,text\na,b\n')
  assert [*tables.texts(path, ('text',))] == [('line 2', 'b')]


def test_long_fields_and_batches(tmp_path, monkeypatch):
  monkeypatch.setattr(tables, '_BATCH', 2)
  texts = ['x' * 3_000_000, 'y', 'z']  # More than the csv module takes by itself.
  for name in ('a.csv', 'a.jsonl', 'a.parquet'):
    (tmp_path / name).write_bytes(
      FORMATS[{'a.csv': 'h.csv', 'a.jsonl': 'a.jsonl'}.get(name, 'm')](texts)
    )
    assert [text for _, text in tables.texts(tmp_path / name, ('text',))] == texts


@pytest.mark.parametrize(
  ('name', 'content', 'kind', 'message'),
  [
    ('a.jsonl', '{"text": "ab"}\n{"x": "y"}\n', BadInput, r"line 2 is .*found \['x'\]"),
    ('a.jsonl', '{"text": 3}\n', BadInput, "line 1 has '3' as text; wanted a text"),
    ('a.jsonl', '{"text": "\\ud800"}\n', BadInput, 'line 1 has .*wanted a text'),
    ('a.jsonl', '{"text": "a"}\n{"text": "b"\n', BadInput, 'line 2 is no JSON object'),
    ('a.jsonl', '[1]\n', BadInput, 'entry 1 is no JSON object with a "text"'),
    ('a.json', '[\n{"text": "a"},\n{"text": }]', BadInput, 'line 3 is no JSON object'),
    ('a.json', '[' * 99999, BadInput, 'is no JSON object'),
    ('a.json', '{"text": ["a", "b"]}', BadInput, 'line 1 has .* wanted a text'),
    ('a.json', '{"data": [{"text": "a"}]}', BadInput, r"found \['data'\]"),
    ('a.csv', 'a,b\n1,2\n', BadInput, r"no column text; found \['a', 'b'\]"),
    ('a.csv', '', DamagedData, 'cannot be parsed'),
    ('a.csv', 'text,x\nC,1\nN\n', DamagedData, 'line 3 cannot be parsed .1 fields'),
    ('a.csv', 'text,x\n"C,1\nN,1\n', DamagedData, 'line 2 cannot be parsed'),
    ('a.csv', 'text,x\n"C"N,1\n', DamagedData, 'line 2 cannot be parsed'),
    ('a.parquet', 'text', DamagedData, 'cannot be parsed as parquet'),
    ('a.parquet', 'PAR1 but no more', DamagedData, 'cannot be parsed as parquet'),
  ],
)
def test_unsuitable_tables_are_named(tmp_path, name, content, kind, message):
  path = tmp_path / name
  path.write_text(content)
  with pytest.raises(kind, match=f'{re.escape(str(path))}: .*{message}') as caught:
    list(tables.texts(path, ('text',)))
  assert type(caught.value) is kind
  assert '\n' not in str(caught.value)


def test_unsuitable_parquet_is_named(tmp_path):
  path = tmp_path / 'a.parquet'
  parquet.write_table(pa.table({'a': ['x', None]}), path)
  with pytest.raises(BadInput, match=r"no column text; found \['a'\]"):
    list(tables.texts(path, ('text',)))
  with pytest.raises(BadInput, match="row 1 has 'None' as a; wanted a text"):
    list(tables.texts(path, ('a',)))
  whole = parquet_bytes(TEXTS)
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(DamagedData, match='cannot be parsed as parquet'):
    list(tables.texts(path, ('text',)))


@QUICK
@given(st.lists(UNICODE, min_size=1), st.sampled_from(sorted(FORMATS)))
def test_any_texts_come_back_or_are_refused(tmp_path_factory, texts, name):
  path = tmp_path_factory.mktemp('t') / name
  path.write_bytes(FORMATS[name](texts))
  wanted = texts
  if reading_lines(name):  # Its line ends are those of the file.
    wanted = [t.replace('\r\n', '\n').replace('\r', '\n') for t in texts]
  try:
    assert [text for _, text in tables.texts(path, ('text',))] == wanted
  except BadInput:
    assert any('\0' in text for text in texts)


def reading_lines(name):
  return name[2:].lower() in ('csv', 'tsv')


@QUICK
@given(
  st.binary(), st.sampled_from(sorted(FORMATS)), st.integers(0, 10**6), st.booleans()
)
def test_any_bytes_are_a_column_or_one_line(tmp_path_factory, content, name, at, whole):
  path = tmp_path_factory.mktemp('t') / name
  if not whole:  # Bytes inside of a sound file.
    sound = FORMATS[name](TEXTS)
    at %= len(sound)
    content = sound[:at] + content + sound[at + len(content) :]
  path.write_bytes(content)
  try:
    if not tables.is_table(path):
      return
    list(tables.texts(path, ('text',)))
  except BadInput as error:
    assert '\n' not in str(error)
    assert str(path) in str(error)
