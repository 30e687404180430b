from scmdm_jax.runs.results import renamed


def test_figures_written_under_an_old_name_are_read():
  old = {'runs': [{'likelihood': {'carried_elbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  new = {'runs': [{'likelihood': {'carried_nelbo': {'8': 0.5}, 'nelbo_null': 0.25}}]}
  assert renamed(old) == new
