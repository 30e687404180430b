r"""`docs/evidence.md`: a text with holes, filled from raw results of comparisons.

  python -m scmdm_jax.runs.evidence docs letters=runs/letters_compare ...

collects what the comparisons in these workdirs (or in a `report.json`) have finished so
far into `docs/evidence/letters.json`, ..., and writes the page; without pairs it writes
the page alone. `letters/backbone 3e-4=runs/letters_slow` adds to the same study, by
names that end in `, backbone 3e-4`, arms of the same base and seeds that were trained
otherwise. A hole in `docs/evidence/page.md` is a line or a piece of one:

  {{seeds|STUDY}}                           how many seeds each arm has
  {{table|STUDY|METRIC|METRIC@T|...}}       arms against measures, after T steps
  {{matched|STUDY}}                         against the control at the arm's own entropy
  {{mean|STUDY|ARM|METRIC@T}}               one figure
  {{difference|STUDY|ARM|METRIC@T}}         the same against the control
  {{gain|STUDY|ARM|METRIC}}                 the same at matched entropy
  {{steps|STUDY|METRIC}}                    a drawing: a measure against T
  {{entropy|STUDY|METRIC}}                  another: it against entropy, by temperature
  {{bounds|STUDY}}                          another: NELBOs, less those of the control

A drawing is an SVG file beside the raw results, which `main` writes. A figure is the
mean over seeds ± its standard error; a difference is paired by seed, in brackets how
many standard errors it is from zero.
"""

import json
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.domains import registry
from scmdm_jax.report import summary, table, text
from scmdm_jax.report.charts import Axis, Point, chart

CONTROL = 'rate 0, equal FLOPs'
_KEPT = ('arm', 'seed', 'train_steps', 'flops_ratio', 'samples', 'temperature_curve')
_HOLE = re.compile(r'\{\{(.+?)\}\}')
_METRICS = table.Metrics(
  {n: f._asdict() for d in registry.domains() for n, f in d.figures.items()}
)


def condensed(result: Mapping[str, Any]) -> dict[str, Any]:
  """What the page needs of an arm's `result.json`; floats to 6 digits."""
  likelihood = dict(result['likelihood'])
  if 'carried_elbo' in likelihood:  # It is a negative one.
    likelihood['carried_nelbo'] = likelihood.pop('carried_elbo')
  record = {name: result[name] for name in _KEPT if name in result}
  return _rounded({**record, 'likelihood': likelihood})


def _rounded(value: Any) -> Any:
  if isinstance(value, float):
    return float(f'{value:.6g}')
  if isinstance(value, Mapping):
    return {name: _rounded(x) for name, x in value.items()}
  return [_rounded(x) for x in value] if isinstance(value, list) else value


def collected(
  known: Sequence[Mapping[str, Any]],
  places: Sequence[pathlib.Path],
  variant: str = '',
) -> list[dict[str, Any]]:
  """The records that are `known` and what was finished in `places`.

  Ordered by arm, then by seed; of an arm's seed the last found counts.

  Args:
    known: records.
    places: workdirs of comparisons, or their `report.json`.
    variant: what the names of the arms found there end in, behind a comma.
  """
  found = {(r['arm'], r['seed']): dict(r) for r in known}
  for place in places:
    if place.is_file():
      results = json.loads(place.read_text())['runs']
    else:
      paths = sorted(place.glob('arms/*/seed_*/result.json'))
      results = [json.loads(path.read_text()) for path in paths]
    for record in map(condensed, results):
      if variant:
        record['arm'] += f', {variant}'
      found[record['arm'], record['seed']] = record
  return [found[key] for key in sorted(found)]


class Study:
  """The runs of one comparison and what follows from them."""

  def __init__(self, runs: Sequence[Mapping[str, Any]]):
    arms = dict.fromkeys(run['arm'] for run in runs)
    # The references first.
    self.arms = sorted(arms, key=lambda arm: not arm.startswith(('base', 'rate 0, ')))
    self.runs = runs
    rows = summary.summarize(runs, CONTROL)
    self._rows = {(r['arm'], r['metric'], r['num_steps']): r for r in rows}
    curve = [
      {'arm': run['arm'], 'seed': run['seed'], **point}
      for run in runs
      for point in run['temperature_curve']
    ]
    matched = summary.summarize_matched(summary.at_matched_entropy(curve, CONTROL))
    self.matched = {
      (r['arm'], r['metric']): r for r in matched if r['temperature'] == 1
    }

  def row(self, arm: str, measure: str) -> Mapping[str, Any] | None:
    """The row of `summarize` of METRIC or METRIC@T; None if it was not measured."""
    metric, _, steps = measure.partition('@')
    return self._rows.get((arm, metric, int(steps) if steps else None))

  @property
  def drawn(self) -> list[str]:
    """The arms with the control first."""
    return sorted(self.arms, key=lambda arm: arm != CONTROL)

  def seeds(self, arm: str) -> int:
    """How many seeds it has."""
    return sum(run['arm'] == arm for run in self.runs)


def _label(measure: str) -> str:
  metric, _, steps = measure.partition('@')
  label = _METRICS.of(metric).label
  return f'{label}, T = {steps}' if steps else label


def _figure(row: Mapping[str, Any] | None) -> str:
  if row is None:
    return text.ABSENT
  return text.measurement(row['mean'], row['standard_error'])


