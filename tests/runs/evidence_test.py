"""The page of evidence: every number of it from the raw results, and by NumPy."""

import itertools
import json
import pathlib
import re

import numpy as np
import pytest

from scmdm_jax.report import text
from scmdm_jax.runs import arms, evidence, studies, study_charts

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
STUDIES = studies.read_studies(DOCS / 'evidence')


def test_the_page_is_what_its_results_make():
  page = (DOCS / 'evidence' / 'page.md').read_text()
  shown = (DOCS / 'evidence.md').read_text()
  assert shown == evidence.rendered(page, STUDIES)
  drawings = evidence.drawings(page, STUDIES)
  found = {p.name: p.read_text() for p in (DOCS / 'evidence').glob('*.svg')}
  assert found == drawings and len(found) >= 6
  assert set(re.findall(r'\(evidence/(\S+\.svg)\)', shown)) == set(found)
  films = {p.name for p in (DOCS / 'evidence').glob('*.webp')}
  assert set(re.findall(r'\(evidence/(\S+\.webp)\)', shown)) == films and films


def values_of(study, arm, metric, steps=None):
  """{seed: value} read off the records."""
  found = {}
  for run in STUDIES[study]:
    if run['arm'] == arm:
      group = run['likelihood'] if metric in run['likelihood'] else None
      if group is None:
        if steps in run['samples']:
          found[run['seed']] = run['samples'][steps][metric]
      elif not steps or steps in group[metric]:
        found[run['seed']] = group[metric][steps] if steps else group[metric]
  return found


def holes(kind):
  page = (DOCS / 'evidence' / 'page.md').read_text()
  return [
    hole.split('|')[1:]
    for hole in re.findall(r'\{\{(.+?)\}\}', page)
    if hole.startswith(f'{kind}|')
  ]


def test_figures_by_numpy():
  tables = holes('table')
  assert tables
  for study, *measures in tables:
    hole = f'{{{{table|{study}|{"|".join(measures)}}}}}'
    shown = evidence.rendered(hole, {study: STUDIES[study]})
    lines = [line.strip('| ').split(' | ') for line in shown.splitlines()[2:]]
    for arm, seeds, *cells in lines:
      for measure, cell in zip(measures, cells, strict=True):
        metric, _, steps = measure.partition('@')
        mine = values_of(study, arm, metric, steps)
        if not mine:
          assert cell.startswith(text.ABSENT)
          continue
        assert len(mine) == int(seeds)
        numbers = [float(x) for x in re.findall(r'-?\d+\.?\d*(?:e-?\d+)?', cell)]
        mean = np.mean(list(mine.values()))
        # Digits end where the standard error's first one stands; four where there is
        # none, of one seed or of seeds that agree.
        allowed = 5e-4 * abs(mean)
        if np.ptp(list(mine.values())) > 0:
          allowed = 0.26 * np.std(list(mine.values()), ddof=1) / np.sqrt(len(mine))
        assert abs(numbers[0] - mean) <= allowed
        control = values_of(study, arms.CONTROL, metric, steps)
        both = sorted(set(mine) & set(control))
        if arm != arms.CONTROL and len(both) > 1 and '[' in cell:
          gaps = np.array([mine[seed] - control[seed] for seed in both])
          error = gaps.std(ddof=1) / np.sqrt(len(gaps))
          assert numbers[-1] == pytest.approx(abs(gaps.mean()) / error, abs=0.051)


def points_drawn(monkeypatch, hole):
  """What a drawing is made of."""
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  [(series, x, y)] = evidence.drawings(f'{{{{{hole}}}}}', STUDIES).values()
  assert next(iter(series)) == arms.CONTROL
  return series, x, y


