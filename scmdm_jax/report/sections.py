"""The sections of the comparison's page, each from the completed report."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.domains.images import tokenizer
from scmdm_jax.report import figures, page, summary, table, text, trajectory

_FINDINGS = (*table.QUALITY, 'carried_nelbo')
_STEPS_FIGURES = table.HEADLINE

Report = Mapping[str, Any]


def lead(report: Report) -> str:
  """What was compared, what came out beyond three standard errors, and the notes."""
  base = report['base']
  lines = [
    f'<p>From the base <code>{text.escape(base["path"])}</code> '
    f'({base["parameters"]:,} parameters, NELBO {text.number(base["nelbo_null"])} '
    f'nats per token): {len(report["arms"])} arms, seeds {_seeds(report)}. Differences '
    f'are to the control <b>{text.escape(report["control"])}</b>.</p>',
    _findings(report),
  ]
  if report['notes']:
    items = ''.join(f'<li>{text.escape(note)}</li>' for note in report['notes'])
    lines.append(f'<p>Notes:</p><ul>{items}</ul>')
  lines.append(f'<pre>{text.escape(report["command"])}</pre>')
  lines.append(
    f'<p class="note">{text.escape(report["hardware"])} · '
    f'revision {text.escape(report["git_sha"])}</p>'
  )
  return '\n'.join(lines)


def results(report: Report) -> str:
  """The tables, with how to read them."""
  tables = table.build_all(report['summary'], report['control'])
  seeds = len(report['seeds'])
  doubt = (
    f' With {seeds} seeds the standard errors are themselves uncertain: were there no '
    f'difference, a given cell would still be past {table.BEYOND:g} with probability '
    f'{summary.two_sided_p(table.BEYOND, seeds):.2g} (t distribution), '
    'and there are many cells.'
    if seeds > 1
    else ' One seed: no spread, so no difference can be judged.'
  )
  return (
    f'<p>Every cell: mean ± standard error ({table.max_seeds(report["summary"])} seeds '
    'unless a number in parentheses says otherwise); below it the difference to the '
    'control, paired by seed, ± its standard error and in brackets the number of '
    'standard errors. '
    f'Bold with * is beyond {table.BEYOND:g} standard errors, in either direction.'
    f'{doubt} T is the number of sampling steps; likelihoods are in nats per token; ↑ '
    'higher is better, ↓ lower is better.</p>\n'
    + '\n'.join(table.html_table(one) for one in tables)
    + f'<p class="note">{_provenance(report)}</p>'
  )


def matched(report: Report) -> str:
  """The differences to the control's temperature sweep at each arm's entropy."""
  rows = report['matched_entropy_summary']
  if not rows:
    return ''
  everything = table.html_table(table.build_matched(rows))
  natural = [row for row in rows if row['temperature'] == 1]
  shown = (
    table.html_table(table.build_matched(natural))
    + f'<details><summary>Every temperature</summary>{everything}</details>'
    if natural
    else everything
  )
  return (
    '<p>A colder sampler lowers generative perplexity by giving up diversity. Here '
    'each arm is compared with the temperature sweep of the control, interpolated '
    'linearly at the entropy of the arm, seed by seed. Outside that sweep a seed gives '
    'no difference: nothing is extrapolated.</p>\n'
    + shown
    + f'<p class="note">{_provenance(report)}</p>'
  )


def curves(report: Report, styles: figures.Styles) -> str:
  """Quality against steps and against entropy, and the training curves."""
  spread = 'Mean over seeds, bars ± 1 standard error over seeds; arms side by side.'
  parts = []
  for metric in _STEPS_FIGURES:
    series = figures.series_of(report['summary'], metric)
    if series:
      label = table.metric(metric).label
      svg = figures.steps_figure(series, label, styles, f'steps-{metric}')
      parts.append(page.figure_html(svg, f'{spread} {_provenance(report)}'))
  for metric in table.QUALITY:
    drawn = _sweep(report, metric)
    if drawn:
      rings = _sweep(report, metric, temperature=1.0)
      label = table.metric(metric).label
      svg = figures.entropy_figure(drawn, rings, label, styles, f'entropy-{metric}')
      caption = (
        'A temperature sweep per arm: every seed a thin line, the mean over seeds at '
        f'each temperature bold; rings mark temperature 1. {_provenance(report)}'
      )
      parts.append(page.figure_html(svg, caption))
  training = _training(report)
  if training:
    svg = figures.training_figure(training, styles, 'training')
    caption = (
      'Every seed thin, the mean over seeds bold, long curves averaged in bins. '
      'The loss of a conditioned example is that of its second pass, so levels of '
      f'different rates are not comparable. {_provenance(report)}'
    )
    parts.append(page.figure_html(svg, caption))
  return f'<div class="figures">{"".join(parts)}</div>' if parts else ''


def arms(report: Report) -> str:
  """The arms with rate, steps and training FLOPs."""
  rows = []
  for arm in report['arms']:
    role = ' (control)' if arm['name'] == report['control'] else ''
    rows.append(
      [
        f'{arm["name"]}{role}',
        text.number(arm['rate']),
        text.number(arm['train_steps']),
        text.number(arm['flops_ratio']),
      ]
    )
  header = ['arm', 'rate', 'training steps', 'training FLOPs / those of rate 1']
  return page.rows_html(header, rows)


def gallery(report: Report) -> str:
  """Drawn samples per arm: a look, not a measurement."""
  draw = _texts
  if report['domain'] == 'molecules':
    # RDKit is an extra of this domain.
    from scmdm_jax.domains.molecules import drawing

    draw = drawing.gallery_html
  elif report['domain'] == 'images':
    from scmdm_jax.domains.images import drawing

    draw = functools.partial(drawing.gallery_html, levels=_levels(report))
  parts = [
    f'<h3>{text.escape(arm)}</h3>{draw(samples)}'
    for arm, samples in report['gallery'].items()
    if samples
  ]
  return ''.join(
    ['<p>Samples as they came, none selected.</p>', *parts] if parts else []
  )


def _texts(samples: Sequence[str]) -> str:
  """Samples of drawing, folded away one by one; their lines stay lines."""
  blocks = []
  for number, sample in enumerate(samples, 1):
    lines = '<br>'.join(text.escape(line) for line in sample.split('\n'))
    blocks.append(
      f'<details><summary>Sample {number}</summary><p>{lines}</p></details>'
    )
  return ''.join(blocks)


def trajectory_of(report: Report) -> str:
  """The trajectory; whether a signal is carried follows from the arm's rate."""
  shown = report['trajectory']
  if not shown or not shown['tokens']:
    return ''
  rates = {arm['name']: arm['rate'] for arm in report['arms']}
  conditioned = bool(rates.get(shown['arm'], 0.0))
  if report['domain'] == 'images':
    from scmdm_jax.domains.images import drawing

    return drawing.film_html(shown, _levels(report), conditioned=conditioned)
  return trajectory.trajectory_html(shown, conditioned=conditioned)


