"""The comparison's report: `report.json` and a self-contained `index.html`."""

import math
import numbers
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from scmdm_jax import files
from scmdm_jax.report import figures, page, sections, table
from scmdm_jax.report.summary import at_matched_entropy, summarize, summarize_matched
from scmdm_jax.report.table import Metrics


def write_report(
  directory: str | os.PathLike, results: Mapping[str, Any]
) -> pathlib.Path:
  """Writes `report.json`, then `index.html`, each whole or not at all.

  The JSON goes first: should drawing fail, the measurements are safe. The page is a
  function of the JSON, so writing the loaded JSON again gives the same two files.

  Args:
    directory: the report's own directory, made if missing.
    results: plain dicts, lists, texts and numbers with the keys `domain`, `metrics`
      (see `table.Metrics`), `title`, `command`, `hardware`, `versions`, `config`,
      `git_sha`, `base`, `control`, `arms`, `seeds`, `runs`, `gallery`, `trajectory`,
      `temperature_curve`, `cost` and `notes`.
      Measures may be None where a judge was absent. `summary`, `matched_entropy` and
      `matched_entropy_summary` are computed here, whatever `results` says.

  Returns:
    The path of `index.html`.

  Raises:
    KeyError: if a key is missing.
    TypeError: if a value is not plain.
    ValueError: if the control has no run, an arm has a seed twice, or the
      trajectory's rows don't match.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  report = complete(results)
  files.write_json(directory / 'report.json', report, allow_nan=False)
  files.write_text(directory / 'index.html', render(report))
  return directory / 'index.html'


def complete(results: Mapping[str, Any]) -> dict[str, Any]:
  """`results` as pure JSON with the computed summaries added.

  Non-finite numbers become None, and a note says where they were.
  """
  lost: list[str] = []
  report = plain(results, 'results', lost)
  if lost:
    report['notes'] = [*report['notes'], f'Not finite, left out: {", ".join(lost)}.']
  control = report['control']
  report['summary'] = summarize(report['runs'], control)
  report['matched_entropy'] = at_matched_entropy(report['temperature_curve'], control)
  report['matched_entropy_summary'] = summarize_matched(report['matched_entropy'])
  return report


def render(report: Mapping[str, Any]) -> str:
  """The page of a completed report."""
  arms = [arm['name'] for arm in report['arms']]
  styles = figures.arm_styles(
    list(dict.fromkeys([*arms, *(run['arm'] for run in report['runs'])])),
    report['control'],
  )
  metrics = Metrics(report['metrics'])
  matched = report['matched_entropy_summary']
  natural = [row for row in matched if row['temperature'] == 1]
  values: dict[str, Any] = {
    'findings': sections.findings(report, metrics),
    'tables': table.build_all(report['summary'], report['control'], metrics),
    'matched_all': table.build_matched(matched, metrics) if matched else None,
    'matched_natural': table.build_matched(natural, metrics) if natural else None,
    'curves': sections.curves(report, metrics, styles),
    'arms': sections.arms(report),
    'cost': sections.cost(report),
    'versions': page.paths(report['versions']),
    'config': page.paths(report['config']),
    **sections.trajectory_of(report),
  }
  shown = {
    'results': ('Results', True),
    'matched': ('At matched entropy', values['matched_all']),
    'curves': ('Curves', values['curves']),
    'arms': ('What was compared', values['arms']),
    'samples': ('Samples', any(report['gallery'].values())),
    'trajectory': ('One trajectory', values['frames'] or values['steps']),
    'cost': ('Cost', any((values['cost'].ratios, *values['cost'][1::2]))),
    'provenance': ('Provenance', True),
  }
  return page.render(
    'comparison.html',
    title=report['title'],
    report=report,
    sections=[(name, heading) for name, (heading, there) in shown.items() if there],
    parameters=f'{report["base"]["parameters"]:,}',
    beyond=f'{table.BEYOND:g}',
    chance=sections.chance(report['seeds']),
    max_seeds=table.max_seeds(report['summary']),
    br=page.finished('<br>'),
    **values,
  )


def plain(value: Any, path: str, lost: list[str]) -> Any:
  """`value` as pure JSON: texts for keys, lists for tuples, finite numbers.

  Args:
    value: nested mappings, lists, tuples, texts, numbers (NumPy's too), None.
    path: where `value` stands, for messages.
    lost: receives `path = value` of every non-finite number, which becomes None.

  Raises:
    TypeError: for anything else, naming its path.
  """
  if value is None or isinstance(value, str | bool):
    return value
  if isinstance(value, Mapping):
    return {str(k): plain(v, f'{path}.{k}', lost) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v, f'{path}[{i}]', lost) for i, v in enumerate(value)]
  if isinstance(value, numbers.Integral):
    return int(value)
  if isinstance(value, numbers.Real):
    if math.isfinite(value):
      return float(value)
    lost.append(f'{path} = {float(value)}')
    return None
  raise TypeError(
    f'{path}: {type(value).__name__} is not plain data; give a dict, '
    'list, text, number or None'
  )
