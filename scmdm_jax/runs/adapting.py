"""Training or adapting a model: its loss, compiled step, start, fit and origin."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from scmdm_jax.checkpoints import steps, store, training_store
from scmdm_jax.data import journal, pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion import estimates
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.domains import registry
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.errors import BadInput
from scmdm_jax.models import classifier, denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution, training_on
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.parallel import chips, rules
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.processes import multihost
from scmdm_jax.runs import opening, provenance
from scmdm_jax.runs.opening import Model, Opened
from scmdm_jax.settings.building import loop_of, new_model, optimizer_of, schedule_of
from scmdm_jax.settings.options import DataSettings, MethodSettings, Settings
from scmdm_jax.training import loop
from scmdm_jax.training.losses import causal_nll, class_nll
from scmdm_jax.training.profile import Trace
from scmdm_jax.training.step import (
  OptimizerConfig,
  TrainState,
  initial_state,
  make_train_step,
)
from scmdm_jax.training.writer import MetricWriter

Params = dict[str, Any]


def make_loss(
  description: ModelDescription, method: MethodSettings, execution: Execution
):
  """The loss of a step: of the next token, of the class, or the two-pass NELBO."""
  if method.objective == 'causal':
    return functools.partial(_causal_loss, description, execution)
  if method.objective == 'classify':
    return functools.partial(_class_loss, description, execution)
  return functools.partial(_masked_loss, description, method, execution)


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
  return diffusion_loss(
    key,
    denoiser.bind(params, description, execution=execution),
    denoiser.bind(jax.lax.stop_gradient(params), description, execution=execution),
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
  state = jax.eval_shape(start, denoiser.abstract_params(description))
  where = (rules.shardings(mesh, state), meshes.replicated(mesh))
  options = chips.STEP_OPTIONS.get(Placement(mesh).platform)
  return make_train_step(loss, optimizer, where, options)


def starting_point(
  settings: Settings, opened: Opened, key: jax.Array, mesh: Mesh
) -> Model:
  """The model a run begins with, spread over the mesh. The key is consumed."""
  if opened.stored is None:
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
  description = as_trained(description, settings.data)
  params = opening.load(stored, mesh)
  model = Model(description, params, opened.tokenizer, stored.extra)
  return add_injection(model, settings.method, key)


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
  description = as_trained(description, settings.data)
  where = rules.shardings(mesh, denoiser.abstract_params(description))
  start = jax.jit(denoiser.init_params, static_argnums=1, out_shardings=where)
  return Model(description, start(key, description), tokenizer, {})


def as_trained(description: ModelDescription, data: DataSettings) -> ModelDescription:
  """The description of a model trained on `data`: how their rows begin and end."""
  framing = registry.of(data).framing(data)
  return dataclasses.replace(description, framing=framing or description.framing)


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


def fit(
  settings: Settings,
  description: ModelDescription,
  state: TrainState,
  rows: Rows,
  tokenizer: Tokenizer,
  workdir: pathlib.Path,
  name: str = 'train',
) -> Params:
  """Trains and returns the average of the parameters; resumes in `workdir`.

  Args:
    settings: of the run.
    description: what is trained.
    state: at step 0, of `fresh_state` on the run's mesh; donated.
    rows: what it is trained on.
    tokenizer: that made them.
    workdir: where checkpoints and metrics go.
    name: of the run, for whom it is shown to.

  Raises:
    Stopped: by SIGTERM, after saving.
  """
  options, optimizer = settings.train, optimizer_of(settings.train)
  mesh = opening.mesh_of(settings)
  meshes.check_batch(
    'train.batch_size / train.accumulate',
    options.batch_size // options.accumulate,
    mesh,
  )
  part, parts = meshes.own_part(mesh)
  batches = pipeline.training_batches(
    rows,
    batch_size=settings.train.batch_size,
    seed=settings.seed,
    process_index=part,
    process_count=parts,
  )
  with (
    training_store.TrainingStore(
      workdir / 'checkpoints',
      options.keep,
      settings.verify_below,
      provenance.of_run(rows, tokenizer),
      options.accept_changes,
    ) as checkpoints,
    contextlib.ExitStack() as stack,
  ):
    saves = -(-options.num_steps // options.save_every)
    steps.require_room(checkpoints.directory, state, options.keep, saves)
    trace = None
    if window := settings.profile.window:
      trace = Trace(workdir / 'profile', *window)
      stack.callback(trace.close)
    writer = None
    if multihost.index() == 0:
      journal.say()
      writer = MetricWriter(
        workdir,
        num_steps=settings.train.num_steps,
        name=name,
      )
      stack.callback(writer.close)
    state = loop.train(
      state,
      compiled_step(
        description, settings.method, optimizer, mesh, options.remat, options.dtype
      ),
      batches,
      jax.random.fold_in(jax.random.key(settings.seed), 1),
      loop_of(settings.train),
      store=checkpoints,
      writer=writer,
      place=functools.partial(meshes.place_own_rows, mesh),
      stop=multihost.stop_agreed,
      trace=trace,
    )
  return state.ema


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
