"""The results of a comparison as records, one per arm and seed, and what they say.

A study is a JSON file of such records; `runs/evidence` makes a page of several.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.domains import registry
from scmdm_jax.report import summary, table
from scmdm_jax.runs.arms import CONTROL
from scmdm_jax.runs.results import updated

METRICS = table.Metrics(
  {n: f._asdict() for d in registry.domains() for n, f in d.figures.items()}
)
_KEPT = (
  'arm',
  'seed',
  'train_steps',
  'flops_ratio',
  'trained_parameters',
  'samples',
  'temperature_curve',
)


def condensed(result: Mapping[str, Any], swept_at: int) -> dict[str, Any]:
  """What the page needs of an arm's `result.json` (`updated`); floats to 6 digits."""
  result = updated(result, swept_at)
  record = {name: result[name] for name in _KEPT if name in result}
  curve = [x for x in result.get('training_curve', []) if 'heldout_nelbo' in x]
  if curve:
    record['heldout_curve'] = curve
  return _rounded({**record, 'likelihood': result['likelihood']})


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
      report = json.loads(place.read_text())
      config, results = report['config'], report['runs']
    else:
      config = json.loads((place / 'config.json').read_text())
      paths = sorted(place.glob('arms/*/seed_*/result.json'))
      results = [json.loads(path.read_text()) for path in paths]
    for result in results:
      record = condensed(result, config['sample']['num_steps'])
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
    self._matched: dict[tuple[str, str], list[dict[str, Any]]] = {}

  def matched(self, control: str = CONTROL, along: str = '') -> list[dict[str, Any]]:
    """Rows of `summarize_matched` of the arms as they are, against this one's curve.

    Args:
      control: the arm whose temperatures are compared with them.
      along: a swept measure that is to be equal, in the entropy's place.
    """
    if (control, along) not in self._matched:
      curve = [
        {'arm': run['arm'], 'seed': run['seed'], **point}
        for run in self.runs
        for point in run['temperature_curve']
      ]
      found = summary.at_matched_entropy(curve, control, along)
      rows = summary.summarize_matched(found)
      self._matched[control, along] = [r for r in rows if r['temperature'] == 1]
    return self._matched[control, along]

  def row(self, arm: str, measure: str) -> Mapping[str, Any] | None:
    """The row of `summarize` of METRIC or METRIC@T; None if it was not measured.

    Raises:
      KeyError: no such arm.
    """
    self._known(arm)
    metric, _, steps = measure.partition('@')
    return self._rows.get((arm, metric, int(steps) if steps else None))

  def gain(
    self, arm: str, measure: str, control: str = CONTROL, along: str = ''
  ) -> Mapping[str, Any] | None:
    """The row of METRIC@T at matched entropy; None if it was not measured.

    Args:
      arm: as it is.
      measure: METRIC@T.
      control: the arm whose temperatures are compared with it.
      along: a swept measure that is to be equal, in the entropy's place.

    Raises:
      KeyError: no such arm.
    """
    self._known(arm, control)
    metric, _, steps = measure.partition('@')
    matched = self.matched(control, along)
    found = [r for r in matched if (r['arm'], r['metric']) == (arm, metric)]
    return next((r for r in found if r['num_steps'] == int(steps)), None)

  def _known(self, *arms: str) -> None:
    missing = [arm for arm in arms if arm not in self.arms]
    if missing:
      raise KeyError(f'{missing[0]}; there are {", ".join(self.arms)}')

  @property
  def step_counts(self) -> list[int]:
    """Every T that samples were drawn with, rising."""
    return sorted({int(steps) for run in self.runs for steps in run['samples']})

  @property
  def drawn(self) -> list[str]:
    """The arms with the control first."""
    return sorted(self.arms, key=lambda arm: arm != CONTROL)

  def of(self, arm: str) -> list[Mapping[str, Any]]:
    """The records of an arm, one per seed."""
    return [run for run in self.runs if run['arm'] == arm]

  def seeds(self, arm: str) -> int:
    """How many seeds it has."""
    return len(self.of(arm))


def read_studies(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """The runs of every study, by the name of its file."""
  return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob('*.json'))}
