"""The drawings of a study, SVG: by steps, by entropy, of bounds, of adaptation."""

import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from scmdm_jax.report import summary
from scmdm_jax.report.charts import Axis, Point, chart
from scmdm_jax.runs.arms import CONTROL
from scmdm_jax.runs.studies import METRICS, Study

_MORE = re.compile(r'nelbo_(\d+)_passes')


def _points(rows: Sequence[tuple[float, Any]], what: str = 'mean') -> list[Point]:
  """A point for each (x, row of `summarize`) that has a value."""
  error = {'mean': 'standard_error', 'difference': 'difference_error'}[what]
  return [Point(x, r[what], r[error] or 0.0) for x, r in rows if r]


def _places(i: int, counts: Sequence[int]) -> list[float]:
  """Where the `i`-th arm's points are: beside its neighbours', T on a log axis."""
  return [math.log2(steps) + 0.04 * i for steps in counts]


def _along(counts: Sequence[int]) -> Axis:
  return Axis('sampling steps T', {math.log2(steps): str(steps) for steps in counts})


def _matched_points(rows: Sequence[tuple[float, Any]]) -> list[Point]:
  """Differences at matched entropy, where that of every seed is known."""
  known = [(x, r) for x, r in rows if r and not r['unmatched_seeds']]
  return _points(known, 'difference')


def _steps(study: Study, metric: str) -> str:
  counts = study.step_counts
  series = {}
  for i, arm in enumerate(study.drawn):
    rows = [study.row(arm, f'{metric}@{steps}') for steps in counts]
    series[arm] = _points(list(zip(_places(i, counts), rows, strict=True)))
  return chart(series, _along(counts), Axis(METRICS.of(metric).label))


def _gains(study: Study, metric: str, equal: str) -> str:
  rows = [r for r in study.matched(along=equal) if r['metric'] == metric]
  counts = sorted({r['num_steps'] for r in rows if r['difference'] is not None})
  series = {CONTROL: [Point(x, 0.0) for x in _places(0, counts)]}
  for i, arm in enumerate(study.drawn[1:], 1):
    rows = [study.gain(arm, f'{metric}@{steps}', along=equal) for steps in counts]
    series[arm] = _matched_points(list(zip(_places(i, counts), rows, strict=True)))
  label, at = METRICS.of(metric).label, METRICS.of(equal).label
  return chart(series, _along(counts), Axis(f"{label} - the control's at equal {at}"))


def _across(
  found: Sequence[tuple[float, Study]], arm: str, measure: str, equal: str, axis: Axis
) -> str:
  """What the arm gains where a measure is equal, study by study, each at its place."""
  points = [(x, study.gain(arm, measure, along=equal)) for x, study in found]
  points.sort(key=lambda point: point[0])
  series = {
    CONTROL: [Point(x, 0.0) for x, _ in points],
    arm: _matched_points(points),
  }
  metric, _, steps = measure.partition('@')
  label, at = METRICS.of(metric).label, METRICS.of(equal).label
  y = Axis(f"{label}, T = {steps} - the control's at equal {at}")
  return chart(series, axis, y)


def _sizes(studies: Sequence[Study], arm: str, measure: str, equal: str) -> str:
  """Gains against the sizes of the bases: what the controls trained, which is all."""
  found, ticks = [], {}
  for study in studies:
    [size] = {r['trained_parameters'] for r in study.of(CONTROL)}
    ticks[math.log2(size)] = f'{size / 1e6:.2f} M'
    found.append((math.log2(size), study))
  return _across(found, arm, measure, equal, Axis('parameters of the base', ticks))


def _bases(studies: Sequence[Study], arm: str, measure: str, equal: str) -> str:
  """Gains against how good the bases are, by what the controls made of them."""
  rows = [(study.row(CONTROL, 'nelbo_null'), study) for study in studies]
  found = [(row['mean'], study) for row, study in rows if row]
  axis = Axis("NELBO of the control's null pass, nats per token")
  return _across(found, arm, measure, equal, axis)


def _entropy(study: Study, measure: str) -> str:
  metric, _, steps = measure.partition('@')
  series = {}
  along = summary.diversity([p for r in study.runs for p in r['temperature_curve']])
  for arm in study.drawn:
    curves = [
      [p for p in r['temperature_curve'] if p['num_steps'] == int(steps)]
      for r in study.of(arm)
    ]
    of_arm = []
    for temperature in sorted({p['temperature'] for c in curves for p in c}):
      found = [p for c in curves for p in c if p['temperature'] == temperature]
      x, y = ([p[name] for p in found] for name in (along, metric))
      errors = [summary.standard_error(values) or 0.0 for values in (y, x)]
      of_arm.append(Point(statistics.fmean(x), statistics.fmean(y), *errors))
    series[arm] = of_arm
  x_label, label = (METRICS.of(name).label for name in (along, metric))
  return chart(series, Axis(f'{x_label} of the samples, nats'), Axis(label))


