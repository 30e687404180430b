"""What the sections of the comparison's page show, each from the completed report."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe

from scmdm_jax.report import (
  animation,
  figures,
  page,
  summary,
  table,
  text,
  trajectory,
)
from scmdm_jax.report.table import Metrics

Report = Mapping[str, Any]


class Findings(NamedTuple):
  """What came out beyond three standard errors.

  judged: differences of the conditioned arms that have a number of standard errors.
  beyond: those past `table.BEYOND`.
  names: the measures among them.
  items: where they are, better or worse, at which T.
  matched: the same arms at temperature 1 and matched entropy, all of them.
  """

  judged: int
  beyond: int
  names: str
  items: list[str]
  matched: list[str]


class Cost(NamedTuple):
  """Rows of texts: ratios, denoiser evaluations per step count, seconds per arm."""

  ratios: list[tuple[str, str]]
  evaluations: list[list[str]]
  seconds_header: list[str]
  seconds: list[list[str]]


def findings(report: Report, metrics: Metrics) -> Findings:
  """Counts, then lists, the conditioned arms' differences beyond three errors."""
  conditioned = {arm['name'] for arm in report['arms'] if arm['rate']}
  looked_at = (*metrics.quality, 'carried_nelbo')
  judged = [
    row
    for row in report['summary']
    if row['arm'] in conditioned
    and row['metric'] in looked_at
    and row['sigmas'] is not None
  ]
  beyond = [row for row in judged if abs(row['sigmas']) > table.BEYOND]
  verdicts: dict[tuple[str, str, str], list[str]] = {}
  for row in sorted(beyond, key=lambda row: (row['arm'], row['metric'])):
    higher = metrics.of(row['metric']).better == 'higher'
    verdict = 'better' if (row['difference'] > 0) == higher else 'worse'
    steps = verdicts.setdefault((row['arm'], row['metric'], verdict), [])
    steps.append(str(row['num_steps']))
  items = [
    f'{arm}: {metrics.of(metric).label} {verdict} at T = {", ".join(steps)}'
    for (arm, metric, verdict), steps in verdicts.items()
  ]
  measured = {row['metric'] for row in judged}
  names = ', '.join(metrics.of(m).label for m in looked_at if m in measured)
  matched = []
  for row in report['matched_entropy_summary']:
    if row['arm'] in conditioned and row['temperature'] == 1:
      label = metrics.of(row['metric']).label
      cell = table.difference_cell(row).difference or 'outside the range of the control'
      matched.append(f'{row["arm"]}, T = {row["num_steps"]}: {label} {cell}')
  return Findings(len(judged), len(beyond), names, items, matched)


def curves(
  report: Report, metrics: Metrics, styles: figures.Styles
) -> list[tuple[markupsafe.Markup, str]]:
  """Quality against steps and against entropy, and training: figures with captions."""
  parts = []
  for metric in metrics.headline:
    series = figures.series_of(report['summary'], metric)
    if series:
      label = metrics.of(metric).label
      svg = figures.steps_figure(series, label, styles, f'steps-{metric}')
      caption = (
        'Mean over seeds, bars ± 1 standard error over seeds; arms side by side.'
      )
      parts.append((page.finished(svg), caption))
  for metric in metrics.quality:
    drawn = _sweep(report, metric)
    if drawn:
      rings = _sweep(report, metric, temperature=1.0)
      label = metrics.of(metric).label
      along = metrics.of(summary.diversity(report['temperature_curve'])).label
      names = along, label
      svg = figures.entropy_figure(drawn, rings, names, styles, f'entropy-{metric}')
      caption = (
        f'A temperature sweep per arm at T = {_drawn_steps(report)}: every seed a thin '
        'line, the mean over seeds at each temperature bold; rings mark temperature 1.'
      )
      parts.append((page.finished(svg), caption))
  training = _training(report)
  if training:
    svg = figures.training_figure(training, styles, 'training')
    caption = (
      'Every seed thin, the mean over seeds bold, long curves averaged in bins. '
      'The loss of a conditioned example is that of its second pass, so levels of '
      'different rates are not comparable.'
    )
    parts.append((page.finished(svg), caption))
  return parts


