"""Means over seeds and paired differences to the control arm. Pure, no NumPy.

All standard errors are over seeds: `sd(ddof=1) / sqrt(n)`, None for one seed.
Differences are paired: the arm's value minus the control's of the same seed,
then mean and standard error over the seeds both have.
"""

import collections
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from scipy import special

# Not measures of quality: the sample size and the cost, constant by design.
_NOT_MEASURES = ('count', 'evaluations')
# How diverse samples are, what says most first: arms are matched by one of them. Single
# bases of genomes have the same entropy however they are drawn.
_DIVERSITIES = ('kmer_entropy', 'entropy')
# Seeds from which on a difference is judged by its standard error.
JUDGED_FROM = 3
# Of a point of the temperature sweep: where it lies.
_COORDINATES = ('arm', 'seed', 'num_steps', 'temperature', *_DIVERSITIES)


def standard_error(values: Sequence[float]) -> float | None:
  """sd(ddof=1) / sqrt(n), or None for fewer than two values.

  `statistics.stdev` sums exactly, so equal values give exactly 0.
  """
  if len(values) < 2:
    return None
  return statistics.stdev(values) / math.sqrt(len(values))


def sigmas(mean: float | None, error: float | None, seeds: int) -> float | None:
  """`mean / error`; None without any spread, or of fewer than three seeds.

  Two seeds that agree by chance have next to no spread: by Student's t of one degree
  of freedom three standard errors are passed one time in five, 64 one in a hundred.
  """
  return None if mean is None or not error or seeds < JUDGED_FROM else mean / error


def two_sided_p(number_of_errors: float, seeds: int) -> float:
  """Student's t with `seeds - 1` degrees of freedom: P(|t| > number_of_errors)."""
  return float(2 * special.stdtr(seeds - 1, -abs(number_of_errors)))


def summarize(runs: Sequence[Mapping[str, Any]], control: str) -> list[dict[str, Any]]:
  """One row per arm, number of steps and metric.

  Args:
    runs: one mapping per arm and seed with `arm`, `seed`, `likelihood` and
      `samples`. Missing (None) and non-finite values are left out.
    control: the arm the others are compared with.

  Returns:
    Rows `{arm, num_steps, metric, mean, standard_error, seeds, difference,
    difference_error, sigmas, paired_seeds}`. `num_steps` is None where the metric
    does not depend on the sampler. `seeds` and `paired_seeds` are lists; the
    difference is None for the control itself and without a common seed.

  Raises:
    ValueError: if the control has no run, or an arm has a seed twice.
  """
  table: dict[tuple, dict[int, float]] = collections.defaultdict(dict)
  seen = set()
  for run in runs:
    if (run['arm'], run['seed']) in seen:
      raise ValueError(f'arm {run["arm"]!r} has seed {run["seed"]} twice')
    seen.add((run['arm'], run['seed']))
    for num_steps, metric, value in _measurements(run):
      if _is_number(value):
        table[run['arm'], num_steps, metric][run['seed']] = value
  if control not in {arm for arm, _ in seen}:
    raise ValueError(f'the control {control!r} has no run')
  rows = []
  for (arm, num_steps, metric), values in table.items():
    reference = {} if arm == control else table.get((control, num_steps, metric), {})
    mean_value, error, seeds = _moments(values)
    differences = {s: values[s] - reference[s] for s in values if s in reference}
    difference, difference_error, paired = _moments(differences)
    rows.append(
      {
        'arm': arm,
        'num_steps': num_steps,
        'metric': metric,
        'mean': mean_value,
        'standard_error': error,
        'seeds': seeds,
        'difference': difference,
        'difference_error': difference_error,
        'sigmas': sigmas(difference, difference_error, len(paired)),
        'paired_seeds': paired,
      }
    )
  return rows


def diversity(curve: Sequence[Mapping[str, Any]]) -> str:
  """The measure of diversity by which the points of temperature sweeps are matched."""
  return next(name for name in _DIVERSITIES if all(name in point for point in curve))


