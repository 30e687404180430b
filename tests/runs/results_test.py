import pytest

from scmdm_jax.runs.results import renamed, updated


def test_figures_written_under_an_old_name_are_read():
  old = {'runs': [{'likelihood': {'carried_elbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  new = {'runs': [{'likelihood': {'carried_nelbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  assert renamed(old) == new


def test_a_sweep_that_says_not_after_how_many_steps_is_of_those_it_repeats():
  old = {
    'samples': {
      '8': {'entropy': 1.5, 'valid_rate': 0.25, 'count': 4},
      '32': {'entropy': 1.5, 'valid_rate': 0.5, 'count': 4},
    },
    'temperature_curve': [
      {'temperature': 0.9, 'entropy': 1.5, 'valid_rate': 0.75},
      {'temperature': 1.0, 'entropy': 1.5, 'valid_rate': 0.5},
    ],
  }
  new = updated(old)
  assert [p['num_steps'] for p in new['temperature_curve']] == [32, 32]
  assert [p['valid_rate'] for p in new['temperature_curve']] == [0.75, 0.5]
  assert new['samples'] == old['samples'] and updated(new) == new
  # Which says it already.
  said = {**new['temperature_curve'][0], 'num_steps': 8}
  assert updated({**new, 'temperature_curve': [said]})['temperature_curve'] == [said]
  # Of no samples that are there: damaged.
  with pytest.raises(ValueError, match='unpack'):
    updated({**old, 'samples': {}})
