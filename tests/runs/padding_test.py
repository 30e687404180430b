"""What an example adds to the loss does not depend on the padding behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.models import denoiser
from scmdm_jax.models.attention import AttentionMask
from scmdm_jax.models.execution import Execution
from scmdm_jax.runs.compiling import make_loss
from scmdm_jax.settings.options import MethodSettings
from tests.compiling import quick_jit
from tests.models import tiny


@pytest.mark.slow
@pytest.mark.parametrize('rate', [0.5, 1.0])
def test_nobody_attends_to_padding(rate):
  description = tiny.describe('dream', 'embedding')
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32),
    denoiser.abstract_params(description),
  )
  length = tiny.LENGTH
  tokens = rng.integers(0, tiny.MASK, (4, length)).astype(np.int32)
  lengths = np.array([3, length - 2, 4, length - 1])
  real = np.arange(length) < lengths[:, None]
  target = real & (np.arange(length) > 0)
  loss = quick_jit(
    make_loss(description, MethodSettings(rate=rate), Execution()),
  )
  batch = batch_of(jnp.asarray(tokens))._replace(target=jnp.asarray(target))
  masked = batch._replace(mask=AttentionMask(lengths=jnp.asarray(lengths)))
  key = jax.random.key(1)
  value = float(loss(key, params, masked))
  other = jnp.where(real, tokens, (tokens + 1) % tiny.MASK)
  assert float(loss(key, params, masked._replace(tokens=other))) == value
  assert float(loss(key, params, batch._replace(tokens=other))) != value
  # The noise of a position does not depend on the length that a row is padded to.
  short = length - 1
  cut = masked._replace(tokens=batch.tokens[:, :short], target=batch.target[:, :short])
  # Sums of float32 in another order.
  assert float(loss(key, params, cut)) == pytest.approx(value, rel=1e-5)