def moments(values):
  return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def test_drawn_points_by_numpy(monkeypatch):
  series, x, y = points_drawn(monkeypatch, 'steps|letters_seeds|ngram_bits')
  assert y.name == 'n-gram bits' and list(x.ticks.values()) == ['8', '32', '64']
  for arm, points in series.items():
    for steps, point in zip(('8', '32', '64'), points, strict=True):
      values = list(values_of('letters_seeds', arm, 'ngram_bits', steps).values())
      assert (point.y, point.error) == pytest.approx(moments(values))
      # To the right of its tick, T on a logarithmic axis.
      assert 0 <= point.x - np.log2(int(steps)) < 0.3

  hole = 'entropy|molecules|generative_perplexity@32'
  series, _, _ = points_drawn(monkeypatch, hole)
  for arm, points in series.items():
    runs = [
      run['temperature_curve'] for run in STUDIES['molecules'] if run['arm'] == arm
    ]
    assert len(points) == len(runs[0])
    for i, point in enumerate(sorted(points, key=lambda p: p.x)):
      at = [sorted(run, key=lambda p: p['temperature'])[i] for run in runs]
      for found, name in (
        ((point.x, point.x_error), 'entropy'),
        ((point.y, point.error), 'generative_perplexity'),
      ):
        assert found == pytest.approx(moments([p[name] for p in at]))

  series, x, _ = points_drawn(monkeypatch, 'bounds|molecules')
  assert list(x.ticks.values())[:2] == ['null pass', 'two passes']
  names = [('nelbo_null', None), ('nelbo_two_pass', None)]
  names += [('carried_nelbo', '8'), ('carried_nelbo', '32')]
  for arm, points in series.items():
    for (metric, steps), point in zip(names, points, strict=True):
      mine = values_of('molecules', arm, metric, steps)
      control = values_of('molecules', arms.CONTROL, metric, steps)
      gaps = [mine[seed] - control[seed] for seed in mine]
      assert (point.y, point.error) == pytest.approx(moments(gaps), abs=1e-12)


def sampled(arm, seed, **by_steps):
  samples = {steps.lstrip('t'): {'valid_rate': x} for steps, x in by_steps.items()}
  return {
    'arm': arm,
    'seed': seed,
    'samples': samples,
    'temperature_curve': [],
    'likelihood': {},
  }


def test_steps_needed_for_what_the_control_has():
  hole = '{{needed|toy|rate 1|valid_rate@16}}'
  control = arms.CONTROL
  runs = [sampled(control, 0, t4=0.1, t16=0.5), sampled('rate 1', 0, t4=0.2, t16=0.6)]
  # Three quarters of the way from 4 to 16, by factors.
  assert evidence.rendered(hole, {'toy': runs}) == f'{4 * 4**0.75:.4g}'
  more = [sampled(control, 1, t4=0.1, t16=0.4), sampled('rate 1', 1, t4=0.2, t16=0.6)]
  needed = np.array([4 * 4**0.75, 8])
  error = needed.std(ddof=1) / np.sqrt(2)
  shown = evidence.rendered(hole, {'toy': [*runs, *more]})
  mean, spread = (float(x) for x in shown.split(' ± '))
  assert (mean, spread) == pytest.approx((needed.mean(), error), abs=0.05)
  # A measure that falls; the arm is there with the fewest steps; it never is.
  falling = [
    sampled(control, 0, t4=9.0, t16=5.0),
    sampled('rate 1', 0, t4=8.0, t16=4.0),
  ]
  assert evidence.rendered(hole, {'toy': falling}) == f'{4 * 4**0.75:.4g}'
  runs[1] = sampled('rate 1', 0, t4=0.5, t16=0.6)
  assert evidence.rendered(hole, {'toy': runs}) == 'at most 4'
  # Where one of two seeds is, a mean that is a bound: of 4 and 8.
  assert evidence.rendered(hole, {'toy': [*runs, *more]}) == 'at most 6'
  runs[1] = sampled('rate 1', 0, t4=0.1, t16=0.4)
  assert evidence.rendered(hole, {'toy': runs}) == text.ABSENT


@pytest.mark.parametrize(
  'hole',
  [
    'needed|toy|rate 1|valid_rate@64',
    'needed|toy|rate 1|no_such_measure@16',
    'needed|toy|rate 9|valid_rate@16',
    'trained|toy|rate 1',
    'trained|toy|rate 9',
  ],
)
def test_what_was_not_measured_is_absent(hole):
  runs = [sampled(arms.CONTROL, 0, t16=0.5), sampled('rate 1', 1, t16=0.6)]
  assert evidence.rendered('{{' + hole + '}}', {'toy': runs}) == text.ABSENT


