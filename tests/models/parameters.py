"""Parameters with every number random: none is zero, as after training."""

import jax
import numpy as np

from scmdm_jax.models import denoiser


def random_params(description, seed=0, scale=0.5):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(np.float32),
    denoiser.abstract_params(description),
  )
