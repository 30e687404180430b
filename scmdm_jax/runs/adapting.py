"""Training or adapting a model: its state, fit and origin."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from scmdm_jax.checkpoints import steps, store, training_store
from scmdm_jax.data import journal, pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER
from scmdm_jax.models import flops, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.parallel import chips, rules
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.processes import multihost
from scmdm_jax.runs import opening, provenance, scoring
from scmdm_jax.runs.compiling import step_on_mesh
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.building import loop_of, optimizer_of
from scmdm_jax.settings.options import Settings
from scmdm_jax.training import loop
from scmdm_jax.training.profile import Trace
from scmdm_jax.training.step import (
  OptimizerConfig,
  TrainState,
  initial_state,
)
from scmdm_jax.training.writer import MetricWriter

Params = dict[str, Any]


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
  frozen, trained = lora.divided(start.params, start.description.adapter)
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