def test_drawings_leave_out_what_has_no_control(monkeypatch):
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  runs = [
    learned(arms.CONTROL, 0, 1.0, (3.0, None)) | {'likelihood': {'nelbo_null': 1.0}},
    learned('rate 1', 1, 1.0, (3.0, 2.5)) | {'likelihood': {'nelbo_null': 1.0}},
    sampled(arms.CONTROL, 2) | {'likelihood': {'nelbo_null': 1.0}},
    sampled('rate 1', 2) | {'likelihood': {'nelbo_null': 1.5, 'nelbo_two_pass': 2.0}},
  ]
  drawn = evidence.drawings('{{learning|toy}} {{passes|toy}}', {'toy': runs})
  assert list(drawn['toy_learning.svg'][0]) == [arms.CONTROL]
  points = drawn['toy_passes.svg'][0]['rate 1']
  assert points == [(1, 0.5, 0.0, 0.0), (2, 1.0, 0.0, 0.0)]


def test_bounds_by_passes(monkeypatch):
  def bounded(arm, seed, *bounds):
    names = ('nelbo_null', 'nelbo_two_pass', 'nelbo_4_passes')
    return sampled(arm, seed) | {'likelihood': dict(zip(names, bounds, strict=False))}

  runs = [
    bounded(arms.CONTROL, 0, 2.0),
    bounded(arms.CONTROL, 1, 3.0),
    bounded('rate 1', 0, 2.5, 1.5, 1.0),
    bounded('rate 1', 1, 4.5, 2.0, 2.5),
    # Not of as many passes: all points are of the same seeds.
    bounded(arms.CONTROL, 2, 1.0),
    bounded('rate 1', 2, 9.0, 9.0),
    bounded('rate 0.5', 2, 9.0, 9.0),
  ]
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  [(series, x, _)] = evidence.drawings('{{passes|toy}}', {'toy': runs}).values()
  assert x.ticks == {1.0: '1', 2.0: '2', 4.0: '4'}
  assert list(series) == [arms.CONTROL, 'rate 1']
  assert [p.y for p in series[arms.CONTROL]] == [0, 0, 0]
  points = series['rate 1']
  assert [(p.x, p.y) for p in points] == [(1, 1.0), (2, -0.75), (4, -0.75)]
  assert [p.error for p in points] == pytest.approx([0.5, 0.25, 0.25])


def swept(arm, seed, **by_steps):
  """Points (temperature, entropy, bits) after t8, t16, ... steps."""
  names = ('temperature', 'entropy', 'ngram_bits')
  curve = [
    {'num_steps': int(steps.lstrip('t')), **dict(zip(names, point, strict=True))}
    for steps, points in by_steps.items()
    for point in points
  ]
  return sampled(arm, seed, **dict.fromkeys(by_steps, 0.5)) | {
    'temperature_curve': curve
  }


def test_gains_at_matched_entropy_against_steps(monkeypatch):
  control = arms.CONTROL
  few, many = [(0.9, 1.0, 3.0), (1.0, 2.0, 5.0)], [(0.9, 1.0, 2.0), (1.0, 2.0, 3.0)]
  runs = [
    swept(control, 0, t8=few, t16=many),
    swept(control, 1, t8=few, t16=many),
    swept('rate 1', 0, t8=[(1.0, 1.5, 4.5)], t16=[(1.0, 1.5, 2.0)]),
    swept('rate 1', 1, t8=[(1.0, 1.25, 3.5)], t16=[(1.0, 1.0, 1.0)]),
    swept('rate 0.5', 0, t8=[(1.0, 2.5, 4.5)], t16=[(1.0, 2.0, 4.0)]),
  ]
  # At 8 steps 4.5 - 4 and 3.5 - 3.5, at 16 2 - 2.5 and 1 - 2.
  table = evidence.rendered('{{matched|toy}}', {'toy': runs}).splitlines()[2:]
  assert table == [
    '| rate 1 | 8 | 2 of 2 | +0.2 ± 0.2 |',
    f'| rate 0.5 | 8 | 0 of 1 | {text.ABSENT} |',
    '| rate 1 | 16 | 2 of 2 | -0.8 ± 0.2 |',
    '| rate 0.5 | 16 | 1 of 1 | +1 |',
  ]
  hole = 'gain|toy|rate 1|ngram_bits'
  assert evidence.rendered(f'{{{{{hole}@16}}}}', {'toy': runs}) == '-0.8 ± 0.2'
  assert evidence.rendered(f'{{{{{hole}@32}}}}', {'toy': runs}) == text.ABSENT
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  drawn = evidence.drawings('{{gains|toy|ngram_bits|entropy}}', {'toy': runs})
  series, x, _ = drawn['toy_gains_ngram_bits_entropy.svg']
  assert list(x.ticks) == [3, 4] and list(series) == [control, 'rate 1', 'rate 0.5']
  assert [p.y for p in series[control]] == [0, 0]
  assert [p.y for p in series['rate 1']] == [0.25, -0.75]
  assert [p.error for p in series['rate 1']] == pytest.approx([0.25, 0.25])
  # Outside the control's entropies nothing is drawn, and one seed has no error.
  assert [(p.y, p.error) for p in series['rate 0.5']] == [(1.0, 0.0)]
  # Nor where one seed of two is outside.
  outside = swept('rate 0.5', 1, t8=[(1.0, 1.5, 4.5)], t16=[(1.0, 2.5, 4.0)])
  drawn = evidence.drawings(
    '{{gains|toy|ngram_bits|entropy}}', {'toy': [*runs, outside]}
  )
  assert drawn['toy_gains_ngram_bits_entropy.svg'][0]['rate 0.5'] == []
  hole = '{{gain|toy|rate 0.5|ngram_bits@16}}'
  assert evidence.rendered(hole, {'toy': [*runs, outside]}) == '+1 (1 of 2 seeds)'
  # Of the curves that lie behind it one T is drawn.
  drawn = evidence.drawings('{{entropy|toy|ngram_bits@16}}', {'toy': runs})
  series, *_ = drawn['toy_entropy_ngram_bits_16.svg']
  assert [(p.x, p.y) for p in series[control]] == [(1.0, 2.0), (2.0, 3.0)]
  assert [(p.x, p.y) for p in series['rate 1']] == [(1.25, 1.5)]