def _levels(report: Report) -> int:
  """Returns the levels of a value of an image, by the name of the run's tokenizer."""
  return tokenizer.pixel_tokenizer(report['tokenizer']).levels


def cost(report: Report) -> str:
  """Ratios, denoiser evaluations per step count, mean seconds per arm."""
  ratios = page.rows_html(['measure', 'value'], page.paths(report['cost']))
  evaluations: dict[tuple[int, int], list[str]] = {}
  for run in report['runs']:
    for steps, sample in run['samples'].items():
      key = (int(steps), sample['evaluations'])
      evaluations.setdefault(key, []).append(run['arm'])
  rows = [
    [str(steps), str(count), ', '.join(dict.fromkeys(names))]
    for (steps, count), names in sorted(evaluations.items(), key=lambda item: item[0])
  ]
  counted = page.rows_html(['T', 'denoiser evaluations', 'arms'], rows)
  return '\n'.join(part for part in (ratios, counted, _seconds(report)) if part)


def provenance(report: Report) -> str:
  """Versions, and the resolved configuration folded away."""
  versions = page.rows_html(['package', 'version'], page.paths(report['versions']))
  config = page.rows_html(['field', 'value'], page.paths(report['config']))
  folded = f'<details><summary>Resolved configuration</summary>{config}</details>'
  return (
    '<p>All numbers of this page, and every run behind them, are in '
    '<code>report.json</code> beside it.</p>' + versions + (folded if config else '')
  )