def at_matched_entropy(
  curve: Sequence[Mapping[str, Any]], control: str, along: str = ''
) -> list[dict[str, Any]]:
  """Each arm against the control at the arm's own entropy, seed by seed.

  A colder sampler has a lower generative perplexity and a lower entropy, so raw
  perplexities flatter cold samplers. Here the control's temperature sweep of the
  same seed after as many steps, ordered by entropy (ties averaged), is interpolated
  linearly, measure by measure (of the perplexity its logarithm), at the entropy of the
  arm's point. Outside the control's range the difference is None: nothing is
  extrapolated. The entropy is that of `diversity`.

  Args:
    curve: points `{arm, seed, num_steps, temperature, entropy, ...}`, the rest being
      measures, which may be None.
    control: the arm whose sweep is interpolated.
    along: another measure of diversity, in the entropy's place (and under its name
      in the rows); '': the entropy.

  Returns:
    One row per point of the other arms, at T where the control has any: `{arm, seed,
    num_steps, temperature, entropy, NAME_difference, ...}`, one for each of its
    measures; that of `generative_perplexity` is called `log_perplexity_difference`.
  """
  knots: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
  along = along or diversity(curve)
  of_control = [point for point in curve if point['arm'] == control]
  for seed, steps in {(point['seed'], point['num_steps']) for point in of_control}:
    points = [p for p in of_control if (p['seed'], p['num_steps']) == (seed, steps)]
    for name in dict.fromkeys(name for p in points for name in _swept(p)):
      pairs = [(p.get(along), _swept(p).get(name)) for p in points]
      knots[seed, steps, name] = _by_entropy(pairs)
  rows = []
  swept = {point['num_steps'] for point in of_control}
  for point in curve:
    if point['arm'] == control or point['num_steps'] not in swept:
      continue
    entropy, seed, steps = point.get(along), point['seed'], point['num_steps']
    row = {
      'arm': point['arm'],
      'seed': seed,
      'num_steps': steps,
      'temperature': point['temperature'],
      'entropy': entropy,
    }
    for name, value in _swept(point).items():
      there = _interpolate(knots.get((seed, steps, name), []), entropy)
      row[f'{name}_difference'] = _minus(value, there)
    rows.append(row)
  return rows


def summarize_matched(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Mean and standard error over seeds of the rows of `at_matched_entropy`.

  Returns:
    One row per arm, number of steps, temperature and metric: `{arm, num_steps,
    temperature, metric, difference, difference_error, sigmas, paired_seeds,
    unmatched_seeds}`; the last lists the seeds without a difference (outside the
    control's range, or not measured).
  """
  groups: dict[tuple, dict[int, float | None]] = collections.defaultdict(dict)
  for row in rows:
    for name, value in row.items():
      if name.endswith('_difference'):
        group = (row['arm'], row['num_steps'], row['temperature'], name)
        groups[group][row['seed']] = value
  summary = []
  for (arm, num_steps, temperature, metric), values in groups.items():
    known = {seed: value for seed, value in values.items() if value is not None}
    difference, error, paired = _moments(known)
    summary.append(
      {
        'arm': arm,
        'num_steps': num_steps,
        'temperature': temperature,
        'metric': metric.removesuffix('_difference'),
        'difference': difference,
        'difference_error': error,
        'sigmas': sigmas(difference, error, len(paired)),
        'paired_seeds': paired,
        'unmatched_seeds': sorted(set(values) - set(known)),
      }
    )
  return summary


def _measurements(run: Mapping[str, Any]) -> Iterator[tuple[int | None, str, Any]]:
  """Yields `(num_steps, metric, value)` of one run, likelihood first."""
  for metric, value in run['likelihood'].items():
    if isinstance(value, Mapping):
      for num_steps in sorted(value, key=int):
        yield int(num_steps), metric, value[num_steps]
    else:
      yield None, metric, value
  for num_steps in sorted(run['samples'], key=int):
    for metric, value in run['samples'][num_steps].items():
      if metric not in _NOT_MEASURES:
        yield int(num_steps), metric, value


def _moments(
  values: Mapping[int, float],
) -> tuple[float | None, float | None, list[int]]:
  """Mean, standard error and sorted seeds of `{seed: value}`."""
  seeds = sorted(values)
  ordered = [values[seed] for seed in seeds]
  mean = statistics.fmean(ordered) if ordered else None
  return mean, standard_error(ordered), seeds


def _is_number(value: Any) -> TypeGuard[float]:
  """A finite int or float; not None, not a bool, not text."""
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and math.isfinite(value)
  )


def _swept(point: Mapping[str, Any]) -> dict[str, float | None]:
  """The measures of a point of the temperature sweep; of the perplexity its log."""
  measures = {name: value for name, value in point.items() if name not in _COORDINATES}
  if 'generative_perplexity' in measures:
    value = measures.pop('generative_perplexity')
    positive = _is_number(value) and value > 0
    measures = {'log_perplexity': math.log(value) if positive else None, **measures}
  return measures


def _minus(left: float | None, right: float | None) -> float | None:
  return None if left is None or right is None else left - right


def _by_entropy(
  pairs: Sequence[tuple[float | None, float | None]],
) -> list[tuple[float, float]]:
  """`(entropy, quantity)` with rising entropy, equal entropies averaged."""
  ties: dict[float, list[float]] = collections.defaultdict(list)
  for entropy, value in pairs:
    if _is_number(entropy) and _is_number(value):
      ties[entropy].append(value)
  return [(entropy, statistics.fmean(ties[entropy])) for entropy in sorted(ties)]


def _interpolate(knots: list[tuple[float, float]], x: float | None) -> float | None:
  """Piecewise linear through `knots`, None outside them."""
  if not knots or not _is_number(x) or not knots[0][0] <= x <= knots[-1][0]:
    return None
  for (x0, y0), (x1, y1) in itertools.pairwise(knots):
    if x <= x1:
      return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
  return knots[0][1]