def test_a_gain_against_another_arm():
  """By hand, of seeds whose control and base have other curves."""
  control, runs = arms.CONTROL, []
  for seed, natural in enumerate((4.0, 5.0, 6.0)):
    runs += [
      swept(control, seed, t8=[(0.9, 1.0, 2.0), (1.0, 2.0, natural)]),
      swept(arms.BASE, seed, t8=[(0.9, 1.0, 3.0), (1.0, 2.0, natural)]),
      swept('rate 1', seed, t8=[(1.0, 1.5, 3.0)]),
    ]
  gain = '{{gain|toy|rate 1|ngram_bits@8%s}}'
  toys = {'toy': runs}
  # At 1.5 the control has 3, 3.5 and 4, the base half a bit more.
  assert evidence.rendered(gain % '', toys) == '-0.5 ± 0.3 [1.7]'
  against = gain % f'|{arms.BASE}'
  assert evidence.rendered(against, toys) == '-1.0 ± 0.3 [3.5]'


def test_a_gain_where_another_measure_is_equal(monkeypatch):
  """By hand: at equal distinct-4 the control is elsewhere than at equal entropy."""
  runs = []
  for seed, natural in enumerate((4.0, 5.0)):
    of_control = swept(arms.CONTROL, seed, t8=[(0.9, 1.0, 2.0), (1.0, 2.0, natural)])
    of_rate_1 = swept('rate 1', seed, t8=[(1.0, 1.5, 3.0)])
    points = [*of_control['temperature_curve'], *of_rate_1['temperature_curve']]
    for point, distinct in zip(points, (0.2, 0.3, 0.2), strict=True):
      point['distinct_4'] = distinct
    runs += [of_control, of_rate_1]
  gain = f'{{{{gain|toy|rate 1|ngram_bits@8|{arms.CONTROL}|distinct_4}}}}'
  assert evidence.rendered(gain, {'toy': runs}) == '+1'
  runs[0]['temperature_curve'][0]['ngram_bits'] = 2.5
  # Now 3 - 2.5 and 3 - 2.
  assert evidence.rendered(gain, {'toy': runs}) == '+0.8 ± 0.2'
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  drawn = evidence.drawings('{{gains|toy|ngram_bits|distinct_4}}', {'toy': runs})
  series, _, y = drawn['toy_gains_ngram_bits_distinct_4.svg']
  assert [(p.y, p.error) for p in series['rate 1']] == [(0.75, pytest.approx(0.25))]
  assert y.name == "n-gram bits - the control's at equal distinct-4"


