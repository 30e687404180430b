import copy
import json

import numpy as np
import pytest

from scmdm_jax.report import compare

EVIL = '"\'><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e&'


def _poison(value):
  """Appends EVIL to every text in `value`, keys of free choice included."""
  if isinstance(value, str):
    return value + EVIL
  if isinstance(value, list):
    return [_poison(item) for item in value]
  if isinstance(value, dict):
    return {key: _poison(item) for key, item in value.items()}
  return value


def test_report_round_trips_and_rewriting_gives_the_same_files(tmp_path, results):
  before = copy.deepcopy(results)
  path = compare.write_report(tmp_path / 'a', results)
  assert results == before
  assert path == tmp_path / 'a' / 'index.html'
  loaded = json.loads((tmp_path / 'a' / 'report.json').read_text())
  assert {key: loaded[key] for key in results} == results
  again = compare.write_report(tmp_path / 'b', loaded)
  assert again.read_bytes() == path.read_bytes()
  assert (tmp_path / 'b' / 'report.json').read_bytes() == (
    tmp_path / 'a' / 'report.json'
  ).read_bytes()


def test_report_carries_the_summary(results):
  loaded = compare.complete(results)
  row = next(
    r
    for r in loaded['summary']
    if (r['arm'], r['metric'], r['num_steps']) == ('rate 1', 'valid_rate', 32)
  )
  assert row['difference'] == pytest.approx(0.2, rel=1e-12)
  assert row['sigmas'] == pytest.approx(12**0.5, rel=1e-12)
  # Both arms have the same sweep, so nothing differs at matched entropy.
  assert len(loaded['matched_entropy']) == 9
  assert all(
    r['log_perplexity_difference'] == pytest.approx(0, abs=1e-12)
    for r in loaded['matched_entropy']
  )


def test_page_is_self_contained_and_complete(tmp_path, results, parse):
  source = compare.write_report(tmp_path, results).read_text()
  parsed = parse(source)
  shown = ' '.join(parsed.text)
  for anchor in (
    'results',
    'matched',
    'curves',
    'arms',
    'samples',
    'trajectory',
    'cost',
    'provenance',
  ):
    assert ('id', anchor) in parsed.attributes
  assert source.count('class="plot"') == 7
  # Every figure and both tables say where their numbers come from.
  assert shown.count('two cores') == 1 + 7 + 2
  assert shown.count('--config=c.py') == 1 + 7 + 2
  assert shown.count('Seeds 0, 1, 2') == 7 + 2
  assert 'rate 1: valid rate better at T = 8, 32' in shown
  assert 'probability 0.095' in shown


def test_worse_is_said_as_plainly_as_better(results):
  for run in results['runs']:
    for sample in run['samples'].values():
      sample['generative_perplexity'] = 5.0 + run['seed'] * 0.1
      if run['arm'] == 'rate 1':
        sample['generative_perplexity'] += 1.0 + 0.01 * run['seed']
  shown = compare.render(compare.complete(results))
  assert 'rate 1: generative perplexity worse at T = 8, 32' in shown


def test_hostile_texts_are_shown_not_run(results, parse):
  poisoned = _poison(results)
  poisoned['gallery'] = {
    EVIL: [EVIL, 'CCO'],
    'pictures': [{'caption': EVIL, 'image': 'data:image/png;base64,' + EVIL}],
  }
  poisoned['versions'] = {EVIL: EVIL}
  poisoned['config'] = {EVIL: {EVIL: [EVIL]}}
  poisoned['cost'] = {EVIL: EVIL}
  for run in poisoned['runs']:
    run['seconds'] = {EVIL: 1.0}
    for sample in run['samples'].values():
      sample[EVIL] = 0.5
  source = compare.render(compare.complete(poisoned))
  parsed = parse(source)
  assert '\x1b' not in source and '\u202e' not in source
  assert '<script>alert(1)</script>' in ''.join(parsed.text)


