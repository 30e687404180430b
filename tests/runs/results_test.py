from scmdm_jax.runs.results import renamed, updated


def test_figures_written_under_an_old_name_are_read():
  old = {'runs': [{'likelihood': {'carried_elbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  new = {'runs': [{'likelihood': {'carried_nelbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  assert renamed(old) == new


def test_a_sweep_without_a_number_of_steps_is_of_those_of_the_run():
  old = {
    'likelihood': {'carried_elbo': {'8': 0.5}},
    'temperature_curve': [{'temperature': t, 'entropy': 1.5} for t in (0.9, 1.0)],
  }
  new = updated(old, 32)
  assert [p['num_steps'] for p in new['temperature_curve']] == [32, 32]
  assert [p['temperature'] for p in new['temperature_curve']] == [0.9, 1.0]
  assert new['likelihood'] == {'carried_nelbo': {'8': 0.5}}
  # Which says it already.
  assert updated(new, 8) == new
