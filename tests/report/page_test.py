from scmdm_jax.report import page


def test_page_is_balanced_inert_and_links_its_sections(parse):
  sections = [
    page.Section('one', 'First <&>', '<p>body</p>'),
    page.Section('empty', 'Nothing', ''),
  ]
  source = page.render_page('A "title" </title><script>', '<p>lead</p>', sections)
  parsed = parse(source)
  assert 'http' not in source.replace('http-equiv', '')
  assert ('href', '#one') in parsed.attributes
  assert ('href', '#empty') not in parsed.attributes
  assert parsed.text.count('First <&>') == 2
  assert 'A "title" </title><script>' in parsed.text
  policy = dict(parsed.attributes)['content']
  assert policy.startswith("default-src 'none'")


def test_rows_html_escapes_and_vanishes_without_rows(parse):
  source = page.rows_html(['<h>'], [['<a>', '"b"']])
  assert {'<h>', '<a>', '"b"'} <= set(parse(source).text)
  assert page.rows_html(['h'], []) == ''


def test_paths_flatten_nested_values():
  tree = {'a': {'b': 0.0003, 'c': [1, 2.5]}, 'd': [{'e': None}], 'f': True}
  assert page.paths(tree) == [
    ('a.b', '0.0003'),
    ('a.c', '1, 2.5'),
    ('d.0.e', '\u2013'),
    ('f', 'True'),
  ]