def test_absent_judges_and_a_single_seed_still_make_a_page(results, parse):
  results['runs'] = [run for run in results['runs'] if run['seed'] == 0]
  results['seeds'] = [0]
  for run in results['runs']:
    run['training_curve'] = []
    for sample in run['samples'].values():
      sample['generative_perplexity'] = None
  results.update(gallery={}, trajectory=None, temperature_curve=[], cost={}, notes=[])
  source = compare.render(compare.complete(results))
  parsed = parse(source)
  assert ('id', 'samples') not in parsed.attributes
  assert 'No difference could be judged' in source
  assert 'strong' not in parsed.tags


def test_two_seeds_are_shown_and_not_judged(results):
  results['runs'] = [run for run in results['runs'] if run['seed'] < 2]
  curve = [point for point in results['temperature_curve'] if point['seed'] < 2]
  results.update(seeds=[0, 1], temperature_curve=curve)
  source = compare.render(compare.complete(results))
  assert 'that takes three seeds of each arm' in source
  assert 'At matched entropy (temperature 1)' in source
  assert 'would still be past' not in source


def test_non_finite_numbers_become_null_and_are_noted(results):
  results['runs'][0]['samples']['8']['generative_perplexity'] = float('inf')
  results['base']['nelbo_null'] = float('nan')
  loaded = compare.complete(results)
  json.dumps(loaded, allow_nan=False)
  assert loaded['base']['nelbo_null'] is None
  assert loaded['notes'][-1] == (
    'Not finite, left out: results.base.nelbo_null = nan, '
    'results.runs[0].samples.8.generative_perplexity = inf.'
  )


def test_plain_takes_numpy_scalars_and_names_what_it_cannot_take():
  value = {8: np.float32(0.5), 'n': np.int64(3), 't': (1, True)}
  assert compare.plain(value, 'x', []) == {'8': 0.5, 'n': 3, 't': [1, True]}
  with pytest.raises(TypeError, match=r'^x\.a\[1\]: ndarray is not plain data'):
    compare.plain({'a': [0, np.zeros(2)]}, 'x', [])


def test_measurements_are_saved_even_if_drawing_fails(tmp_path, results):
  results['trajectory']['masked'] = [[True]]
  with pytest.raises(ValueError, match='trajectory'):
    compare.write_report(tmp_path, results)
  assert json.loads((tmp_path / 'report.json').read_text())['title'] == 'A comparison'
  assert not (tmp_path / 'index.html').exists()


def test_text_is_shown_as_text_without_a_valid_rate(tmp_path, results, parse):
  hostile = 'one\n<script>alert(1)</script> [MASK]'
  results |= {'domain': 'text', 'gallery': {'rate 1': [hostile, 'two']}}
  for run in results['runs']:
    for sample in run['samples'].values():
      for name in ('valid', 'valid_rate', 'unique_rate', 'novel_rate'):
        del sample[name]
  for point in results['temperature_curve']:
    del point['valid_rate']
  source = compare.write_report(tmp_path, results).read_text()
  shown = ' '.join(parse(source).text)
  assert '<script>alert(1)</script> [MASK]' in shown
  assert 'log generative perplexity' in shown
  assert 'valid rate' not in shown


def test_one_number_of_steps_is_drawn_and_all_are_matched(results):
  """That which most have: here a control of earlier code, swept after 32 alone."""
  few = [
    {**p, 'num_steps': 8, 'entropy': 9.0, 'valid_rate': 0.1}
    for p in results['temperature_curve']
  ]
  of_rate = [p for p in few if p['arm'] == 'rate 1']
  once = compare.render(compare.complete(results))
  results['temperature_curve'] += of_rate
  added = compare.complete(results)
  assert compare.render(added) == once  # The control has nothing to match at 8.
  results['temperature_curve'] += [p for p in few if p['arm'] != 'rate 1']
  both = compare.render(compare.complete(results))
  assert 'sweep per arm at T = 32' in both and 'rate 1, T = 8: ' in both

  def drawn(page):
    return [x for x in page.split('<figure') if 'sweep per arm' in x]

  assert drawn(both) == drawn(once) != []
  # As many at 64 as at 8 and 32, and more than those.
  results['temperature_curve'] += [
    {**p, 'num_steps': 64} for p in results['temperature_curve'] if p['num_steps'] == 8
  ]
  assert 'sweep per arm at T = 64' in compare.render(compare.complete(results))
