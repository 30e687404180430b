import json
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from scmdm_jax.domains.text import documents
from scmdm_jax.errors import BadInput, DamagedData


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / '.git').mkdir()
  (tmp_path / 'b' / 'one.txt').write_text('\ufeffone\n')
  (tmp_path / 'a.md').write_text('two')
  (tmp_path / 'c.TXT').write_text(' \n')  # Empty: no document.
  (tmp_path / 'picture.png').write_bytes(b'\x89PNG\xff')
  (tmp_path / '.hidden.txt').write_text('no')
  (tmp_path / '.git' / 'x.txt').write_text('no')
  files = documents.files_of(tmp_path)
  assert [path.name for path in files] == ['a.md', 'one.txt', 'c.TXT']
  assert list(documents.read(files)) == ['two', 'one\n']


def test_lines_and_rows_are_documents(tmp_path):
  texts = ['first\nsecond', '', 'literal [MASK] <|endoftext|>', 'é\u2028x']
  lines = [json.dumps({'text': t}, ensure_ascii=False) for t in texts]
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines) + '\n\n')
  table = pa.table({'n': [1, 2, 3, 4], 'text': texts})
  parquet.write_table(table, tmp_path / 'a.parquet')
  for name in ('a.jsonl', 'a.parquet'):
    assert list(documents.read([tmp_path / name])) == texts


def test_text_of_a_page():
  page = """<!DOCTYPE html><html><head><title>No</title><style>p {}</style></head>
  <body><h1>A &amp; B</h1><p>One <i>two</i>
  three.<br/>Four</p><script>if (a < b) {}</script><ul><li>x</li><li>y</li></ul>
  </body></html>"""
  assert documents.html_text(page) == 'A & B\nOne two three.\nFour\nx\ny\n'


@pytest.mark.parametrize(
  ('names', 'found'),
  [
    (['train-00000-of-00001.parquet', 'test-00000-of-00001.parquet'], 'train test'),
    (['train.txt', 'validation.txt'], 'train test'),
    (['wiki.train.raw', 'wiki.valid.raw', 'wiki.test.raw'], 'train test'),
    (['lambada_test.jsonl'], 'test'),
    (['train.txt', 'essay.txt'], ''),
    (['latest.txt', 'strained.txt'], ''),
  ],
)
def test_splits_that_files_name(tmp_path, names, found):
  files = [tmp_path / name for name in names]
  splits = documents.named_splits(files)
  assert sorted(splits) == sorted(found.split())
  if 'wiki.test.raw' in names:
    assert [path.name for path in splits['test']] == ['wiki.test.raw']


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.txt', b'abc\xe9 caf', r'not UTF-8 at byte 3 \(0xe9\)'),
    ('a.jsonl', b'{"text": "ab"}\n{"text": "\xff"}\n', r'not UTF-8 at byte 25'),
    ('a.jsonl', b'{"text": "ab"}\n{"x": "y"}\n', 'line 2 is no JSON object'),
    ('a.jsonl', b'{"text": 3}\n', 'line 1 is no JSON object'),
    ('a.jsonl', b'{"text": "\\ud800"}\n', 'line 1 is no JSON object'),
    ('a.jsonl', b'[1]\n', 'line 1 is no JSON object'),
  ],
)
def test_unsuitable_content_is_named_with_its_place(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(BadInput, match=f'{re.escape(str(path))}: .*{message}'):
    list(documents.read([path]))


def test_unsuitable_tables_are_named(tmp_path):
  path = tmp_path / 'a.parquet'
  parquet.write_table(pa.table({'a': ['x', None]}), path)
  with pytest.raises(BadInput, match=r"no column text; found \['a'\]"):
    list(documents.read([path]))
  with pytest.raises(BadInput, match='row 1 of column a is None'):
    list(documents.read([path], 'a'))
  path.write_bytes(b'no table')
  with pytest.raises(DamagedData, match='cannot be parsed'):
    list(documents.read([path]))


def test_a_source_without_text_is_named(tmp_path):
  with pytest.raises(BadInput, match='no text in it'):
    documents.files_of(tmp_path)
  with pytest.raises(BadInput, match='gone: no file or folder'):
    documents.files_of(tmp_path / 'gone')
