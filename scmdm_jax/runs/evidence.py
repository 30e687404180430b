r"""`docs/evidence.md`: a text with holes, filled from raw results of comparisons.

  python -m scmdm_jax.runs.evidence docs letters=runs/letters_compare ...

collects what the comparisons in these workdirs (or in a `report.json`) have finished so
far into `docs/evidence/letters.json`, ..., and writes the page; without pairs it writes
the page alone. `letters/backbone 3e-4=runs/letters_slow` adds to the same study, by
names that end in `, backbone 3e-4`, arms of the same base and seeds that were trained
otherwise. A hole in `docs/evidence/page.md` is a line or a piece of one:

  {{seeds|STUDY}}                           how many seeds each arm has
  {{seeds|STUDY|ARM}}                       how many one has
  {{table|STUDY|METRIC|METRIC@T|...}}       arms against measures, after T steps
  {{matched|STUDY}}                         against the control at the arm's own entropy
  {{matched|STUDY|METRIC}}                  where this measure is equal instead
  {{mean|STUDY|ARM|METRIC@T}}               one figure
  {{difference|STUDY|ARM|METRIC@T}}         the same against the control
  {{gain|STUDY|ARM|METRIC@T}}               the same at matched entropy
  {{gain|STUDY|ARM|METRIC@T|ARM}}           the same against another arm's temperatures
  {{gain|STUDY|ARM|METRIC@T|ARM|METRIC}}    the same where this measure is equal
  {{trained|STUDY|ARM}}                     how many parameters it trains
  {{needed|STUDY|ARM|METRIC@T}}             steps the arm needs for the control's at T
  {{steps|STUDY|METRIC}}                    a drawing: a measure against T
  {{gains|STUDY|METRIC|METRIC}}             another: gains where the last is equal,
                                            against T
  {{sizes|STUDY,STUDY|ARM|METRIC@T|METRIC}} gains where the last is equal, by the size
                                            of the bases
  {{bases|STUDY,STUDY|ARM|METRIC@T|METRIC}} the same by the NELBO of the bases
  {{entropy|STUDY|METRIC@T}}                another: it against entropy, by temperature
  {{bounds|STUDY}}                          another: NELBOs, less those of the control
  {{passes|STUDY}}                          another: the same by the number of passes
  {{learning|STUDY}}                        another: held-out NELBOs while they adapt

A drawing is an SVG file beside the raw results, which `main` writes. A figure is the
mean over seeds ± its standard error; a difference is paired by seed, in brackets how
many standard errors it is from zero, of three seeds or more.
"""

import itertools
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.report import summary, text
from scmdm_jax.runs.arms import CONTROL
from scmdm_jax.runs.studies import METRICS, Study, collected, read_studies
from scmdm_jax.runs.study_charts import ACROSS, DRAWINGS

_HOLE = re.compile(r'\{\{(.+?)\}\}')


def _label(measure: str) -> str:
  metric, _, steps = measure.partition('@')
  label = METRICS.of(metric).label
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


def _gain(row: Mapping[str, Any] | None) -> str:
  """A difference, and how many seeds it is of where not all could be matched."""
  value = _difference(row)
  if row is None or row['difference'] is None or not row['unmatched_seeds']:
    return value
  matched = len(row['paired_seeds'])
  return f'{value} ({matched} of {matched + len(row["unmatched_seeds"])} seeds)'


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


def _matched(study: Study, along: str = '') -> str:
  matched = study.matched(along=along)
  known = {row['metric'] for row in matched if row['difference'] is not None} - {along}
  metrics = [m for m in dict.fromkeys(r['metric'] for r in matched) if m in known]
  rows = []
  for steps in study.step_counts:
    for arm in study.arms:
      found = [study.gain(arm, f'{m}@{steps}', along=along) for m in metrics]
      if any(found):
        inside = max(len(row['paired_seeds']) for row in found if row)
        cells = [_difference(row) for row in found]
        rows.append([arm, str(steps), f'{inside} of {study.seeds(arm)}', *cells])
  return _markdown(['arm', 'T', 'seeds matched', *map(_label, metrics)], rows)


def _needed(study: Study, arm: str, measure: str) -> str:
  """T at which the arm is where the control is at T, by seed, on a line in log T.

  A bound where some seeds are there at their fewest steps already; absent where some
  never are, or were not measured.
  """
  metric, _, steps = measure.partition('@')
  control = {run['seed']: run['samples'] for run in study.of(CONTROL)}
  found, bound = [], False
  for run in study.of(arm):
    wanted = control.get(run['seed'], {}).get(steps, {}).get(metric)
    values = {int(t): s.get(metric) for t, s in run['samples'].items()}
    curve = sorted((t, value) for t, value in values.items() if value is not None)
    if wanted is None or not curve:
      return text.ABSENT
    found.append(_reached(curve, wanted))
    bound = bound or found[-1] == curve[0][0]
  if not found or None in found:
    return text.ABSENT
  mean, error = statistics.fmean(found), summary.standard_error(found)
  return f'at most {mean:.3g}' if bound else text.measurement(mean, error)


def _reached(curve: Sequence[tuple[int, float]], wanted: float) -> float | None:
  """The fewest steps at which `curve` is at `wanted`, coming from its first end."""
  (first, start), last = curve[0], curve[-1][1]
  sign = 1 if last >= start else -1
  if sign * (start - wanted) >= 0:
    return first
  for (t0, y0), (t1, y1) in itertools.pairwise(curve):
    if sign * (y1 - wanted) >= 0:
      share = (wanted - y0) / (y1 - y0)
      return t0 * (t1 / t0) ** share
  return None


def _seeds(study: Study, arm: str = '') -> str:
  if arm:
    return str(study.seeds(arm))
  return ', '.join(f'{arm}: {study.seeds(arm)}' for arm in study.arms)


def _trained(study: Study, arm: str) -> str:
  counts = {r.get('trained_parameters') for r in study.of(arm)} - {None}
  return f'{counts.pop():,}' if len(counts) == 1 else text.ABSENT


_FILLS = {
  'seeds': _seeds,
  'table': _table,
  'matched': _matched,
  'mean': lambda study, arm, measure: _figure(study.row(arm, measure)),
  'difference': lambda study, arm, measure: _difference(study.row(arm, measure)),
  'gain': lambda study, *of: _gain(study.gain(*of)),
  'trained': _trained,
  'needed': _needed,
}


def rendered(page: str, studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
  """`page` with its holes filled from the runs of `studies`.

  Raises:
    KeyError: a hole of another kind, or of a study that is not there.
  """
  found = {name: Study(runs) for name, runs in studies.items()}

  def fill(hole: re.Match) -> str:
    kind, study, *rest = hole[1].split('|')
    if kind in DRAWINGS:
      arms = rest[:1] if kind in ACROSS else []
      named = [*arms, *map(_label, rest[len(arms) :])]
      title = DRAWINGS[kind][1].format(study.replace(',', ', '), *named)
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
    if kind in DRAWINGS:
      of = [Study(studies[name]) for name in study.split(',')]
      found[_file(hole)] = DRAWINGS[kind][0](of if kind in ACROSS else of[0], *rest)
  return found


def _file(hole: str) -> str:
  kind, *rest = hole.split('|')
  rest.insert(1, kind)
  return re.sub('[ @,|]', '_', '_'.join(rest)) + '.svg'


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
