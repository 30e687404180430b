"""What a step beside a frozen base computes, and what it costs."""

import dataclasses
import functools

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


def test_the_first_pass_may_be_made_by_the_base():
  description = dataclasses.replace(
    tiny.describe('dream', 'embedding'), adapter=Adapter(2, 4.0)
  )
  params = random_params(description, scale=0.3)
  frozen, trained = lora.divided(params)
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
  assert abs(loss('base') - loss('adapted')) > 1e-4


def facts(adapter):
  """What the compiler says of a step of a model whose weights are most of it."""
  sizes = DecoderConfig(
    *(32, 16, 128), num_blocks=3, num_heads=2, num_kv_heads=2, mlp_dim=512, causal=False
  )
  description = ModelDescription(sizes, 31, '', 'embedding', adapter=adapter)
  frozen, trained = lora.divided(denoiser.abstract_params(description))
  optimizer = OptimizerConfig()
  start = functools.partial(initial_state, config=optimizer)
  step = compiled_step(description, MethodSettings(), optimizer, one_device(), 'full')
  batch = jax.eval_shape(batch_of, jax.ShapeDtypeStruct((2, 16), np.int32))
  lowered = step.lower(
    jax.eval_shape(start, trained),
    batch,
    jax.eval_shape(lambda: jax.random.key(0)),
    jax.ShapeDtypeStruct((), np.float32),
    **({} if frozen is None else {'frozen': frozen}),
  )
  found, _ = compile_and_measure(lowered, {'xla_backend_optimization_level': 0})
  assert found is not None
  return found, 4 * sum(x.size for x in jax.tree.leaves(frozen or trained))


def test_a_frozen_base_has_no_gradient_no_moments_and_no_copy():
  full, size = facts(None)
  beside, base = facts(Adapter(2, 4.0))
  # Parameters, two moments and an average; with an adapter, the base once.
  assert full.arguments > 4 * size
  assert base < beside.arguments < 1.3 * base
  # The gradients of all weights are alive before the update; beside a base, of few.
  assert full.temporaries > size
  assert beside.temporaries < 0.3 * base
  # Recomputed layers: forward twice, and backward twice that, or once.
  assert beside.flops < 0.85 * full.flops
