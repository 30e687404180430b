"""Small parameter trees, and what it means that two are the same."""

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig

DESCRIPTION = ModelDescription(DiTConfig(7, 8, 8, 1, 2, 4), 6, 'toy', 'embedding')
VANILLA = ModelDescription(DESCRIPTION.architecture, 6, 'toy', 'none')


def random_params(description, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda s: rng.standard_normal(s.shape).astype(np.float32),
    denoiser.abstract_params(description),
  )


def assert_bitwise(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      assert jax.random.key_impl(a) == jax.random.key_impl(b)
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
