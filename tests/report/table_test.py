import pytest

from scmdm_jax.report import compare, summary, table, text
from tests.report.conftest import METRICS

ALL = table.Metrics(METRICS)


def _row(**changes):
  row = {
    'arm': 'a',
    'num_steps': 32,
    'metric': 'valid_rate',
    'mean': 0.5,
    'standard_error': 0.02,
    'seeds': [0, 1, 2],
    'difference': 0.1,
    'difference_error': 0.025,
    'sigmas': 4.0,
    'paired_seeds': [0, 1, 2],
  }
  return {**row, **changes}


@pytest.mark.parametrize(
  ('sigmas', 'difference', 'beyond', 'shown'),
  [
    (4.0, 0.1, True, '+0.10 ± 0.03 [4.0]*'),
    (-4.0, -0.1, True, '-0.10 ± 0.03 [4.0]*'),  # Worse is emphasised alike.
    (3.0, 0.075, False, '+0.07 ± 0.03 [3.0]'),  # At three is not beyond.
    (-2.0, -0.05, False, '-0.05 ± 0.03 [2.0]'),
  ],
)
def test_emphasis_only_beyond_three_standard_errors(sigmas, difference, beyond, shown):
  row = _row(sigmas=sigmas, difference=difference, difference_error=0.026)
  cell = table.difference_cell(row)
  assert (cell.beyond, cell.difference) == (beyond, shown)


def test_one_seed_is_never_emphasised():
  row = _row(standard_error=None, difference_error=None, sigmas=None, seeds=[0])
  cell = table.difference_cell(row)
  assert not cell.beyond
  assert cell.difference == '+0.1 [\u2013]'


def test_rows_go_by_steps_then_by_arm_and_mark_the_control():
  rows = [
    _row(arm=arm, num_steps=steps) for arm in ('base', 'c', 'a') for steps in (128, 8)
  ]
  built = table.build(rows, ALL.headline, 'c', ALL)
  assert [(arm, steps) for arm, steps, _ in built.rows] == [
    ('base', '8'),
    ('c (control)', '8'),
    ('a', '8'),
    ('base', '128'),
    ('c (control)', '128'),
    ('a', '128'),
  ]
  assert built.header == ['arm', 'T', 'valid rate ↑']


def test_fewer_seeds_and_missing_cells_are_shown():
  rows = [
    _row(),
    _row(metric='entropy', seeds=[1, 2]),
    _row(arm='b'),
  ]
  built = table.build(rows, ALL.headline, 'c', ALL)
  values = [[cell.value for cell in cells] for _, _, cells in built.rows]
  assert values == [['0.50 ± 0.02', '0.50 ± 0.02 (2)'], ['0.50 ± 0.02', '\u2013']]


def test_text_table_aligns_and_carries_the_numbers(results):
  rows = summary.summarize(results['runs'], results['control'])
  lines = table.text_table(rows, results['control'], ALL).splitlines()
  assert ' '.join(lines[0].split()) == 'arm T valid rate ↑ generative perplexity ↓'
  arm = next(i for i, line in enumerate(lines) if line.startswith('rate 1'))
  # Differences 0.1, 0.2, 0.3: 0.2 +- 0.0577, 2 sqrt(3) = 3.46 standard errors.
  assert lines[arm].split()[3:6] == ['0.43', '±', '0.15']
  assert '+0.20 ± 0.06 [3.5]*' in lines[arm + 1]
  assert len(lines[arm]) == len(lines[0])
  assert max(map(len, lines)) <= 90
  assert '3 seeds' in lines[-3]


def test_text_table_shows_matched_entropy_at_temperature_one(results):
  rows = summary.summarize(results['runs'], results['control'])
  curve, control = results['temperature_curve'], results['control']
  matched = summary.summarize_matched(summary.at_matched_entropy(curve, control))
  shown = table.text_table(rows, control, ALL, matched)
  block = shown[shown.index('At matched entropy') :]
  assert '3 of 3 seeds' in block
  assert 'T, temperature' in block and '32, 1' in block
  assert '0.8' not in block.split('\n\n')[0]


def test_text_table_makes_escape_sequences_visible():
  shown = table.text_table([_row(arm='\x1b[2Jgone\u202e')], 'c\x1b', ALL)
  assert '\x1b' not in shown and '\u202e' not in shown
  assert '⟨U+001B⟩[2Jgone' in shown


def test_unknown_metrics_come_last():
  tables = table.build_all([_row(), _row(metric='new_judge')], 'c', ALL)
  assert [one.header for one in tables] == [
    ['arm', 'T', 'valid rate ↑'],
    ['arm', 'T', 'new_judge'],
  ]


def table_on_page(results, arms, parse):
  """Tags and text of the page's first table, of a report of such arms."""
  runs = [run for run in results['runs'] if run['arm'] == 'rate 1']
  results['runs'] += [run | {'arm': arm} for arm in arms for run in runs]
  source = compare.render(compare.complete(results))
  start = source.index('<table>')
  return parse(source[start : source.index('</table>', start) + len('</table>')])


def test_the_page_has_the_same_rows_escaped(results, parse):
  parsed = table_on_page(results, ['<b>"x"'], parse)
  # A header, and three arms at two numbers of steps.
  assert parsed.tags.count('tr') == 1 + 3 * 2
  # 2 sqrt(3) standard errors: valid rates of both arms, at both numbers of steps.
  assert parsed.tags.count('strong') == 4
  assert '<b>"x"' in ''.join(parsed.text)
  assert 'b' not in parsed.tags


def test_an_empty_second_column_is_dropped():
  rows = [_row(num_steps=None, metric='nelbo_null')]
  built = table.build(rows, table.LIKELIHOOD, 'c', ALL)
  assert not built.has_key
  assert built.shown_header == ['arm', 'NELBO, null pass ↓']


def test_matched_rows_of_earlier_code_may_lack_a_measure():
  """Which a comparison has that began before the measure was followed."""
  row = {
    'num_steps': 8,
    'temperature': 1.0,
    'difference': 0.5,
    'difference_error': None,
    'sigmas': None,
    'paired_seeds': [0],
    'unmatched_seeds': [],
  }
  found = table.build_matched(
    [
      {**row, 'arm': 'earlier', 'metric': 'valid_rate'},
      {**row, 'arm': 'now', 'metric': 'valid_rate'},
      {**row, 'arm': 'now', 'metric': 'distinct_4'},
    ],
    table.Metrics({}),
  )
  cells = {arm: [cell.value for cell in cells] for arm, _, cells in found.rows}
  assert cells == {
    'earlier': ['1 of 1 seeds', text.ABSENT],
    'now': ['1 of 1 seeds', '1 of 1 seeds'],
  }
