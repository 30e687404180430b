"""The table of results: one set of rows, for the page and as plain text.

A row is an arm at a number of steps. A cell holds `mean ± standard error`, followed
by `(n)` where fewer seeds than elsewhere were measured, and below it the paired
difference to the control with its standard error and, in brackets, of three seeds or
more, the number of standard errors; `*` marks those beyond three.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.report import text

BEYOND = 3.0  # Standard errors from which on a difference is emphasised.


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a metric is called and read; as `protocol.Figure`, which domains have."""

  label: str
  better: str
  of_count: bool = False


# What every comparison has, whatever it is of; the rest come with the results.
GENERAL = {
  'entropy': Metric('unigram entropy', ''),
  'entropy_visible': Metric('unigram entropy without padding', ''),
  'distinct_4': Metric('distinct-4', '', of_count=True),
  'nelbo_null': Metric('NELBO, null pass', 'lower'),
  'nelbo_two_pass': Metric('NELBO, two-pass', 'lower'),
  'carried_nelbo': Metric('carried NELBO', 'lower'),
  'log_perplexity': Metric('log generative perplexity', 'lower'),
}
LIKELIHOOD = ('nelbo_null', 'nelbo_two_pass')
_BESIDE = ('entropy', 'carried_nelbo')  # The measures of quality, in the headline.


@dataclasses.dataclass(frozen=True)
class Metrics:
  """The metrics of a comparison: `GENERAL` and those of its results, in order.

  Attributes:
    own: name -> `{label, better, quality}`; those of quality stand among the first.
  """

  own: Mapping[str, Mapping[str, Any]]

  def of(self, name: str) -> Metric:
    """The entry of a metric, or the bare name for an unknown one."""
    if name in self.own:
      # Figures show it, too, and escape nothing.
      return Metric(text.visible(self.own[name]['label']), self.own[name]['better'])
    return GENERAL.get(name, Metric(name, ''))

  @property
  def quality(self) -> tuple[str, ...]:
    """Those that say how good samples are."""
    return tuple(name for name, entry in self.own.items() if entry['quality'])

  @property
  def headline(self) -> tuple[str, ...]:
    """Columns that are read together on the page."""
    return (*self.quality, *_BESIDE)

  @property
  def groups(self) -> tuple[tuple[str, ...], ...]:
    """The columns of each table of the page."""
    first = self.headline
    rest = tuple(name for name in (*self.own, 'distinct_4') if name not in first)
    return first, LIKELIHOOD, rest

  @property
  def terminal_groups(self) -> tuple[tuple[str, ...], ...]:
    """The columns of each table in a terminal: two hold in 90 characters."""
    return self.quality, _BESIDE, LIKELIHOOD


@dataclasses.dataclass(frozen=True)
class Cell:
  """The two lines of a cell; `beyond` if the difference is past `BEYOND`."""

  value: str
  difference: str
  beyond: bool


@dataclasses.dataclass(frozen=True)
class Table:
  """Header texts and rows: the arm, a second key (T, temperature), the cells."""

  header: list[str]
  rows: list[tuple[str, str, list[Cell]]]

  @property
  def has_key(self) -> bool:
    """Whether any row has a second key."""
    return any(key for _, key, _ in self.rows)

  @property
  def shown_header(self) -> list[str]:
    """The header, without the second column where no row has a key."""
    return self.header if self.has_key else [self.header[0], *self.header[2:]]


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
  summary: Sequence[Mapping[str, Any]],
  names: Sequence[str],
  control: str,
  metrics: Metrics,
) -> Table:
  """Rows for the summary's arms and steps that have any of the metrics `names`.

  Ordered by number of steps, then by the arms' first appearance, so the arms to be
  compared stand under each other.
  """
  found = {(r['num_steps'], r['arm'], r['metric']): r for r in summary}
  arms = list(dict.fromkeys(r['arm'] for r in summary))
  keys = {(n, arm) for n, arm, name in found if name in names}
  present = [m for m in names if any(name == m for _, _, name in found)]
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
  return Table(['arm', 'T', *(_heading(metrics.of(name)) for name in present)], rows)


def build_all(
  summary: Sequence[Mapping[str, Any]], control: str, metrics: Metrics
) -> list[Table]:
  """`build` for every group of metrics that was measured, unknown metrics last."""
  known = {name for group in metrics.groups for name in group}
  extra = tuple(dict.fromkeys(r['metric'] for r in summary if r['metric'] not in known))
  groups = (*metrics.groups, extra)
  tables = [build(summary, group, control, metrics) for group in groups]
  return [table for table in tables if table.rows]


def build_matched(matched: Sequence[Mapping[str, Any]], metrics: Metrics) -> Table:
  """Rows of `summarize_matched`: differences to the control at matched entropy."""
  found = {
    (r['arm'], r['num_steps'], r['temperature'], r['metric']): r for r in matched
  }
  names = list(dict.fromkeys(r['metric'] for r in matched))
  rows = []
  keys = dict.fromkeys((steps, t, arm) for arm, steps, t, _ in found)
  for steps, temperature, arm in sorted(keys, key=lambda key: key[:2]):
    cells = []
    for name in names:
      row = found.get((arm, steps, temperature, name))
      if row is None:  # An arm of earlier code, which followed fewer measures.
        cells.append(Cell(text.ABSENT, '', False))
        continue
      seeds, missing = len(row['paired_seeds']), len(row['unmatched_seeds'])
      cells.append(difference_cell(row, f'{seeds} of {seeds + missing} seeds'))
    rows.append((arm, f'{steps}, {text.number(temperature)}', cells))
  headings = [f'difference in {_heading(metrics.of(name))}' for name in names]
  header = ['arm', 'T, temperature', *headings]
  return Table(header, rows)


def text_table(
  summary: Sequence[Mapping[str, Any]],
  control: str,
  metrics: Metrics,
  matched: Sequence[Mapping[str, Any]] = (),
) -> str:
  """The headline and the likelihoods for a terminal, with a legend.

  Names are shown with their control characters made visible. The page has the rest.

  Args:
    summary: rows of `summarize`.
    control: the arm the differences refer to.
    metrics: how they are called and read.
    matched: rows of `summarize_matched`; those at temperature 1 are shown.
  """
  groups = metrics.terminal_groups
  tables = [build(summary, group, control, metrics) for group in groups]
  blocks = [_text_block(table) for table in tables if table.rows]
  natural = [row for row in matched if row['temperature'] == 1]
  if natural:
    shown = _text_block(build_matched(natural, metrics))
    blocks.append('At matched entropy:\n' + shown)
  blocks.append(
    f'Mean ± standard error ({max_seeds(summary)} seeds unless a number in parentheses '
    'says otherwise).\nBelow it the difference to '
    f'{text.visible(control)}, paired by seed, ± its standard error\n'
    f'[number of them, of three seeds or more], * beyond {BEYOND:g}. T: sampling steps.'
  )
  return '\n\n'.join(blocks)


def _heading(entry: Metric) -> str:
  arrow = {'higher': ' ↑', 'lower': ' ↓'}.get(entry.better, '')
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
