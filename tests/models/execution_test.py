"""How a network runs does not change what it computes, but for rounding."""

import jax
import numpy as np
import pytest

from scmdm_jax.models import denoiser
from scmdm_jax.models.execution import REMATS, Execution
from scmdm_jax.runs.adapting import make_loss
from scmdm_jax.settings.options import MethodSettings
from tests.compiling import quick_jit
from tests.models import tiny


def loss_and_gradients(arch, **execution):
  """Of two passes over random parameters and tokens, and the program in words."""
  description = tiny.describe(arch, 'embedding')
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32),
    denoiser.abstract_params(description),
  )
  tokens = rng.integers(0, tiny.MASK, (8, tiny.LENGTH)).astype(np.int32)
  loss = make_loss(description, MethodSettings(rate=1.0), Execution(**execution))
  run = quick_jit(jax.value_and_grad(loss, argnums=1))
  arguments = (jax.random.key(1), params, tokens)
  value, gradients = run(*arguments)
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradients)])
  return float(value), flat, run.lower(*arguments).as_text().count('dot_general')


@pytest.mark.parametrize('arch', ['dit', 'dream'])
def test_rematerialisation_computes_the_same(arch):
  found = {remat: loss_and_gradients(arch, remat=remat) for remat in REMATS}
  value, gradients, products = found['none']
  assert np.abs(gradients).max() > 0.01
  for remat in ('dots', 'full'):
    assert found[remat][0] == pytest.approx(value, rel=1e-6)
    # The same numbers, fused into other loops: sums of float32 round otherwise.
    np.testing.assert_allclose(found[remat][1], gradients, rtol=1e-4, atol=1e-6)
  # Products with weights are kept by one and worked out again by the other.
  assert products < found['dots'][2] < found['full'][2]


@pytest.mark.parametrize('arch', ['dit', 'dream'])
def test_products_in_bfloat16_are_near(arch):
  value, gradients, _ = loss_and_gradients(arch)
  near, rounded, _ = loss_and_gradients(arch, dtype='bfloat16')
  # Eight bits: every product is off by 2^-9 at most, their sums by less; a dozen in a
  # row stay within 1 % of a loss of about 2, and 5 % of a gradient.
  assert near != value
  assert near == pytest.approx(value, rel=0.01)
  off = np.linalg.norm(rounded - gradients) / np.linalg.norm(gradients)
  assert 0 < off < 0.05
  assert rounded.dtype == np.float32  # Of the masters.
