"""The table of results: one set of rows, as plain text and as HTML.

A row is an arm at a number of steps. A cell holds `mean ± standard error`, followed
by `(n)` where fewer seeds than elsewhere were measured, and below it the paired
difference to the control with its standard error and, in brackets, the number of
standard errors; `*` marks those beyond three.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.report import text

BEYOND = 3.0  # Standard errors from which on a difference is emphasised.


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a metric is called and read; `better` is 'higher', 'lower' or ''."""

  label: str
  better: str


METRICS = {
  'valid_rate': Metric('valid rate', 'higher'),
  'generative_perplexity': Metric('generative perplexity', 'lower'),
  'entropy': Metric('unigram entropy', ''),
  'distinct_2': Metric('distinct-2', ''),
  'distinct_4': Metric('distinct-4', ''),
  'repetition_4': Metric('repeated 4-grams', ''),
  'ngram_bits': Metric('n-gram bits', 'lower'),
  'word_rate': Metric('known words', 'higher'),
  'ngram_bits_real': Metric('n-gram bits, real', ''),
  'word_rate_real': Metric('known words, real', ''),
  'mauve': Metric('MAUVE', 'higher'),
  'mauve_smoothed': Metric('MAUVE, smoothed', 'higher'),
  'frechet_distance': Metric('Frechet distance', 'lower'),
  'class_accuracy': Metric('class accuracy', 'higher'),
  'js_distance_3': Metric('3-mer JS distance', 'lower'),
  'js_distance_6': Metric('6-mer JS distance', 'lower'),
  'gc_error': Metric('GC error', 'lower'),
  'macro_f1': Metric('macro F1', 'higher'),
  'auroc': Metric('discriminator AUROC', 'lower'),
  'nearest_distance': Metric('distance to nearest training image', ''),
  'frechet_distance_real': Metric('Frechet distance, real', ''),
  'frechet_distance_real_spread': Metric('its spread', ''),
  'class_accuracy_real': Metric('class accuracy, real', ''),
  'real_count': Metric('real images', ''),
  'nearest_distance_real': Metric('distance to nearest, real', ''),
  'js_distance_3_real': Metric('3-mer JS distance, real', ''),
  'js_distance_6_real': Metric('6-mer JS distance, real', ''),
  'gc_error_real': Metric('GC error, real', ''),
  'macro_f1_real': Metric('macro F1, real', ''),
  'auroc_real': Metric('discriminator AUROC, real', ''),
  'stray_rate': Metric('stray tokens', 'lower'),
  'valid': Metric('valid count', 'higher'),
  'unique_rate': Metric('unique of valid', 'higher'),
  'novel_rate': Metric('novel of valid', 'higher'),
  'valid_canonical_unique_rate': Metric('valid and canonically unique', 'higher'),
  'nelbo_null': Metric('NELBO, null pass', 'lower'),
  'nelbo_two_pass': Metric('NELBO, two-pass', 'lower'),
  'carried_elbo': Metric('carried ELBO', 'lower'),
  'log_perplexity': Metric('log generative perplexity', 'lower'),
}

# Columns that are read together on the page.
QUALITY = (
  'valid_rate',
  'generative_perplexity',
  'mauve',
  'frechet_distance',
  'class_accuracy',
  'js_distance_6',
  'macro_f1',
)
HEADLINE = (*QUALITY, 'entropy', 'carried_elbo')
LIKELIHOOD = ('nelbo_null', 'nelbo_two_pass')
SETS = (
  'mauve_smoothed',
  'js_distance_3',
  'gc_error',
  'auroc',
  'stray_rate',
  'nearest_distance',
  'real_count',
  'nearest_distance_real',
  'frechet_distance_real',
  'frechet_distance_real_spread',
  'class_accuracy_real',
  'js_distance_3_real',
  'js_distance_6_real',
  'gc_error_real',
  'macro_f1_real',
  'auroc_real',
  'valid',
  'distinct_2',
  'distinct_4',
  'repetition_4',
  'unique_rate',
  'novel_rate',
  'valid_canonical_unique_rate',
)
GROUPS = (HEADLINE, LIKELIHOOD, SETS)
# In a terminal: two columns hold in 90 characters.
TERMINAL_GROUPS = (QUALITY, HEADLINE[len(QUALITY) :], LIKELIHOOD)


@dataclasses.dataclass(frozen=True)
class Cell:
  """The two lines of a cell; `beyond` if the difference is past `BEYOND`."""

  value: str
  difference: str
  beyond: bool


@dataclasses.dataclass(frozen=True)
class Table:
  """Header texts and rows: the arm, a second key (steps, temperature), the cells."""

  header: list[str]
  rows: list[tuple[str, str, list[Cell]]]


def metric(name: str) -> Metric:
  """The entry of `METRICS`, or the bare name for a metric unknown here."""
  return METRICS.get(name, Metric(name, ''))


def difference_cell(row: Mapping[str, Any], value: str = '') -> Cell:
  """A cell from the difference fields of a summary row."""
  if row['difference'] is None:
    return Cell(value, '', False)
  difference = text.measurement(row['difference'], row['difference_error'], sign=True)
  if row['sigmas'] is None:
    return Cell(value, f'{difference} [{text.ABSENT}]', False)
  beyond = abs(row['sigmas']) > BEYOND
  star = '*' if beyond else ''
  return Cell(value, f'{difference} [{abs(row["sigmas"]):.1f}]{star}', beyond)


def max_seeds(summary: Sequence[Mapping[str, Any]]) -> int:
  """The number of seeds behind a mean that states no number of its own."""
  return max((len(row['seeds']) for row in summary), default=0)