def test_gains_against_the_size_of_the_base(monkeypatch):
  def of_size(parameters, *gains):
    cold, natural = (0.9, 1.0, 3.0), (1.0, 2.0, 3.0)
    runs = [swept(arms.CONTROL, i, t8=[cold, natural]) for i in range(len(gains))]
    runs += [swept('rate 1', i, t8=[(1.0, 1.5, 3 + g)]) for i, g in enumerate(gains)]
    return [run | {'trained_parameters': parameters} for run in runs]

  toys = {'small': of_size(250_000, 0.5, 1.5), 'large': of_size(1_000_000, -1.0)}
  hole = '{{sizes|large,small|rate 1|ngram_bits@8|entropy}}'
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  [(name, (series, x, y))] = evidence.drawings(hole, toys).items()
  assert name == 'large_small_sizes_rate_1_ngram_bits_8_entropy.svg'
  assert name in evidence.rendered(hole, toys)
  assert sorted(x.ticks.values()) == ['0.25 M', '1.00 M'] and 'T = 8' in y.name
  assert [p.y for p in series[arms.CONTROL]] == [0, 0]
  small, large = series['rate 1']
  assert large.x - small.x == pytest.approx(2)
  assert (small.y, small.error) == pytest.approx((1.0, 0.5))
  assert (large.y, large.error) == (-1.0, 0.0)
  # Without a matched gain there is no point, but a place on the axis.
  toys['large'] = of_size(1_000_000, -1.0)
  toys['large'][-1]['temperature_curve'][0]['entropy'] = 2.5
  [(series, x, _)] = evidence.drawings(hole, toys).values()
  assert len(series['rate 1']) == 1 and len(x.ticks) == 2


def test_gains_against_how_good_the_base_is(monkeypatch):
  def of_bound(nelbo, *gains):
    curve = [(0.9, 1.0, 3.0), (1.0, 2.0, 3.0)]
    runs = [swept(arms.CONTROL, i, t8=curve) for i in range(len(gains))]
    for i, run in enumerate(runs):
      run['likelihood'] = run['likelihood'] | {'nelbo_null': nelbo + i}
    runs += [swept('rate 1', i, t8=[(1.0, 1.5, 3 + g)]) for i, g in enumerate(gains)]
    return runs

  # Two bases of one size, which differ in their bounds. Entropies do not match.
  toys = {'early': of_bound(4.0, 0.5, 1.5), 'late': of_bound(2.0, -1.0)}
  for run in itertools.chain(*toys.values()):
    for point in run['temperature_curve']:
      point['distinct_4'] = point['entropy']
      point['entropy'] += 9 * (run['arm'] == 'rate 1')
  matched = evidence.rendered('{{matched|early|distinct_4}}', toys).splitlines()
  assert matched[0].endswith('| n-gram bits |')
  assert matched[2:] == ['| rate 1 | 8 | 2 of 2 | +1.0 ± 0.5 |']
  assert 'rate 1' not in evidence.rendered('{{matched|early}}', toys)
  hole = '{{bases|early,late|rate 1|ngram_bits@8|distinct_4}}'
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  [(name, (series, x, _))] = evidence.drawings(hole, toys).items()
  assert name == 'early_late_bases_rate_1_ngram_bits_8_distinct_4.svg'
  assert 'NELBO' in x.name
  assert [(p.x, p.y, p.error) for p in series['rate 1']] == [
    (2.0, -1.0, 0.0),
    (4.5, pytest.approx(1.0), pytest.approx(0.5)),
  ]
  assert [(p.x, p.y) for p in series[arms.CONTROL]] == [(2.0, 0.0), (4.5, 0.0)]


def learned(arm, seed, flops, *losses):
  return sampled(arm, seed) | {
    'train_steps': 10 * len(losses),
    'flops_ratio': flops,
    'heldout_curve': [
      {'step': 10 * (i + 1), 'heldout_nelbo': one}
      | ({} if two is None else {'heldout_nelbo_two_pass': two})
      for i, (one, two) in enumerate(losses)
    ],
  }


