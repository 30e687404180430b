"""Documents out of files: which files, which formats, the text of pages."""

import gzip
import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data import documents
from scmdm_jax.errors import BadInput
from tests.data import packed

QUICK = settings(max_examples=200, deadline=None)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / '.git').mkdir()
  (tmp_path / 'b' / 'one.txt').write_text('\ufeffone\n')
  (tmp_path / 'a.md').write_text('two')
  (tmp_path / 'c.TXT').write_text(' \n')  # Empty: no document.
  (tmp_path / 'picture.png').write_bytes(b'\x89PNG\xff')
  (tmp_path / '.hidden.txt').write_text('no')
  (tmp_path / '.git' / 'x.txt').write_text('no')
  (tmp_path / 'README.md').write_text('no')
  (tmp_path / 'LICENSE').write_text('no')
  files, others = documents.files_of(tmp_path)
  assert [path.name for path in files] == ['a.md', 'one.txt', 'c.TXT']
  assert others == ['LICENSE', 'README.md', 'picture.png']
  empty = []
  found = list(documents.read(files, empty=empty.append))
  assert found == [(str(files[0]), 'two'), (str(files[1]), 'one\n')]
  assert empty == files[2:]


def read(path):
  files, _ = documents.files_of(path)
  return [text for _, text in documents.read(files)]


@pytest.mark.parametrize('name', ['text8', 'a.TXT', 'b.Md', 'wiki.train.raw', 'x.rst'])
@pytest.mark.parametrize('ending', packed.WAYS)
def test_any_other_file_is_one_document(tmp_path, name, ending):
  path = tmp_path / (name + ending)
  path.write_bytes(packed.WAYS[ending]('\ufeffone,two\r\n{"three": 4}\r\n'.encode()))
  assert read(path) == ['one,two\n{"three": 4}\n']


@pytest.mark.parametrize(
  'name', ['a.docx', 'a.pdf', 'a.tar.gz', 'a.zip', 'a.py', 'a.XML']
)
def test_other_formats_are_refused_with_the_list(tmp_path, name):
  (tmp_path / name).write_bytes(gzip.compress(b'text'))
  with pytest.raises(BadInput, match=r'of no format .*\.txt .*\.csv .*\.zst; rename'):
    documents.files_of(tmp_path / name)


PAGE = """<!DOCTYPE html><html><head><title>No</title><style>p {}</style></head>
  <body><h1>A &amp; B</h1><p>One <i>two</i>
  three.<br/>Four</p><script>if (a < b) {}</script><ul><li>x</li><li>y</li></ul>
  </body></html>"""
PAGES = [
  (PAGE, 'A & B\nOne two three.\nFour\nx\ny\n'),
  # End tags that the standard leaves to the writer, and elements without any tag.
  ('<head><title>No</title><p>One<p>Two', 'One\nTwo\n'),
  ('<html><head><meta charset=utf-8><title>No</title>Text', 'Text\n'),
  ('<title>No</title><h1>A</h1>b<ul><li>x<li>y</ul>', 'A\nb\nx\ny\n'),
  ('<head><script>No</script><body>One', 'One\n'),
  ('<table><tr><td>a<td>b<tr><td>c</table>', 'a\nb\nc\n'),
  ('<HEAD><TITLE>No</TITLE><BODY><P>One', 'One\n'),
  ('plain text, no tag', 'plain text, no tag\n'),
  # What is hidden stays hidden, and what only looks like a tag is text.
  ('<p>a<script>x = "</p>" // <b>\n</script>b<style>c</style>d', 'abd\n'),
  ('<template>no</template><p>a < b && c > d <3', 'a < b && c > d <3\n'),
  ('<p>a<!-- no --> b<!-->c', 'a bc\n'),
  ('<noscript>shown</noscript><textarea>\nx</textarea>', 'shownx\n'),
  ('&lt;p&gt; &eacute;&#233;&#xe9; &amp;amp; &nosuch;', '<p> ééé &amp; &nosuch;\n'),
  ('<p>one</p></body></html><p>two', 'one\ntwo\n'),
  ('<svg><title>t</title><path/></svg><p>x', 't\nx\n'),
  ('<head><title>No', ''),
]


@pytest.mark.parametrize(('page', 'text'), PAGES)
def test_text_of_a_page(page, text):
  assert documents.html_text(page) == text


UNITS = ['<a ', '<div>', '<b><p>', '<', '&', '<!--', '<table><tr>', '<a>', '<b><i>']
UNITS += [
  '<a x="',
  '<li><ul>',
  '</p>',
  '<svg>',
  '<template>',
  '<head>',
  '<script>',
  ' ',
]


@pytest.mark.parametrize('unit', UNITS)
def test_time_of_a_page_grows_with_its_length_only(unit):
  least = {1000: math.inf, 8000: math.inf}
  for _ in range(5):  # A busy machine is slow at times, a quadratic reader always.
    for count in least:
      start = time.process_time()
      documents.html_text(unit * count)
      least[count] = min(least[count], time.process_time() - start)
    # Eight times as long: 8 if linear, 64 if quadratic.
    if least[8000] < 24 * least[1000]:
      return
  pytest.fail(f'{unit}: {least} seconds of the processor by repetitions')


def test_a_page_without_text_is_named(tmp_path):
  (tmp_path / 'a.html').write_text('<p>One')
  (tmp_path / 'b.HTM').write_text('<head><title>Only</title></head><img src=x>')
  empty = []
  found = documents.read(documents.files_of(tmp_path)[0], empty=empty.append)
  assert [text for _, text in found] == ['One\n']
  assert empty == [tmp_path / 'b.HTM']


@QUICK
@given(st.text(st.characters(exclude_categories=['Cs'])))
def test_any_page_can_be_read(page):
  text = documents.html_text(page)
  assert not text or text.endswith('\n')
  # Without markup all but white space comes back.
  if not set(page) & set('<&\0') and page.strip():
    assert text.split() == page.replace('\ufeff', '', page[0] == '\ufeff').split()


@QUICK
@given(
  st.binary(), st.sampled_from(['a.txt', 'a.html', 'b.jsonl', 'c.csv', 'd.parquet'])
)
def test_any_bytes_are_documents_or_one_line(tmp_path_factory, content, name):
  path = tmp_path_factory.mktemp('t') / name
  path.write_bytes(content)
  try:
    read(path)
  except BadInput as error:
    assert '\n' not in str(error)
    assert str(path) in str(error)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.txt', b'abc\xe9 caf', r'not UTF-8 at byte 3 \(0xe9\)'),
    ('a.jsonl', b'{"text": "ab"}\n{"text": "\xff"}\n', r'not UTF-8 at byte 25'),
  ],
)
def test_unsuitable_content_is_named_with_its_place(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(BadInput, match=f'{re.escape(str(path))}: .*{message}'):
    list(documents.read([path]))


def test_a_source_without_text_is_named(tmp_path):
  with pytest.raises(BadInput, match='no text in it; wanted'):
    documents.files_of(tmp_path)
  (tmp_path / 'README.md').write_text('card')
  with pytest.raises(BadInput, match=r'no text in it but README\.md; wanted'):
    documents.files_of(tmp_path)
  with pytest.raises(BadInput, match='gone: no regular file or folder'):
    documents.files_of(tmp_path / 'gone')