def _bounds(study: Study) -> str:
  counts = sorted(
    {int(t) for run in study.runs for t in run['likelihood']['carried_nelbo']}
  )
  names = {'nelbo_null': 'null pass', 'nelbo_two_pass': 'two passes'}
  names |= {f'carried_nelbo@{t}': f'carried, T = {t}' for t in counts}
  series = {}
  for i, arm in enumerate(study.drawn):
    rows = [(j + 0.08 * i, study.row(arm, name)) for j, name in enumerate(names)]
    series[arm] = (
      [Point(x, 0.0) for x, _ in rows]
      if arm == CONTROL
      else _points(rows, 'difference')
    )
  ticks = {float(j): name for j, name in enumerate(names.values())}
  label = 'NELBO - control, nats per token'
  return chart(series, Axis('bound', ticks), Axis(label), lines=False)


def _passes(study: Study) -> str:
  """Bounds by the number of passes at the same masks, less the control's only one."""
  found = {name for run in study.runs for name in run['likelihood']}
  more = sorted(int(m[1]) for name in found if (m := _MORE.fullmatch(name)))
  names = {1: 'nelbo_null', 2: 'nelbo_two_pass'}
  names |= {k: f'nelbo_{k}_passes' for k in more}
  nulls = {run['seed']: run['likelihood']['nelbo_null'] for run in study.of(CONTROL)}
  series = {CONTROL: [Point(k, 0.0) for k in names]}
  for arm in study.drawn[1:]:
    # Seeds that have them all, so that a line is of the same ones throughout.
    runs = [
      r['likelihood'] | {'at': nulls[r['seed']]}
      for r in study.of(arm)
      if r['seed'] in nulls and r['likelihood'].keys() >= set(names.values())
    ]
    if not runs:
      continue
    gaps = {k: [r[n] - r['at'] for r in runs] for k, n in names.items()}
    series[arm] = [
      Point(k, statistics.fmean(values), summary.standard_error(values) or 0.0)
      for k, values in gaps.items()
    ]
  ticks = {float(k): str(k) for k in names}
  label = "NELBO - the control's, nats per token"
  return chart(series, Axis('passes at the same masks', ticks), Axis(label))


def _learning(study: Study) -> str:
  """Held-out bounds of each arm against what it has spent, less the control's last.

  Rows, times and masks of a seed are the same in all arms and at all steps.
  """
  ends = {
    run['seed']: run['heldout_curve'][-1]['heldout_nelbo']
    for run in study.of(CONTROL)
    if 'heldout_curve' in run
  }
  passes = {'heldout_nelbo': '', 'heldout_nelbo_two_pass': ', two passes'}
  series: dict[str, list[Point]] = {}
  for arm in study.drawn:
    runs = [r for r in study.of(arm) if 'heldout_curve' in r and r['seed'] in ends]
    for name, suffix in passes.items():
      gaps: dict[int, list[float]] = {}
      for run in runs:
        for at in run['heldout_curve']:
          if name in at:
            gaps.setdefault(at['step'], []).append(at[name] - ends[run['seed']])
      points = [
        Point(
          runs[0]['flops_ratio'] * step / runs[0]['train_steps'],
          statistics.fmean(values),
          summary.standard_error(values) or 0.0,
        )
        for step, values in sorted(gaps.items())
      ]
      if points:
        series[arm + suffix] = points
  label = "held-out NELBO - the control's last, nats per token"
  return chart(series, Axis('share of the training FLOPs'), Axis(label))


# {kind: (drawing, its title of study and measure)}.
DRAWINGS: dict[str, tuple[Callable[..., str], str]] = {
  'steps': (_steps, '{0}: {1} against T'),
  'gains': (_gains, '{0}: {1} at equal {2} against T'),
  'sizes': (_sizes, '{0}: {2} of {1} at equal {3} against the size of the base'),
  'bases': (_bases, '{0}: {2} of {1} at equal {3} against the NELBO of the base'),
  'entropy': (_entropy, '{0}: {1} against entropy'),
  'bounds': (_bounds, 'NELBOs of {0} less those of the control'),
  'passes': (_passes, 'NELBOs of {0} against passes, less those of the control'),
  'learning': (_learning, 'held-out NELBOs of {0} while it adapts'),
}
# Those of several studies.
ACROSS = ('sizes', 'bases')