def test_bounds_while_adapting(monkeypatch):
  runs = [
    learned(arms.CONTROL, 0, 1.0, (3.0, None), (2.5, None), (2.0, None)),
    learned(arms.CONTROL, 1, 1.0, (4.0, None), (3.0, None), (3.0, None)),
    learned('rate 1', 0, 0.5, (3.0, 2.5), (2.0, 1.0)),
    learned('rate 1', 1, 0.5, (4.0, 3.5), (3.0, 2.5)),
    sampled('base (not adapted)', 0),
  ]
  monkeypatch.setattr(study_charts, 'chart', lambda *given, **_: given)
  drawn = evidence.drawings('{{learning|toy}}', {'toy': runs})
  series, x, _ = drawn['toy_learning.svg']
  assert x.name == 'share of the training FLOPs'
  assert list(series) == [arms.CONTROL, 'rate 1', 'rate 1, two passes']
  control = series[arms.CONTROL]
  assert [p.x for p in control] == pytest.approx([1 / 3, 2 / 3, 1])
  assert [p.y for p in control] == [1.0, 0.25, 0.0]
  assert [p.error for p in control] == pytest.approx([0, 0.25, 0])
  two = series['rate 1, two passes']
  assert [(p.x, p.y) for p in two] == [(0.25, 0.5), (0.5, -0.75)]
  assert two[1].error == pytest.approx(0.25)


def result(arm, seed, bits, entropy, carried):
  return {
    'arm': arm,
    'seed': seed,
    'train_steps': 10,
    'flops_ratio': 1.0,
    'trained_parameters': 1234,
    'gallery': ['not kept'],
    'training_curve': [
      {'step': 5, 'loss': 2.0},
      {'step': 10, 'loss': 1.5, 'heldout_nelbo': 1.25},
    ],
    'likelihood': {'nelbo_null': 1.0, 'carried_elbo': {'8': carried}},
    'samples': {'8': {'ngram_bits': bits, 'entropy': entropy, 'count': 4}},
    'temperature_curve': [
      {'temperature': 1.0, 'entropy': entropy, 'ngram_bits': bits},  # As earlier code.
    ],
  }


def test_from_results_to_page(tmp_path):
  control = arms.CONTROL
  for seed, (a, b) in enumerate([(5.0, 4.0), (5.2, 4.4)]):
    cold = {'temperature': 0.9, 'entropy': 1.0, 'ngram_bits': a - 2}
    runs = [result(control, seed, a, 2.0, 1.5), result('rate 1', seed, b, 1.5, 1.25)]
    runs[0]['temperature_curve'].append(cold)
    for run in runs:
      folder = tmp_path / f'run/arms/{run["arm"]}/seed_{seed}'
      folder.mkdir(parents=True)
      (folder / 'result.json').write_text(json.dumps(run))
  (tmp_path / 'run/config.json').write_text('{"sample": {"num_steps": 8}}')
  docs = tmp_path / 'docs'
  (docs / 'evidence').mkdir(parents=True)
  (docs / 'evidence' / 'page.md').write_text(
    'gain {{gain|toy|rate 1|ngram_bits@8}}, {{difference|toy|rate 1|carried_nelbo@8}}, '
    '{{mean|toy|rate 1|ngram_bits@8}}; {{seeds|toy}}; {{trained|toy|rate 1}}\n'
    '{{matched|toy}}\n{{steps|toy|ngram_bits}}\n'
  )
  evidence.main([str(docs), f'toy={tmp_path / "run"}'])
  page = (docs / 'evidence.md').read_text()
  # At entropy 1.5 the control has a - 1: differences 0 and 0.2, mean 0.1 +- 0.1.
  assert page.startswith(
    f'gain +0.10 ± 0.10, -0.25, 4.2 ± 0.2; {control}: 2, rate 1: 2; 1,234\n'
  )
  assert '| rate 1 | 8 | 2 of 2 | +0.10 ± 0.10 |' in page
  assert '![toy: n-gram bits against T](evidence/toy_steps_ngram_bits.svg)' in page
  assert (docs / 'evidence/toy_steps_ngram_bits.svg').read_text().startswith('<svg ')
  [first, *_] = records = studies.read_studies(docs / 'evidence')['toy']
  assert 'not kept' not in str(records)
  assert first['heldout_curve'] == [{'step': 10, 'loss': 1.5, 'heldout_nelbo': 1.25}]
  # Once more under another name, in the same study.
  evidence.main([str(docs), f'toy/slowly={tmp_path / "run"}'])
  shown = evidence.rendered('{{seeds|toy}}', studies.read_studies(docs / 'evidence'))
  assert shown == (f'{control}: 2, {control}, slowly: 2, rate 1: 2, rate 1, slowly: 2')
  page = (docs / 'evidence.md').read_text()
  # Again: nothing changes, and what was collected stays without its workdir.
  evidence.main([str(docs)])
  assert (docs / 'evidence.md').read_text() == page
