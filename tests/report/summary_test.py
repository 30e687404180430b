import math

import pytest

from scmdm_jax.report import summary


def _run(arm, seed, **sample):
  return {'arm': arm, 'seed': seed, 'likelihood': {}, 'samples': {'32': sample}}


def _only(rows, **wanted):
  found = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
  assert len(found) == 1
  return found[0]


def test_summarize_against_hand_computation():
  # Differences 1, 2, 3: mean 2, sd 1, s.e. 1/sqrt(3), so 2 sqrt(3) of them.
  # The runs come in another order for each arm: pairing is by seed.
  control = [_run('c', s, valid_rate=v) for s, v in ((2, 4.0), (0, 1.0), (1, 2.0))]
  arm = [_run('a', s, valid_rate=v) for s, v in ((0, 2.0), (1, 4.0), (2, 7.0))]
  row = _only(summary.summarize(control + arm, 'c'), arm='a')
  assert row['mean'] == pytest.approx(13 / 3, rel=1e-12)
  # Squared deviations (49 + 1 + 64) / 9 = 38/3; / 2 for the variance; / 3 for n.
  assert row['standard_error'] == pytest.approx(math.sqrt(38 / 18), rel=1e-12)
  assert row['difference'] == 2.0
  assert row['difference_error'] == pytest.approx(1 / math.sqrt(3), rel=1e-12)
  assert row['sigmas'] == pytest.approx(2 * math.sqrt(3), rel=1e-12)
  assert row['seeds'] == row['paired_seeds'] == [0, 1, 2]
  assert (row['num_steps'], row['metric']) == (32, 'valid_rate')


def test_control_has_no_difference_to_itself():
  row = _only(summary.summarize([_run('c', 0, x=1.0), _run('c', 1, x=2.0)], 'c'))
  assert row['difference'] is row['difference_error'] is row['sigmas'] is None
  assert row['paired_seeds'] == []


def test_one_seed_has_a_difference_but_no_error():
  row = _only(
    summary.summarize([_run('c', 0, x=1.0), _run('a', 0, x=3.0)], 'c'), arm='a'
  )
  assert row['difference'] == 2.0
  assert row['standard_error'] is row['difference_error'] is row['sigmas'] is None


def test_two_seeds_have_an_error_but_no_number_of_errors():
  """They agree by chance so often that it says nothing."""
  runs = [_run('c', s, x=1.0) for s in range(3)]
  runs += [_run('a', s, x=x) for s, x in enumerate((2.0, 2.0001))]
  row = _only(summary.summarize(runs, 'c'), arm='a')
  assert row['difference_error'] == pytest.approx(5e-5, rel=1e-6)
  assert row['sigmas'] is None
  row = _only(summary.summarize([*runs, _run('a', 2, x=3.0)], 'c'), arm='a')
  # Differences 1, 1.0001 and 2.
  assert row['sigmas'] == pytest.approx(4.0, rel=1e-3)


def test_unshared_seeds_count_for_the_mean_only():
  runs = [_run('c', 0, x=1.0), _run('a', 0, x=3.0), _run('a', 5, x=5.0)]
  row = _only(summary.summarize(runs, 'c'), arm='a')
  assert (row['mean'], row['seeds']) == (4.0, [0, 5])
  assert (row['difference'], row['paired_seeds']) == (2.0, [0])


def test_equal_values_have_no_sigmas():
  runs = [_run(arm, s, x=0.1 + 0.2) for arm in 'ca' for s in range(3)]
  row = _only(summary.summarize(runs, 'c'), arm='a')
  assert row['standard_error'] == row['difference_error'] == row['difference'] == 0.0
  assert row['sigmas'] is None


def test_missing_and_non_finite_measures_are_left_out():
  runs = [_run('c', 0, x=None, y=math.nan), _run('c', 1, x=2.0, y=math.inf)]
  rows = summary.summarize(runs, 'c')
  assert _only(rows, metric='x')['seeds'] == [1]
  assert not [r for r in rows if r['metric'] == 'y']


