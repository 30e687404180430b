"""What a step beside a frozen base computes, and what it costs."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from scmdm_jax.diffusion import estimates
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.models.lora import Adapter
from scmdm_jax.parallel.compiled import compile_and_measure
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs.compiling import compiled_step, make_loss
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.options import MethodSettings
from scmdm_jax.training.step import OptimizerConfig, initial_state
from tests.compiling import quick_jit
from tests.models import tiny
from tests.models.parameters import random_params


@pytest.mark.slow
def test_the_first_pass_may_be_made_by_the_base():
  description = dataclasses.replace(
    tiny.describe('dream', 'embedding'), adapter=Adapter(2, 4.0)
  )
  params = random_params(description, scale=0.3)
  frozen, trained = lora.divided(params, description.adapter)
  batch = batch_of(np.random.default_rng(0).integers(0, tiny.MASK, (4, tiny.LENGTH)))
  key = jax.random.key(3)

  def loss(first_pass):
    method = MethodSettings(first_pass=first_pass)
    compute = make_loss(description, method, Execution())
    return float(quick_jit(compute)(key, trained, batch, frozen))

  def by_hand(first_params, first):
    method = MethodSettings()

    def compute(params, first_params):
      return diffusion_loss(
        key,
        denoiser.bind(params, description),
        denoiser.bind(first_params, first),
        batch,
        schedule=schedule_of(method),
        mask_id=tiny.MASK,
        rate=1.0,
        estimate=estimates.SAME_T,
      )

    return float(quick_jit(compute)(params, first_params))

  base = dataclasses.replace(description, adapter=None)
  base_params = {**frozen, 'self_conditioning': params['self_conditioning']}
  assert loss('adapted') == pytest.approx(by_hand(params, description), rel=1e-6)
  assert loss('base') == pytest.approx(by_hand(base_params, base), rel=1e-6)
  # Far more than the two may be off by.
  assert abs(loss('base') - loss('adapted')) > 2e-5


def lowered(adapter, dtype):
  """A step of a model whose weights are most of it, and the bytes of its base."""
  sizes = DecoderConfig(
    *(32, 16, 128), num_blocks=3, num_heads=2, num_kv_heads=2, mlp_dim=512, causal=False
  )
  description = ModelDescription(sizes, 31, '', 'embedding', adapter=adapter)
  frozen, trained = lora.divided(denoiser.abstract_params(description), adapter)
  optimizer = OptimizerConfig()
  start = functools.partial(initial_state, config=optimizer)
  kept = {} if frozen is None else {'frozen': _in(frozen, dtype)}
  step = compiled_step(
    *(description, MethodSettings(), optimizer, one_device(), 'full', dtype)
  )
  step = step.lower(
    jax.eval_shape(start, trained),
    jax.eval_shape(batch_of, jax.ShapeDtypeStruct((2, 16), np.int32)),
    jax.eval_shape(lambda: jax.random.key(0)),
    jax.ShapeDtypeStruct((), np.float32),
    **kept,
  )
  return step, 4 * sum(x.size for x in jax.tree.leaves(frozen or trained))


def _in(tree, dtype):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), tree)


@pytest.mark.slow
def test_no_program_has_a_gradient_or_a_copy_of_a_frozen_kernel():
  """A float32 array of the shape of the MLP's kernels would be one; see `lowered`."""
  kernels = ('tensor<128x512xf32>', 'tensor<512x128xf32>')
  full, beside = (
    lowered(adapter, 'bfloat16')[0].as_text() for adapter in (None, Adapter(2, 4.0))
  )
  assert all(kernel in full for kernel in kernels)
  assert not any(kernel in beside for kernel in kernels)
  # Of no dtype is there a product of that shape: neither dW nor A B.
  products = re.findall(r'dot_general.*-> (tensor<[^>]*>)', beside)
  assert len(products) > 50
  assert not {'tensor<128x512xbf16>', 'tensor<512x128xbf16>'} & {*products}


@pytest.mark.slow
def test_the_state_is_small_and_the_step_cheaper():
  def facts(adapter):
    step, size = lowered(adapter, 'float32')
    found, _ = compile_and_measure(step, {'xla_backend_optimization_level': 0})
    assert found is not None
    return found, size

  (full, size), (beside, base) = facts(None), facts(Adapter(2, 4.0))
  # Parameters, two moments and an average; with an adapter, the base once.
  assert full.arguments > 4 * size
  assert base < beside.arguments < 1.3 * base
  # Gradients of all weights, and their updates; beside a base only what the products of
  # a CPU lay out anew, as they do with all weights.
  assert full.temporaries > 1.9 * size
  assert beside.temporaries < 0.65 * base
  # Recomputed layers: forward three times, and backward twice that, or once.
  assert beside.flops < 0.85 * full.flops
