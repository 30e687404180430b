"""A self-contained HTML page from sections: no script, nothing to fetch."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from scmdm_jax.report import text

# A second line of defence behind escaping: the page may load and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLESHEET = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5c6670;
  --line: #d5dae0; --tint: #f3f5f7; --new: #fdebc8; --new-line: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e8; --paper: #15181c;
  --soft: #9aa4af; --line: #3a414a; --tint: #1e2329; --new: #4a3410; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 78rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p, ul { max-width: 46rem; margin: .5rem 0 1rem; }
a { color: inherit; }
nav { font-size: .9rem; color: var(--soft); }
nav a { margin-right: 1rem; white-space: nowrap; }
code, pre { font-family: ui-monospace, monospace; font-size: .86em; }
pre { background: var(--tint); padding: .75rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--soft); }
tbody th { font-weight: 500; min-width: 9rem; }
tr.start > * { border-top: 2px solid var(--soft); }
td.number { white-space: nowrap; }
.difference { color: var(--soft); font-size: .94em; }
strong.difference { color: var(--ink); }
.note, figcaption { color: var(--soft); font-size: .82rem; line-height: 1.45; }
.figures { display: grid; gap: 1.75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
.plot svg { display: block; width: 100%; max-width: 34rem; height: auto; }
.plot svg * { stroke-linejoin: round; stroke-linecap: butt; }
.plot svg text { font-family: system-ui, sans-serif !important; }
.gallery { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.molecule { border: 1px solid var(--line); padding: .4rem; text-align: center; }
.molecule svg { width: 100%; height: auto; }
.pictures { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)); }
.pictures img { width: 100%; image-rendering: pixelated; display: block; }
.invalid { display: grid; place-items: center; aspect-ratio: 170/130;
  color: var(--soft); border: 1px dashed var(--soft); }
table.trajectory { font-family: ui-monospace, monospace; font-size: .8rem; }
table.trajectory th, table.trajectory td { padding: .1rem .22rem; text-align: center;
  border-bottom: 0; white-space: nowrap; min-width: 0; }
table.trajectory thead th { font-weight: 400; color: var(--soft); font-size: .85em; }
table.trajectory td.signal { text-align: left; padding-left: .8rem; color: var(--soft);
  font-family: system-ui, sans-serif; }
table.trajectory td.number { padding-left: .8rem; }
.mask { color: var(--soft); font-weight: 700; }
.scroll:has(> .trajectory) { padding: 2px; }
.new { background: var(--new); outline: 1px solid var(--new-line); }
p .new, p .mask { padding: 0 .25rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444; --line: #bbb;
    --tint: #f3f3f3; --new: #fdebc8; }
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .35rem; }
  tbody th { min-width: 0; }
  .new { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""


@dataclasses.dataclass(frozen=True)
class Section:
  """A titled part of the page. `anchor` is a plain word, `body` finished HTML."""

  anchor: str
  title: str
  body: str


def render_page(title: str, lead: str, sections: Iterable[Section]) -> str:
  """The whole document.

  Args:
    title: plain drawing, escaped here.
    lead: finished HTML under the title.
    sections: their titles are plain text and escaped here, their bodies are HTML.

  Returns:
    HTML without scripts and without references to anything outside.
  """
  sections = [section for section in sections if section.body]
  links = ''.join(f'<a href="#{s.anchor}">{text.escape(s.title)}</a>' for s in sections)
  body = ''.join(
    f'<section id="{s.anchor}"><h2>{text.escape(s.title)}</h2>\n{s.body}</section>\n'
    for s in sections
  )
  heading = text.escape(title)
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    f'<title>{heading}</title>\n<style>{_STYLESHEET}</style></head>\n'
    f'<body><h1>{heading}</h1>\n{lead}\n<nav>{links}</nav>\n{body}</body></html>\n'
  )


def figure_html(svg: str, caption: str) -> str:
  """A figure; `svg` and `caption` are finished."""
  return f'<figure class="plot">{svg}<figcaption>{caption}</figcaption></figure>'


def rows_html(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A table of plain texts, the first column its row headings; '' without rows."""
  lines = []
  for first, *rest in rows:
    cells = ''.join(f'<td class="number">{text.escape(cell)}</td>' for cell in rest)
    lines.append(f'<tr><th scope="row">{text.escape(first)}</th>{cells}</tr>\n')
  if not lines:
    return ''
  head = ''.join(f'<th scope="col">{text.escape(cell)}</th>' for cell in header)
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
    f'<tbody>{"".join(lines)}</tbody></table></div>'
  )


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
