"""Training or adapting a model: its start, fit and origin."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from scmdm_jax.checkpoints import bases, steps, store, training_store
from scmdm_jax.checkpoints.store import StoredModel
from scmdm_jax.data import journal, pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import registry
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, flops, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.parallel import chips, rules
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.processes import multihost
from scmdm_jax.runs import opening, provenance, scoring
from scmdm_jax.runs.compiling import step_on_mesh
from scmdm_jax.runs.opening import Model, Opened
from scmdm_jax.settings.building import (
  adapter_of,
  loop_of,
  new_model,
  optimizer_of,
  reported,
)
from scmdm_jax.settings.options import (
  MethodSettings,
  Settings,
)
from scmdm_jax.training import loop
from scmdm_jax.training.profile import Trace
from scmdm_jax.training.step import (
  OptimizerConfig,
  TrainState,
  initial_state,
)
from scmdm_jax.training.writer import MetricWriter

Params = dict[str, Any]


def starting_point(
  settings: Settings, opened: Opened, key: jax.Array, mesh: Mesh
) -> Model:
  """The model a run begins with, spread over the mesh. The key is consumed."""
  if opened.stored is None:
    if settings.train.lora_rank:
      raise BadInput(
        f'train.lora_rank: found {settings.train.lora_rank} without a checkpoint, '
        'whose weights would be frozen; wanted 0, or config.checkpoint'
      )
    return _new(settings, opened.tokenizer, key, mesh)
  where, stored = f'checkpoint {settings.checkpoint}', opened.stored
  description = opening.fitted(stored.description, opened.tokenizer, settings, where)
  if description.objective != settings.method.objective:
    raise BadInput(
      f'method.objective: found {settings.method.objective!r}; wanted '
      f'{description.objective!r}, as {where} is'
    )
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
  model = add_adapter(model, adapter, jax.random.fold_in(key, 1), where)
  return add_injection(model, settings.method, key)


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
  if has is not None:
    raise BadInput(
      f'train.lora_rank: found {adapter}; wanted {has}, as {where} has, or its merged '
      'export as the checkpoint'
    )
  assert adapter is not None
  try:
    fresh = lora.init_factors(key, model.params['backbone'], adapter)
  except ValueError as e:
    raise BadInput(f'train.lora_{e}') from e
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
  """Returns that of a vanilla model with the adapter and injection of a run."""
  return dataclasses.replace(
    as_trained(description, settings),
    adapter=adapter_of(settings.train),
    injection=_without_idle_injection(method).injection,
  )


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


def fresh_state(
  params: Params, optimizer: OptimizerConfig, mesh: Mesh, donate: bool = False
) -> TrainState:
  """The state at step 0, on float32 copies of `params`: the loop donates its state.

  Placed as what a step returns and a checkpoint restores is: of a mixed state the
  second step would be compiled again.

  Args:
    params: spread over the mesh, or whole in every process.
    optimizer: see `OptimizerConfig`.
    mesh: of the run.
    donate: whether the state may take the place of `params` that are float32 and
      spread; they are gone then.
  """

  def copied(params: Params) -> TrainState:
    masters = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)
    return initial_state(masters, optimizer)

  # What is new, or of another mesh, is bound to other devices.
  params = multihost.shard(params, rules.shardings(mesh, params))
  where = rules.shardings(mesh, jax.eval_shape(copied, params))
  given = (0,) if donate else ()
  return jax.jit(copied, out_shardings=where, donate_argnums=given)(params)


def _own_batches(settings: Settings, rows: Rows, mesh: Mesh) -> loop.Batches:
  """The batches of a run, of each what this process holds."""
  options = settings.train
  meshes.check_batch(
    'train.batch_size / train.accumulate',
    options.batch_size // options.accumulate,
    mesh,
  )
  part, parts = meshes.own_part(mesh)
  return pipeline.training_batches(
    rows,
    batch_size=options.batch_size,
    seed=settings.seed,
    process_index=part,
    process_count=parts,
  )


def fit(
  settings: Settings,
  start: Model,
  rows: Rows,
  workdir: pathlib.Path,
  *,
  name: str = 'train',
  heldout: Rows | None = None,
  donate: bool = False,
) -> Model:
  """Trains and returns `start` with averaged parameters; resumes in `workdir`.

  Args:
    settings: of the run.
    start: what is trained, spread over the mesh or whole in every process; what it has
      beside an adapter stays as it is.
    rows: what it is trained on.
    workdir: where checkpoints and metrics go.
    name: of the run, for whom it is shown to.
    heldout: what it is evaluated on every `train.evaluate_every` steps.
    donate: whether the parameters of `start` are given away; see `fresh_state`.

  Raises:
    Stopped: by SIGTERM, after saving.
  """
  options, mesh = settings.train, opening.mesh_of(settings)
  frozen, trained = lora.divided(start.params)
  state = fresh_state(trained, optimizer_of(options), mesh, donate)
  batches = _own_batches(settings, rows, mesh)
  key = jax.random.fold_in(jax.random.key(settings.seed), 1)
  place = functools.partial(meshes.place_own_rows, mesh)
  step = step_on_mesh(
    start.description, settings.method, options, mesh, key, place, frozen
  )
  with ExitStack() as stack:
    checkpoints = stack.enter_context(_checkpoints(settings, start, rows, workdir))
    saves = -(-options.num_steps // options.save_every)
    steps.require_room(checkpoints.directory, state, options.keep, saves)
    trace = None
    if window := settings.profile.window:
      trace = stack.enter_context(closing(Trace(workdir / 'profile', *window)))
    writer = None
    if multihost.index() == 0:
      journal.say()
      rates = _per_step(settings, start.description, mesh)
      writer = MetricWriter(workdir, options.num_steps, name=name, per_step=rates)
      stack.enter_context(closing(writer))
    state = loop.train(
      state,
      step,
      batches,
      loop_of(options),
      store=checkpoints,
      writer=writer,
      stop=multihost.stop_agreed,
      trace=trace,
      evaluate=_evaluation(settings, start.description, frozen, heldout, mesh),
    )
  return dataclasses.replace(start, params=lora.joined(frozen, state.ema))


def _evaluation(
  settings: Settings,
  description: ModelDescription,
  frozen: Params | None,
  heldout: Rows | None,
  mesh: Mesh,
) -> Callable[[TrainState], dict[str, float]] | None:
  """What makes held-out losses of a state, if the run wants them."""
  if heldout is None or not settings.train.evaluate_every:
    return None
  losses = scoring.heldout_losses(description, settings, heldout, mesh)
  return lambda state: losses(lora.joined(frozen, state.ema))


def _per_step(
  settings: Settings, description: ModelDescription, mesh: Mesh
) -> dict[str, float]:
  """What a step counts for: tokens, and its share of a second of all chips at peak."""
  length = settings.data.length
  tokens = float(settings.train.batch_size * length)
  chip = chips.chip_of(mesh.devices.flat[0])
  if chip is None or description.objective == 'classify':
    return {'tokens_per_second': tokens}
  work = tokens * flops.training(description, length, settings.method.rate)
  return {'tokens_per_second': tokens, 'mfu': work / (mesh.size * chip.flops)}


def _checkpoints(
  settings: Settings, start: Model, rows: Rows, workdir: pathlib.Path
) -> training_store.TrainingStore:
  """The steps of a run, which know what it is made of."""
  made_of = provenance.of_run(rows, start.tokenizer)
  if start.description.adapter is not None:
    made_of['base'] = start.origin['frozen']['weights']
  return training_store.TrainingStore(
    workdir / 'checkpoints',
    settings.train.keep,
    settings.verify_below,
    made_of,
    settings.train.accept_changes,
  )


def save(workdir: pathlib.Path, model: Model, settings: Settings) -> None:
  """Writes a trained model to `workdir/model`; `model.origin` is that of its base."""
  store.save_model(
    workdir / store.MODEL_SUBDIRECTORY,
    model.description,
    model.params,
    _origin(settings, model.origin),
    model.tokenizer.files,
  )


def _origin(settings: Settings, base: Mapping[str, Any]) -> dict[str, Any]:
  """How a trained model came about, for its checkpoint and model card."""
  method, options = settings.method, settings.train
  # What lay beside the base still holds unless its tokens mean something else now.
  own = settings.data.tokenizer == CHECKPOINT_TOKENIZER
  return {
    'carried': base.get('carried', {}) if own else {},
    'base': settings.checkpoint,
    'base_license': base.get('license', ''),
    # Of an adapter: what its base is known by.
    **({'frozen': base['frozen']} if 'frozen' in base else {}),
    'imported_from': base.get('imported_from', ''),
    'license': 'unknown',
    'objective': method.objective,
    'schedule': method.schedule,
    'rate': method.rate,
    'estimate': method.estimate,
    'steps': options.num_steps,
    'batch_size': options.batch_size,
    'learning_rate': options.learning_rate,
    'data': settings.data.name,
    'length': settings.data.length,
    'seed': settings.seed,
  }
