"""How a network runs does not change what it computes, but for rounding."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.models import denoiser
from scmdm_jax.models.execution import REMATS, Execution
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.runs.compiling import make_loss
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
  arguments = (jax.random.key(1), params, batch_of(tokens))
  value, gradients = run(*arguments)
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradients)])
  return float(value), flat, run.lower(*arguments).as_text().count('dot_general')


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize('arch', ['dit', 'dream'])
def test_a_loop_over_blocks_computes_the_same(arch, monkeypatch):
  deep = dataclasses.replace(tiny.ARCHITECTURES[arch], num_blocks=3)
  monkeypatch.setitem(tiny.ARCHITECTURES, arch, deep)
  value, gradients, products = loss_and_gradients(arch, remat='full')
  looped = loss_and_gradients(arch, remat='full', scan=True)
  assert np.abs(gradients).max() > 0.01
  assert looped[0] == pytest.approx(value, rel=1e-6)
  # The same numbers, fused into other loops: sums of float32 round otherwise.
  np.testing.assert_allclose(looped[1], gradients, rtol=1e-4, atol=1e-6)
  # One block is in the program instead of three, forward and backward.
  assert looped[2] < products / 2


@pytest.mark.slow
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


class SplitSequence(Placement):
  """Claims that two devices share every example, and moves nothing."""

  sequence_shards = 2


def products_with_weights(arch, **execution):
  """Shapes of what is multiplied by a matrix in a forward pass, in order."""
  description = tiny.describe(arch, 'none')
  params = denoiser.abstract_params(description)

  def encode(params, tokens, signal, sigma):
    model = denoiser.bind(params, description, execution=Execution(**execution))
    return model.encode(tokens, signal, sigma)

  tokens = jax.ShapeDtypeStruct((4, tiny.LENGTH), np.int32)
  signal = jax.ShapeDtypeStruct((4, tiny.LENGTH, tiny.DIM), np.float32)
  sigma = jax.ShapeDtypeStruct((4,), np.float32)
  text = jax.jit(encode).lower(params, tokens, signal, sigma).as_text()
  matrix = r'dot_general.*: \(tensor<([\dx]+)xf32>, tensor<\d+x\d+xf32>'
  return [tuple(map(int, left.split('x'))) for left in re.findall(matrix, text)]


@pytest.mark.parametrize('arch', tiny.ARCHITECTURES)
@pytest.mark.slow
def test_dense_layers_work_on_all_tokens_at_once(arch):
  found = products_with_weights(arch)
  tokens = [shape for shape in found if shape[0] == 4 * tiny.LENGTH]
  # Of the one block: q, k, v and o, gate, up and down; or fused q, k and v, o and two.
  fused = arch in ('dit', 'udlm', 'gpt2')
  assert len(tokens) == (4 if fused else 7)
  assert all(len(shape) == 2 for shape in found)
  # Where positions are split over devices they stay apart.
  apart = products_with_weights(arch, placement=SplitSequence())
  assert [shape for shape in apart if len(shape) == 3] == [
    (4, tiny.LENGTH, width) for _, width in tokens
  ]
