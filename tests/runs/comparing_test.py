"""The temperature sweep of a comparison, of measures worked out by hand."""

import dataclasses
import types

import numpy as np
import pytest

from scmdm_jax.domains.protocol import Figure
from scmdm_jax.errors import BadInput
from scmdm_jax.runs import comparing
from scmdm_jax.runs.arms import BASE, CONTROL, Arm
from scmdm_jax.runs.drawing import Drawn
from scmdm_jax.settings import default_config
from scmdm_jax.settings.resolve import resolve

# One number a sample, with noise of its own that temperature only moves.
NOISE = np.random.default_rng(0).normal(size=100)


class Bench(comparing.Bench):
  """Draws `NOISE` moved by the temperature; measures means, and one that has none."""

  def draw(self, model, seed, *, num_steps, temperature=1.0, num_samples=100):
    DRAWN.append((num_steps, temperature, num_samples))
    tokens = NOISE[:num_samples] + temperature * num_steps / 8
    return Drawn(tokens, None, 1, 1, 1, 0.0, np.zeros(num_samples))

  def judge_drawn(self, drawn):
    mean = float(drawn.tokens.mean())
    bits = 3 * mean if len(drawn.tokens) > 10 else None
    return {
      'entropy': mean,
      'ngram_bits': bits,
      'generative_perplexity': float(np.exp(mean)),
      'js_distance_3': mean + 1 / len(drawn.tokens),
      'distinct_4': mean + 1 / len(drawn.tokens),
      'count': len(drawn.tokens),
    }


DRAWN = []


def measured(monkeypatch, sweep_samples, sweep=True):
  """The curve of samples after 8 and 16 steps; 16 is the run's own number."""
  DRAWN.clear()
  monkeypatch.setattr(comparing.scoring, 'likelihood', lambda *_: {})
  config = default_config()
  config.data.name = 'qm9'
  config.mode = 'sample'
  settings = resolve(config)
  settings = dataclasses.replace(
    settings,
    sample=dataclasses.replace(settings.sample, num_samples=100, num_steps=16),
    compare=dataclasses.replace(
      settings.compare,
      step_counts=(8, 16),
      temperatures=(0.5, 1.0, 2.0),
      sweep_samples=sweep_samples,
    ),
  )
  figures = {
    'ngram_bits': Figure('n-gram bits'),
    'js_distance_3': Figure('JS distance', of_count=True),
    'generative_perplexity': Figure('generative perplexity'),
  }
  domain = types.SimpleNamespace(
    swept=(*figures, 'distinct_4', 'not_measured'), figures=figures, show=lambda *_: []
  )
  base = types.SimpleNamespace(tokenizer=None)
  bench = Bench(settings, base, domain, None, None, None)
  return bench.measure(None, 0, sweep)['temperature_curve']


def test_a_sweep_of_few_samples_moves_the_measures_of_all(monkeypatch):
  whole, few = measured(monkeypatch, 0), measured(monkeypatch, 20)
  assert [
    *((8, 1.0, 100), (8, 0.5, 20), (8, 2.0, 20)),
    *((16, 1.0, 100), (16, 0.5, 20), (16, 2.0, 20)),
  ] == DRAWN
  mean = NOISE.mean()
  for points in (whole, few):
    assert [p['num_steps'] for p in points] == [8, 8, 8, 16, 16, 16]
    assert [p['temperature'] for p in points] == [0.5, 1.0, 2.0] * 2
    for point in points:
      # The noise of the first 20 is in both terms of the difference, and gone.
      expected = mean + point['temperature'] * point['num_steps'] / 8
      assert point['entropy'] == pytest.approx(expected, abs=1e-12)
      assert point['ngram_bits'] == pytest.approx(3 * expected, abs=1e-12)
      assert point['generative_perplexity'] == pytest.approx(np.exp(expected))
      assert 'count' not in point and 'not_measured' not in point
  # What depends on the count is not said of the few.
  for name in ('js_distance_3', 'distinct_4'):
    assert None not in [p[name] for p in whole]
    assert [p[name] is None for p in few] == [True, False, True] * 2
  # Where the first few have no measure there is none, but at the run's temperature.
  points = measured(monkeypatch, 5)
  assert [p['ngram_bits'] is None for p in points] == [True, False, True] * 2


def test_only_the_control_is_swept(monkeypatch):
  points = measured(monkeypatch, 20, sweep=False)
  assert [p['temperature'] for p in points] == [1.0, 1.0]
  assert DRAWN == [(8, 1.0, 100), (16, 1.0, 100)]


def test_a_sweep_of_more_samples_than_there_are_is_refused():
  config = default_config()
  config.data.name = 'qm9'
  config.mode = 'compare'
  config.checkpoint = 'somewhere'
  config.compare.sweep_samples = config.sample.num_samples + 1
  with pytest.raises(
    BadInput, match=r'compare\.sweep_samples: found .* at most sample'
  ):
    resolve(config)


@pytest.mark.parametrize('sweep_all', [False, True])
def test_the_control_is_swept_and_the_others_if_asked(tmp_path, sweep_all):
  config = default_config()
  config.mode = 'sample'
  config.compare.sweep_all = sweep_all
  settings, swept = resolve(config), {}

  class Measured(comparing.Bench):
    def measure(self, model, seed, sweep):
      swept[len(swept)] = sweep
      return {'likelihood': {}, 'samples': {}, 'temperature_curve': []}

  bench = Measured(settings, None, None, None, None, None)
  for name in (CONTROL, BASE, 'rate 1'):
    arm = Arm(name, 0.0, 0, 0.0)
    comparing.run_arm(bench, arm, 0, tmp_path / arm.directory)
  assert list(swept.values()) == [True, sweep_all, sweep_all]
