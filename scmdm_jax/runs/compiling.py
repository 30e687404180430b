"""The loss of a run and its compiled step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from scmdm_jax.diffusion import estimates
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.models import classifier, denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution, training_on
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.parallel import chips, rules
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.settings.building import optimizer_of, schedule_of
from scmdm_jax.settings.options import MethodSettings, TrainSettings
from scmdm_jax.training import loop
from scmdm_jax.training.losses import causal_nll, class_nll
from scmdm_jax.training.step import OptimizerConfig, initial_state, make_train_step

Params = dict[str, Any]


def make_loss(
  description: ModelDescription, method: MethodSettings, execution: Execution
):
  """The loss of a step: of the next token, of the class, or the two-pass NELBO.

  With an adapter it takes what is trained, and as `frozen` what is not.
  """
  if method.objective == 'causal':
    whole = functools.partial(_causal_loss, description, execution)
  elif method.objective == 'classify':
    whole = functools.partial(_class_loss, description, execution)
  else:
    whole = functools.partial(_masked_loss, description, method, execution)
  if description.adapter is None:
    return whole

  def adapted(key: jax.Array, trained: Params, batch: Batch, frozen: Params):
    return whole(key, lora.joined(frozen, trained), batch)

  return adapted


def _causal_loss(
  description: ModelDescription,
  execution: Execution,
  key: jax.Array,
  params: Params,
  batch: Batch,
) -> jax.Array:
  del key
  network = denoiser.bind(params, description, execution=execution)
  return causal_nll(network, execution.placement.constrain_batch(batch.tokens)).mean()


def _class_loss(
  description: ModelDescription,
  execution: Execution,
  key: jax.Array,
  params: Params,
  batch: Batch,
) -> jax.Array:
  del key
  arch = description.architecture
  assert isinstance(arch, ConvConfig)
  bound = classifier.bind(params, description, execution)
  return class_nll(
    bound.logits, execution.placement.constrain_batch(batch.tokens), arch.first_class
  ).mean()


def _masked_loss(
  description: ModelDescription,
  method: MethodSettings,
  execution: Execution,
  key: jax.Array,
  params: Params,
  batch: Batch,
) -> jax.Array:
  assert description.mask_id is not None
  first = description
  if method.first_pass == 'base':
    first = dataclasses.replace(description, adapter=None)
  return diffusion_loss(
    key,
    denoiser.bind(params, description, execution=execution),
    denoiser.bind(jax.lax.stop_gradient(params), first, execution=execution),
    jax.tree.map(execution.placement.constrain_batch, batch),
    schedule=schedule_of(method),
    mask_id=description.mask_id,
    rate=method.rate,
    shown=method.class_shown,
    estimate=estimates.parse(method.estimate),
  )


@functools.cache
def compiled_step(
  description: ModelDescription,
  method: MethodSettings,
  optimizer: OptimizerConfig,
  mesh: Mesh,
  remat: str = 'none',
  dtype: str = 'float32',
):
  """One compiled step per (model, method, optimizer, ...), for runs of any length."""
  loss = make_loss(description, method, training_on(mesh, remat, dtype))
  start = functools.partial(initial_state, config=optimizer)
  _, trained = lora.divided(denoiser.abstract_params(description), description.adapter)
  state = jax.eval_shape(start, trained)
  where = (rules.shardings(mesh, state), meshes.replicated(mesh))
  options = chips.STEP_OPTIONS.get(Placement(mesh).platform)
  return make_train_step(loss, optimizer, where, options)


def step_on_mesh(
  description: ModelDescription,
  method: MethodSettings,
  options: TrainSettings,
  mesh: Mesh,
  key: jax.Array,
  place: Callable[[Batch], Batch],
  frozen: Params | None = None,
) -> loop.Step:
  """The compiled step as the loop takes it: `place` puts its batch on the mesh.

  `frozen` is what an adapter's base has.
  """
  compiled = compiled_step(
    description, method, optimizer_of(options), mesh, options.remat, options.dtype
  )
  more = {} if frozen is None else {'frozen': frozen}
  return lambda state, batch, *rest: compiled(state, place(batch), key, *rest, **more)