def test_likelihoods_and_steps_are_told_apart(results):
  rows = summary.summarize(results['runs'], results['control'])
  of_arm = [r for r in rows if r['arm'] == 'rate 1']
  assert _only(of_arm, metric='nelbo_null')['num_steps'] is None
  assert _only(of_arm, metric='carried_nelbo', num_steps=8)['mean'] == pytest.approx(
    0.925, rel=1e-12
  )
  assert not {'count', 'evaluations'} & {r['metric'] for r in rows}


def test_summarize_refuses_missing_control_and_double_seeds():
  with pytest.raises(ValueError, match="control 'c' has no run"):
    summary.summarize([_run('a', 0, x=1.0)], 'c')
  with pytest.raises(ValueError, match="'c' has seed 0 twice"):
    summary.summarize([_run('c', 0, x=1.0)] * 2, 'c')


def test_two_sided_p_against_closed_forms():
  # t with 2 degrees of freedom: 1 - t / sqrt(2 + t^2); with 1, Cauchy.
  assert summary.two_sided_p(3, 3) == pytest.approx(1 - 3 / math.sqrt(11), rel=1e-9)
  assert summary.two_sided_p(-3, 2) == pytest.approx(
    1 - 2 * math.atan(3) / math.pi, rel=1e-9
  )


def _point(arm, seed, entropy, log_perplexity, valid_rate=0.5, num_steps=8):
  perplexity = None if log_perplexity is None else math.exp(log_perplexity)
  return {
    'arm': arm,
    'seed': seed,
    'num_steps': num_steps,
    'temperature': 1.0,
    'generative_perplexity': perplexity,
    'entropy': entropy,
    'valid_rate': valid_rate,
  }


# Out of order on purpose; piecewise linear with a kink at entropy 2.4.
_SWEEP = [
  _point('c', 0, 2.4, 2.0, 0.4),
  _point('c', 0, 2.0, 1.0, 0.8),
  _point('c', 0, 2.6, 2.2, 0.1),
]


@pytest.mark.parametrize(
  ('entropy', 'log_perplexity', 'valid_rate'),
  [(2.1, 1.25, 0.7), (2.5, 2.1, 0.25), (2.0, 1.0, 0.8), (2.6, 2.2, 0.1)],
)
def test_matched_entropy_against_hand_interpolation(
  entropy, log_perplexity, valid_rate
):
  rows = summary.at_matched_entropy([*_SWEEP, _point('a', 0, entropy, 1.5, 0.9)], 'c')
  row = _only(rows)
  assert row['log_perplexity_difference'] == pytest.approx(1.5 - log_perplexity)
  assert row['valid_rate_difference'] == pytest.approx(0.9 - valid_rate)


@pytest.mark.parametrize('entropy', [1.999, 2.601, None])
def test_matched_entropy_never_extrapolates(entropy):
  row = _only(summary.at_matched_entropy([*_SWEEP, _point('a', 0, entropy, 1.5)], 'c'))
  assert row['log_perplexity_difference'] is row['valid_rate_difference'] is None


def test_matched_entropy_stays_within_the_seed():
  curve = [*_SWEEP, _point('c', 1, 2.0, 5.0), _point('c', 1, 2.4, 5.0)]
  rows = summary.at_matched_entropy(
    [*curve, _point('a', 1, 2.1, 5.5), _point('a', 2, 2.1, 5.5)], 'c'
  )
  assert _only(rows, seed=1)['log_perplexity_difference'] == pytest.approx(0.5)
  assert _only(rows, seed=2)['log_perplexity_difference'] is None