def build(
  summary: Sequence[Mapping[str, Any]], metrics: Sequence[str], control: str
) -> Table:
  """Rows for the summary's arms and steps that have any of `metrics`.

  Ordered by number of steps, then by the arms' first appearance, so the arms to be
  compared stand under each other.
  """
  found = {(r['num_steps'], r['arm'], r['metric']): r for r in summary}
  arms = list(dict.fromkeys(r['arm'] for r in summary))
  keys = {(n, arm) for n, arm, name in found if name in metrics}
  present = [m for m in metrics if any(name == m for _, _, name in found)]
  most = max_seeds(summary)
  rows = []
  for num_steps, arm in sorted(keys, key=lambda k: (k[0] or 0, arms.index(k[1]))):
    cells = []
    for name in present:
      row = found.get((num_steps, arm, name))
      if row is None:
        cells.append(Cell(text.ABSENT, '', False))
        continue
      value = text.measurement(row['mean'], row['standard_error'])
      if len(row['seeds']) < most:
        value += f' ({len(row["seeds"])})'
      cells.append(difference_cell(row, value))
    label = f'{arm} (control)' if arm == control else arm
    rows.append((label, '' if num_steps is None else str(num_steps), cells))
  return Table(['arm', 'T', *(_heading(name) for name in present)], rows)


def build_all(summary: Sequence[Mapping[str, Any]], control: str) -> list[Table]:
  """`build` for every group of metrics that was measured, unknown metrics last."""
  known = {name for group in GROUPS for name in group}
  extra = tuple(dict.fromkeys(r['metric'] for r in summary if r['metric'] not in known))
  tables = [build(summary, group, control) for group in (*GROUPS, extra)]
  return [table for table in tables if table.rows]


def build_matched(matched: Sequence[Mapping[str, Any]]) -> Table:
  """Rows of `summarize_matched`: differences to the control at matched entropy."""
  found = {(r['arm'], r['temperature'], r['metric']): r for r in matched}
  metrics = list(dict.fromkeys(r['metric'] for r in matched))
  rows = []
  keys = dict.fromkeys((t, arm) for arm, t, _ in found)
  for temperature, arm in sorted(keys, key=lambda key: key[0]):
    cells = []
    for name in metrics:
      row = found[arm, temperature, name]
      seeds, missing = len(row['paired_seeds']), len(row['unmatched_seeds'])
      cells.append(difference_cell(row, f'{seeds} of {seeds + missing} seeds'))
    rows.append((arm, text.number(temperature), cells))
  header = ['arm', 'temperature', *(f'difference in {_heading(m)}' for m in metrics)]
  return Table(header, rows)


def text_table(
  summary: Sequence[Mapping[str, Any]],
  control: str,
  matched: Sequence[Mapping[str, Any]] = (),
) -> str:
  """The headline and the likelihoods for a terminal, with a legend.

  Names are shown with their control characters made visible. The page has the rest.

  Args:
    summary: rows of `summarize`.
    control: the arm the differences refer to.
    matched: rows of `summarize_matched`; those at temperature 1 are shown.
  """
  tables = [build(summary, group, control) for group in TERMINAL_GROUPS]
  blocks = [_text_block(table) for table in tables if table.rows]
  natural = [row for row in matched if row['temperature'] == 1]
  if natural:
    blocks.append('At matched entropy:\n' + _text_block(build_matched(natural)))
  blocks.append(
    f'Mean ± standard error ({max_seeds(summary)} seeds unless a number in parentheses '
    'says otherwise).\nBelow it the difference to '
    f'{text.visible(control)}, paired by seed, ± its standard error\n'
    f'[number of standard errors], * beyond {BEYOND:g}. T: sampling steps.'
  )
  return '\n\n'.join(blocks)


def html_table(table: Table) -> str:
  """`table` as an HTML table in a container that scrolls sideways."""
  has_key = any(key for _, key, _ in table.rows)
  columns = table.header if has_key else [table.header[0], *table.header[2:]]
  head = ''.join(f'<th scope="col">{text.escape(h)}</th>' for h in columns)
  body, last = [], None
  for arm, key, cells in table.rows:
    start = ' class="start"' if last is not None and key != last else ''
    last = key
    body.append(f'<tr{start}><th scope="row">{text.escape(arm)}</th>')
    if has_key:
      body.append(f'<td class="number">{text.escape(key)}</td>')
    body.extend(f'<td class="number">{_html_cell(cell)}</td>' for cell in cells)
    body.append('</tr>\n')
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
    f'<tbody>{"".join(body)}</tbody></table></div>'
  )


def _html_cell(cell: Cell) -> str:
  lines = [text.escape(cell.value)] if cell.value else []
  if cell.difference:
    tag = 'strong' if cell.beyond else 'span'
    lines.append(f'<{tag} class="difference">{text.escape(cell.difference)}</{tag}>')
  return '<br>'.join(lines) or text.ABSENT


def _heading(name: str) -> str:
  entry = metric(name)
  arrow = {'higher': ' ↑', 'lower': ' ↓', '': ''}[entry.better]
  return entry.label + arrow


def _text_block(table: Table) -> str:
  lines = [table.header]
  for arm, steps, cells in table.rows:
    lines.append([text.visible(arm), steps, *(cell.value for cell in cells)])
    if any(cell.difference for cell in cells):
      lines.append(['', '', *(cell.difference for cell in cells)])
  widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
  aligned = []
  for line in lines:
    first = line[0].ljust(widths[0])
    rest = [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
    aligned.append('  '.join([first, *rest]).rstrip())
  return '\n'.join([aligned[0], '-' * max(map(len, aligned)), *aligned[1:]])