def _findings(report: Report) -> str:
  """Counts, then lists, the conditioned arms' differences beyond three errors."""
  conditioned = {arm['name'] for arm in report['arms'] if arm['rate']}
  judged = [
    row
    for row in report['summary']
    if row['arm'] in conditioned
    and row['metric'] in _FINDINGS
    and row['sigmas'] is not None
  ]
  if not judged:
    return '<p>No difference could be judged: that takes two seeds of each arm.</p>'
  beyond = [row for row in judged if abs(row['sigmas']) > table.BEYOND]
  verdicts: dict[tuple[str, str, str], list[str]] = {}
  for row in sorted(beyond, key=lambda row: (row['arm'], row['metric'])):
    higher = table.metric(row['metric']).better == 'higher'
    verdict = 'better' if (row['difference'] > 0) == higher else 'worse'
    steps = verdicts.setdefault((row['arm'], row['metric'], verdict), [])
    steps.append(str(row['num_steps']))
  items = ''.join(
    f'<li>{text.escape(arm)}: {table.metric(metric).label} {verdict} at T = '
    f'{", ".join(steps)}</li>'
    for (arm, metric, verdict), steps in verdicts.items()
  )
  measured = {row['metric'] for row in judged}
  names = ', '.join(table.metric(m).label for m in _FINDINGS if m in measured)
  return (
    f'<p>Of {len(judged)} differences of the conditioned arms ({names}; all T), '
    f'{len(beyond)} are beyond {table.BEYOND:g} standard errors'
    + (f':</p><ul>{items}</ul>' if beyond else '.</p>')
    + _matched_findings(report, conditioned)
  )


def _matched_findings(report: Report, conditioned: set[str]) -> str:
  """The conditioned arms at temperature 1 and matched entropy, all of them."""
  items = []
  for row in report['matched_entropy_summary']:
    if row['arm'] in conditioned and row['temperature'] == 1:
      label = table.metric(row['metric']).label
      cell = table.difference_cell(row).difference or 'outside the range of the control'
      items.append(f'<li>{text.escape(row["arm"])}: {label} {cell}</li>')
  if not items:
    return ''
  return (
    '<p>At matched entropy (temperature 1), differences with their standard error and '
    f'[number of standard errors]:</p><ul>{"".join(items)}</ul>'
  )


def _seeds(report: Report) -> str:
  return ', '.join(str(seed) for seed in report['seeds'])


def _provenance(report: Report) -> str:
  """The end of every caption, finished HTML."""
  return (
    f'Seeds {_seeds(report)}. {text.escape(report["hardware"])}. '
    f'<code>{text.escape(report["command"])}</code>'
  )


def _sweep(
  report: Report, metric: str, temperature: float | None = None
) -> dict[str, dict[int, list[tuple[float, float]]]]:
  """`{arm: {seed: [(entropy, metric)]}}`, temperatures rising; None left out."""
  sweep: dict[str, dict[int, list]] = {}
  for point in sorted(report['temperature_curve'], key=lambda p: p['temperature']):
    if point['entropy'] is None or point.get(metric) is None:
      continue
    if temperature is None or point['temperature'] == temperature:
      seeds = sweep.setdefault(point['arm'], {})
      seeds.setdefault(point['seed'], []).append((point['entropy'], point[metric]))
  return sweep


def _training(report: Report) -> dict[str, dict[int, list[tuple[float, float]]]]:
  drawn: dict[str, dict[int, list]] = {}
  for run in report['runs']:
    points = [
      (entry['step'], entry['loss'])
      for entry in run['training_curve']
      if entry['loss'] is not None
    ]
    if points:
      drawn.setdefault(run['arm'], {})[run['seed']] = points
  return drawn


def _seconds(report: Report) -> str:
  """Mean seconds over seeds, one row per arm, one column per phase."""
  times: dict[str, dict[str, list[float]]] = {}
  for run in report['runs']:
    for phase, value in run['seconds'].items():
      if value is not None:
        times.setdefault(run['arm'], {}).setdefault(phase, []).append(value)
  phases = list(dict.fromkeys(phase for row in times.values() for phase in row))
  rows = []
  for arm, row in times.items():
    means = [statistics.fmean(row[p]) if p in row else None for p in phases]
    rows.append([arm, *(text.number(mean) for mean in means)])
  return page.rows_html(['seconds, mean over seeds', *phases], rows) if phases else ''
