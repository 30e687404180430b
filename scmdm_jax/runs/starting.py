"""What a run trains before its first step: a base, its adapter, its injection."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from scmdm_jax.checkpoints import bases
from scmdm_jax.checkpoints.store import StoredModel
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.parallel import rules
from scmdm_jax.processes import multihost
from scmdm_jax.runs import opening
from scmdm_jax.runs.opening import Model, Opened
from scmdm_jax.settings.building import adapter_of, new_model, reported
from scmdm_jax.settings.options import MethodSettings, Settings, TrainSettings


def starting_point(
  settings: Settings, opened: Opened, key: jax.Array, mesh: Mesh
) -> Model:
  """The model a run begins with, spread over the mesh. The key is consumed."""
  if opened.stored is None:
    refuse_adapter_of_nothing(settings.train)
    return _new(settings, opened.tokenizer, key, mesh)
  where, stored = f'checkpoint {settings.checkpoint}', opened.stored
  description = opening.fitted(stored.description, opened.tokenizer, settings, where)
  refuse_other_objective(description, settings.method, where)
  if settings.method.objective == 'causal' and not description.architecture.causal:
    raise BadInput(
      f'{where}: attends to later tokens; wanted a causal model for method.objective = '
      "'causal'"
    )
  if description.mask_id is not None:
    # A UDLM that has a mask is trained as a masked model from here on.
    description = dataclasses.replace(description, noise='mask')
  description = as_trained(description, settings)
  adapter = adapter_of(settings.train)
  origin = origin_of(stored, adapter)
  dtype = settings.train.dtype if adapter else ''
  params = opening.load(stored, mesh, frozen=dtype)
  model = Model(description, params, opened.tokenizer, origin)
  return adapted(model, settings, settings.method, key)


def adapted(
  model: Model, settings: Settings, method: MethodSettings, key: jax.Array
) -> Model:
  """The model with the fresh adapter and injection of a run. The key is consumed.

  Raises:
    BadInput: as `add_adapter` and `add_injection`.
  """
  where = f'checkpoint {settings.checkpoint}'
  factors = jax.random.fold_in(key, 1)
  model = add_adapter(model, adapter_of(settings.train), factors, where)
  return add_injection(model, method, key)


def refuse_other_objective(
  description: ModelDescription, method: MethodSettings, where: str
) -> None:
  """Raises BadInput if a model was made for another objective than a run's."""
  if description.objective != method.objective:
    raise BadInput(
      f'method.objective: found {method.objective!r}; wanted '
      f'{description.objective!r}, as {where} is'
    )


def refuse_adapter_of_nothing(train: TrainSettings) -> None:
  """Raises BadInput if low-rank factors are wanted of a run without a checkpoint."""
  if train.lora_rank:
    raise BadInput(
      f'train.lora_rank: found {train.lora_rank} without a checkpoint, '
      'whose weights would be frozen; wanted 0, or config.checkpoint'
    )


def refuse_other_adapter(
  has: lora.Adapter | None, wanted: lora.Adapter | None, where: str
) -> None:
  """Raises BadInput if a model has an adapter that is not the wanted one."""
  if has not in (None, wanted):
    raise BadInput(
      f'train.lora_rank: found {wanted}; wanted {has}, as {where} has, or its merged '
      'export as the checkpoint'
    )


def origin_of(stored: StoredModel, adapter: lora.Adapter | None) -> dict[str, Any]:
  """Where a checkpoint comes from; for an adapter beside it, what it is known by."""
  if adapter is None or stored.base is not None:
    return stored.extra
  # A digest of all weights: taken once, here, and by all processes, since reading waits
  # for all of them.
  named = multihost.from_first(json.dumps(bases.named(stored)))
  return {**stored.extra, 'frozen': json.loads(named)}


def add_adapter(
  model: Model, adapter: lora.Adapter | None, key: jax.Array, where: str
) -> Model:
  """The model with fresh low-rank factors, which change nothing yet.

  A model that has such an adapter keeps it. The key is consumed.

  Raises:
    BadInput: the model has another adapter, or no layer that is to be adapted.
  """
  has = model.description.adapter
  if has == adapter:
    return model
  refuse_other_adapter(has, adapter, where)
  assert adapter is not None
  fresh = _factors(lora.init_factors, key, model.params['backbone'], adapter)
  description = dataclasses.replace(model.description, adapter=adapter)
  params = lora.joined(model.params, {'backbone': fresh})
  return dataclasses.replace(model, description=description, params=params)


def _new(settings: Settings, tokenizer: Tokenizer, key: jax.Array, mesh: Mesh) -> Model:
  """A model of random parameters, as `settings.model` sizes it."""
  settings = dataclasses.replace(
    settings, method=_without_idle_injection(settings.method)
  )
  description = dataclasses.replace(
    new_model(settings, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.class_ids),
    tokenizer=tokenizer.name,
    fingerprint=tokenizer.fingerprint,
    undefined_ids=tokenizer.undefined_ids,
  )
  description = as_trained(description, settings)
  where = rules.shardings(mesh, denoiser.abstract_params(description))
  start = jax.jit(denoiser.init_params, static_argnums=1, out_shardings=where)
  return Model(description, start(key, description), tokenizer, {})


def as_trained(description: ModelDescription, settings: Settings) -> ModelDescription:
  """Returns the description of a model as it is trained: its rows and its blocks.

  Raises:
    BadInput: `settings.model` has blocks that the model cannot have, or that do not
      divide the length.
  """
  framing = registry.of(settings.data).framing(settings.data)
  framed = dataclasses.replace(description, framing=framing or description.framing)
  found = reported('model', lambda: framed.in_blocks(settings.model.block_length))
  opening.check_blocks(found, settings)
  return found


def as_adapted(
  description: ModelDescription, settings: Settings, method: MethodSettings
) -> ModelDescription:
  """Returns that of a vanilla model with the adapter and injection of a run.

  Raises:
    BadInput: no layer that is to be adapted.
  """
  adapter = adapter_of(settings.train)
  if adapter is not None:
    _factors(lora.targeted, denoiser.abstract_params(description)['backbone'], adapter)
  return dataclasses.replace(
    as_trained(description, settings),
    adapter=adapter,
    injection=_without_idle_injection(method).injection,
  )


def _factors(make: Callable[..., Any], *arguments: Any) -> Any:
  """What `make` makes of layers that are adapted; its ValueError as a BadInput."""
  try:
    return make(*arguments)
  except ValueError as e:
    raise BadInput(f'train.lora_{e}') from e


def _without_idle_injection(method: MethodSettings) -> MethodSettings:
  return dataclasses.replace(method, injection='none') if method.rate == 0 else method


def add_injection(model: Model, method: MethodSettings, key: jax.Array) -> Model:
  """The model with fresh self-conditioning parameters, which change nothing yet.

  At rate 0 nothing is added. A model that has an injection keeps it. The key is
  consumed.

  Raises:
    BadInput: the model has another injection than `method` asks for.
  """
  wanted, has = _without_idle_injection(method).injection, model.description.injection
  if method.objective != 'masked' or wanted in ('none', has):
    return model
  if has != 'none':
    raise BadInput(
      f'method.injection: found {wanted!r}, but the checkpoint has {has!r}; wanted the '
      'same'
    )
  description = dataclasses.replace(model.description, injection=wanted)
  fresh = denoiser.init_self_conditioning(key, description)
  params = {**model.params, 'self_conditioning': fresh}
  return dataclasses.replace(model, description=description, params=params)