def test_matched_entropy_stays_within_the_number_of_steps():
  curve = [*_SWEEP]
  curve += [_point('c', 0, 2.0, 5.0, 0.1, 32), _point('c', 0, 2.4, 6.0, 0.5, 32)]
  curve += [_point('a', 0, 2.1, 5.5, 0.5, steps) for steps in (8, 32, 64)]
  few, many = summary.at_matched_entropy(curve, 'c')  # At 64 there is no control.
  assert few['log_perplexity_difference'] == pytest.approx(5.5 - 1.25)
  assert many['log_perplexity_difference'] == pytest.approx(5.5 - 5.25)
  assert many['valid_rate_difference'] == pytest.approx(0.5 - 0.2)
  rows = summary.summarize_matched([few, many])
  steps = [r['num_steps'] for r in rows if r['metric'] == 'valid_rate']
  assert steps == [8, 32]


def test_matched_entropy_averages_ties_and_skips_missing_judges():
  curve = [
    _point('c', 0, 2.0, 1.0, 0.2),
    _point('c', 0, 2.0, 3.0, 0.4),
    _point('c', 0, 2.2, None, 0.9),
    _point('a', 0, 2.0, 2.5, 0.5),
    _point('a', 0, 2.0, None, None),
  ]
  first, second = summary.at_matched_entropy(curve, 'c')
  assert first['log_perplexity_difference'] == pytest.approx(0.5)
  assert first['valid_rate_difference'] == pytest.approx(0.2)
  assert second['log_perplexity_difference'] is second['valid_rate_difference'] is None


def test_genomes_are_matched_by_the_entropy_of_their_6_mers():
  """Which all points have; that of single bases hardly moves and is no measure."""
  sweep = [
    {**_point('c', 0, 1.4, 1.0, 0.8), 'kmer_entropy': 6.0},
    {**_point('c', 0, 1.4, 2.0, 0.4), 'kmer_entropy': 7.0},
    {**_point('a', 0, 1.3, 1.5, 0.9), 'kmer_entropy': 6.25},
  ]
  row = _only(summary.at_matched_entropy(sweep, 'c'))
  assert row['log_perplexity_difference'] == pytest.approx(1.5 - 1.25)
  assert row['valid_rate_difference'] == pytest.approx(0.9 - 0.7)
  assert row['entropy'] == 6.25
  assert not [name for name in row if name.startswith(('kmer', 'entropy_'))]
  del sweep[0]['kmer_entropy']
  row = _only(summary.at_matched_entropy(sweep, 'c'))
  assert row['log_perplexity_difference'] is None


def test_another_measure_of_diversity_can_be_equal():
  sweep = [
    {**_point('c', 0, 1.4, 1.0), 'distinct_4': 0.10},
    {**_point('c', 0, 1.5, 3.0), 'distinct_4': 0.20},
    {**_point('c', 0, 1.6, 9.0), 'distinct_4': None},  # Of fewer samples.
    {**_point('a', 0, 1.45, 2.5), 'distinct_4': 0.17},
    _point('b', 0, 1.45, 2.5),
  ]
  of_a, of_b = summary.at_matched_entropy(sweep, 'c', 'distinct_4')
  assert of_a['log_perplexity_difference'] == pytest.approx(2.5 - 2.4)
  assert of_b['log_perplexity_difference'] is None  # It was not measured.
  # At equal entropy it is a measure like the others.
  of_a, _ = summary.at_matched_entropy(sweep, 'c')
  assert of_a['distinct_4_difference'] == pytest.approx(0.17 - 0.15)


def test_summarize_matched_names_the_seeds_it_lost():
  rows = [
    {
      'arm': 'a',
      'seed': seed,
      'num_steps': 8,
      'temperature': 1.0,
      'entropy': 2.0,
      'log_perplexity_difference': difference,
      'valid_rate_difference': None,
    }
    for seed, difference in ((0, 1.0), (1, 3.0), (2, None))
  ]
  summarized = summary.summarize_matched(rows)
  row = _only(summarized, metric='log_perplexity')
  assert (row['difference'], row['difference_error']) == (2.0, pytest.approx(1.0))
  assert row['sigmas'] is None  # Of two seeds.
  assert (row['paired_seeds'], row['unmatched_seeds']) == ([0, 1], [2])
  empty = _only(summarized, metric='valid_rate')
  assert empty['difference'] is None
  assert empty['unmatched_seeds'] == [0, 1, 2]