def arms(report: Report) -> list[list[str]]:
  """The arms with rate, steps and training FLOPs."""
  return [
    [
      arm['name'] + (' (control)' if arm['name'] == report['control'] else ''),
      text.number(arm['rate']),
      text.number(arm['train_steps']),
      text.number(arm['flops_ratio']),
    ]
    for arm in report['arms']
  ]


def is_conditioned(report: Report) -> bool:
  """Whether the arm of the trajectory carries a signal, as follows from its rate."""
  rates = {arm['name']: arm['rate'] for arm in report['arms']}
  return bool(rates.get(report['trajectory']['arm'], 0.0))


def trajectory_of(report: Report) -> dict[str, Any]:
  """The trajectory as frames of a film, where it has them, or as rows of a table.

  Before it the animation of what was believed, or why there is none; neither where the
  report was written before there were any.
  """
  shown = report['trajectory']
  if not shown or not shown['tokens']:
    nothing = {'animation': '', 'no_animation': '', 'animated': {}}
    return nothing | {'frames': [], 'steps': [], 'conditioned': False}
  conditioned = is_conditioned(report)
  frames = trajectory.frames_of(shown)
  steps = [] if frames else trajectory.steps_of(shown, conditioned=conditioned)
  beliefs = shown.get('beliefs', {})
  reason, webp = beliefs.get('obstacle', ''), None
  if beliefs and not reason:
    webp = animation.animated(beliefs)
    reason = '' if webp else 'the installed Pillow writes no WebP'
  return {
    'animation': animation.data_uri(webp) if webp else '',
    'no_animation': reason,
    'animated': beliefs,
    'frames': frames,
    'steps': steps,
    'conditioned': conditioned,
  }


def cost(report: Report) -> Cost:
  """Ratios, denoiser evaluations per step count, mean seconds per arm."""
  evaluations: dict[tuple[int, int], list[str]] = {}
  for run in report['runs']:
    for steps, sample in run['samples'].items():
      key = (int(steps), sample['evaluations'])
      evaluations.setdefault(key, []).append(run['arm'])
  rows = [
    [str(steps), str(count), ', '.join(dict.fromkeys(names))]
    for (steps, count), names in sorted(evaluations.items(), key=lambda item: item[0])
  ]
  ratios = page.paths(report['cost']) if report['cost'] else []
  return Cost(ratios, rows, *_seconds(report))


def _drawn_steps(report: Report) -> int:
  """T of the temperature sweep that is drawn: the largest of those with most points."""
  counts: dict[int, set] = {}
  for point in report['temperature_curve']:
    of = point['arm'], point['seed'], point['temperature']
    counts.setdefault(point['num_steps'], set()).add(of)
  return max(counts, key=lambda steps: (len(counts[steps]), steps))


def _sweep(
  report: Report, metric: str, temperature: float | None = None
) -> dict[str, dict[int, list[tuple[float, float]]]]:
  """`{arm: {seed: [(entropy, metric)]}}`, temperatures rising; None left out.

  After `_drawn_steps`.
  """
  sweep: dict[str, dict[int, list]] = {}
  if not report['temperature_curve']:
    return sweep
  along, drawn = summary.diversity(report['temperature_curve']), _drawn_steps(report)
  for point in sorted(report['temperature_curve'], key=lambda p: p['temperature']):
    if point['num_steps'] != drawn:
      continue
    if point[along] is None or point.get(metric) is None:
      continue
    if temperature is None or point['temperature'] == temperature:
      seeds = sweep.setdefault(point['arm'], {})
      seeds.setdefault(point['seed'], []).append((point[along], point[metric]))
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


def _seconds(report: Report) -> tuple[list[str], list[list[str]]]:
  """Mean seconds over seeds: a header, and a row per arm with a column per phase."""
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
  return ['seconds, mean over seeds', *phases], rows if phases else []


def chance(seeds: Sequence[int]) -> str | None:
  """How probable a cell past `table.BEYOND` is by chance; None where none is judged."""
  if len(seeds) < summary.JUDGED_FROM:
    return None
  return f'{summary.two_sided_p(table.BEYOND, len(seeds)):.2g}'