def _difference(row: Mapping[str, Any] | None) -> str:
  if row is None or row['difference'] is None:
    return text.ABSENT
  value = text.measurement(row['difference'], row['difference_error'], sign=True)
  return f'{value} [{abs(row["sigmas"]):.1f}]' if row['sigmas'] is not None else value


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _table(study: Study, *measures: str) -> str:
  rows = []
  for arm in study.arms:
    cells = []
    for measure in measures:
      row = study.row(arm, measure)
      known = row is not None and arm != CONTROL
      against = f' ({_difference(row)})' if known else ''
      cells.append(_figure(row) + against)
    rows.append([arm, str(study.seeds(arm)), *cells])
  return _markdown(['arm', 'seeds', *map(_label, measures)], rows)


def _matched(study: Study) -> str:
  known = {m for (_, m), row in study.matched.items() if row['difference'] is not None}
  metrics = [m for m in dict.fromkeys(m for _, m in study.matched) if m in known]
  rows = []
  for arm in study.arms:
    found = [study.matched.get((arm, metric)) for metric in metrics]
    if any(found):
      inside = max(len(row['paired_seeds']) for row in found if row)
      cells = [_difference(row) for row in found]
      rows.append([arm, f'{inside} of {study.seeds(arm)}', *cells])
  return _markdown(['arm', 'seeds matched', *map(_label, metrics)], rows)


def _seeds(study: Study) -> str:
  return ', '.join(f'{arm}: {study.seeds(arm)}' for arm in study.arms)


_FILLS = {
  'seeds': _seeds,
  'table': _table,
  'matched': _matched,
  'mean': lambda study, arm, measure: _figure(study.row(arm, measure)),
  'difference': lambda study, arm, measure: _difference(study.row(arm, measure)),
  'gain': lambda study, arm, metric: _difference(study.matched.get((arm, metric))),
}


def _points(rows: Sequence[tuple[float, Any]], what: str = 'mean') -> list[Point]:
  """A point for each (x, row of `summarize`) that has a value."""
  error = {'mean': 'standard_error', 'difference': 'difference_error'}[what]
  return [Point(x, r[what], r[error] or 0.0) for x, r in rows if r]


def _steps(study: Study, metric: str) -> str:
  counts = sorted({int(steps) for run in study.runs for steps in run['samples']})
  series = {}
  for i, arm in enumerate(study.drawn):  # Side by side, T on a logarithmic axis.
    places = [math.log2(steps) + 0.04 * i for steps in counts]
    rows = [study.row(arm, f'{metric}@{steps}') for steps in counts]
    series[arm] = _points(list(zip(places, rows, strict=True)))
  ticks = {math.log2(steps): str(steps) for steps in counts}
  return chart(series, Axis('sampling steps T', ticks), Axis(_METRICS.of(metric).label))


def _entropy(study: Study, metric: str) -> str:
  series = {}
  for arm in study.drawn:
    curves = [r['temperature_curve'] for r in study.runs if r['arm'] == arm]
    of_arm = []
    for temperature in sorted({p['temperature'] for c in curves for p in c}):
      found = [p for c in curves for p in c if p['temperature'] == temperature]
      x, y = ([p[name] for p in found] for name in ('entropy', metric))
      errors = [summary.standard_error(values) or 0.0 for values in (y, x)]
      of_arm.append(Point(statistics.fmean(x), statistics.fmean(y), *errors))
    series[arm] = of_arm
  label = _METRICS.of(metric).label
  return chart(series, Axis('unigram entropy of the samples, nats'), Axis(label))


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


_DRAWINGS = {
  'steps': (_steps, '{1} of {0} against T'),
  'entropy': (_entropy, '{1} of {0} against entropy'),
  'bounds': (_bounds, 'NELBOs of {0} less those of the control'),
}


def rendered(page: str, studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
  """`page` with its holes filled from the runs of `studies`.

  Raises:
    KeyError: a hole of another kind, or of a study that is not there.
  """
  found = {name: Study(runs) for name, runs in studies.items()}

  def fill(hole: re.Match) -> str:
    kind, study, *rest = hole[1].split('|')
    if kind in _DRAWINGS:
      label = [_METRICS.of(metric).label for metric in rest]
      title = _DRAWINGS[kind][1].format(study, *label)
      return f'![{title}](evidence/{_file(hole[1])})'
    return _FILLS[kind](found[study], *rest)

  return _HOLE.sub(fill, page)


def drawings(
  page: str, studies: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, str]:
  """The SVG files that `rendered` shows, by their name."""
  found = {}
  for hole in _HOLE.findall(page):
    kind, study, *rest = hole.split('|')
    if kind in _DRAWINGS:
      found[_file(hole)] = _DRAWINGS[kind][0](Study(studies[study]), *rest)
  return found


def _file(hole: str) -> str:
  kind, study, *rest = hole.split('|')
  return '_'.join([study, kind, *rest]) + '.svg'


def read_studies(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """The runs of every study, by the name of its file."""
  return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob('*.json'))}


def main(arguments: Sequence[str]) -> None:
  """Collects and writes; see the module."""
  docs, *pairs = arguments
  folder = pathlib.Path(docs) / 'evidence'
  for pair in pairs:
    name, _, place = pair.partition('=')
    study, _, variant = name.partition('/')
    path = folder / f'{study}.json'
    known = json.loads(path.read_text()) if path.exists() else []
    records = collected(known, [pathlib.Path(place)], variant)
    lines = ',\n'.join(json.dumps(record) for record in records)
    path.write_text(f'[\n{lines}\n]\n')
  page = (folder / 'page.md').read_text()
  for name, svg in drawings(page, read_studies(folder)).items():
    (folder / name).write_text(svg)
  (folder.parent / 'evidence.md').write_text(rendered(page, read_studies(folder)))


if __name__ == '__main__':
  main(sys.argv[1:])
