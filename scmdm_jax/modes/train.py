"""`--mode=train`: pretraining, continued training, adaptation, or training a judge.

    data -> grain batches -> one compiled step -> checkpoints, metrics -> workdir/model

With `checkpoint` empty a new model is trained; otherwise that model is continued, with
self-conditioning added when `method.rate` is above 0.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.checkpoints import store, training_store
from scmdm_jax.data import pipeline, sources
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.autoregressive import causal_nll
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.modes import models
from scmdm_jax.settings import (
  DataSettings,
  MethodSettings,
  Settings,
  loop_of,
  new_model,
  optimizer_of,
  schedule_of,
)
from scmdm_jax.training import loop
from scmdm_jax.training.step import (
  OptimizerConfig,
  TrainState,
  initial_state,
  make_train_step,
)
from scmdm_jax.training.writer import MetricWriter

Params = dict[str, Any]


def data_directory(data: DataSettings) -> pathlib.Path:
  """Where prepared data sets lie."""
  if data.directory:
    return pathlib.Path(data.directory).expanduser()
  return pathlib.Path.home() / '.cache' / 'scmdm_jax'


def read_texts(data: DataSettings, split: str) -> Sequence[str]:
  """The texts of 'train' or 'test', prepared first if need be."""
  return sources.open_split(data.name, data_directory(data), split, data.source or None)


def make_loss(description: ModelDescription, method: MethodSettings):
  """The loss of a step: next token for a causal model, the two-pass NELBO otherwise."""
  if method.objective == 'causal':
    return functools.partial(_causal_loss, description)
  return functools.partial(_masked_loss, description, method)


def _causal_loss(
  description: ModelDescription, key: jax.Array, params: Params, tokens: jax.Array
) -> jax.Array:
  del key
  return causal_nll(denoiser.bind(params, description), tokens).mean()


def _masked_loss(
  description: ModelDescription,
  method: MethodSettings,
  key: jax.Array,
  params: Params,
  tokens: jax.Array,
) -> jax.Array:
  assert description.mask_id is not None
  return diffusion_loss(
    key,
    denoiser.bind(params, description),
    denoiser.bind(jax.lax.stop_gradient(params), description),
    tokens,
    schedule=schedule_of(method),
    mask_id=description.mask_id,
    rate=method.rate,
  )


@functools.cache
def compiled_step(
  description: ModelDescription, method: MethodSettings, optimizer: OptimizerConfig
):
  """One compiled step per (model, method, optimizer), shared by runs of any length."""
  return make_train_step(make_loss(description, method), optimizer)


def starting_point(
  settings: Settings, tokenizer: Tokenizer, workdir: pathlib.Path, key: jax.Array
) -> tuple[ModelDescription, Params]:
  """The description and parameters a run begins with; the key is consumed."""
  if not settings.checkpoint:
    settings = dataclasses.replace(
      settings, method=_without_idle_injection(settings.method)
    )
    description = dataclasses.replace(
      new_model(settings, tokenizer.vocab_size, tokenizer.mask_id),
      tokenizer=tokenizer.name,
      fingerprint=tokenizer.fingerprint,
      undefined_ids=tokenizer.undefined_ids,
    )
    return description, jax.jit(denoiser.init_params, static_argnums=1)(
      key, description
    )
  description, params = models.load(settings.checkpoint, workdir, 'checkpoint')
  where = f'checkpoint {settings.checkpoint}'
  description = models.fitted(description, tokenizer, settings, where)
  if (description.mask_id is None) != (settings.method.objective == 'causal'):
    kind = 'causal' if description.mask_id is None else 'masked'
    raise BadInput(
      f'method.objective: found {settings.method.objective!r}; wanted {kind!r}, as '
      f'{where} is'
    )
  if settings.method.objective == 'causal' and not description.architecture.causal:
    raise BadInput(
      f'{where}: attends to later tokens; wanted a causal model for method.objective = '
      "'causal'"
    )
  if description.mask_id is not None:
    # A UDLM that has a mask is trained as a masked model from here on.
    description = dataclasses.replace(description, noise='mask')
  return add_injection(description, params, settings.method, key)


def _without_idle_injection(method: MethodSettings) -> MethodSettings:
  return dataclasses.replace(method, injection='none') if method.rate == 0 else method


def add_injection(
  description: ModelDescription, params: Params, method: MethodSettings, key: jax.Array
) -> tuple[ModelDescription, Params]:
  """The model with fresh self-conditioning parameters, which change nothing yet.

  At rate 0 nothing is added. A model that has an injection keeps it. The key is
  consumed.

  Raises:
    BadInput: the model has another injection than `method` asks for.
  """
  wanted = _without_idle_injection(method).injection
  if method.objective == 'causal' or wanted in ('none', description.injection):
    return description, params
  if description.injection != 'none':
    raise BadInput(
      f'method.injection: found {wanted!r}, but the checkpoint has '
      f'{description.injection!r}; wanted the same'
    )
  description = dataclasses.replace(description, injection=wanted)
  fresh = denoiser.init_self_conditioning(key, description)
  return description, {**params, 'self_conditioning': fresh}


def fresh_state(params: Params, optimizer: OptimizerConfig) -> TrainState:
  """The state at step 0, on copies of `params`, since the loop donates its state.

  Bound to a device, as what a step returns and a checkpoint restores is: of a mixed
  state the second step would be compiled anew.
  """
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  start = jax.jit(_copied_state, static_argnums=1, out_shardings=device)
  return start(params, optimizer)


def _copied_state(params: Params, optimizer: OptimizerConfig) -> TrainState:
  return initial_state(jax.tree.map(jnp.copy, params), optimizer)


def fit(
  settings: Settings,
  description: ModelDescription,
  params: Params,
  tokenizer: Tokenizer,
  texts: Sequence[str],
  workdir: pathlib.Path,
  name: str = 'train',
) -> Params:
  """Trains `params` (not changed) and returns the average; resumes in `workdir`."""
  optimizer = optimizer_of(settings.train)
  batches = pipeline.training_batches(
    texts,
    tokenizer,
    length=settings.data.length,
    batch_size=settings.train.batch_size,
    seed=settings.seed,
  )
  with (
    training_store.TrainingStore(
      workdir / 'checkpoints', settings.train.keep, settings.verify_below
    ) as checkpoints,
    contextlib.closing(
      MetricWriter(
        workdir,
        first_step=checkpoints.latest_step() or 0,
        num_steps=settings.train.num_steps,
        name=name,
      )
    ) as writer,
  ):
    state = loop.train(
      fresh_state(params, optimizer),
      compiled_step(description, settings.method, optimizer),
      batches,
      jax.random.fold_in(jax.random.key(settings.seed), 1),
      loop_of(settings.train),
      store=checkpoints,
      writer=writer,
    )
  return state.ema


def origin(settings: Settings, base: Mapping[str, Any]) -> dict[str, Any]:
  """How a trained model came about, for its checkpoint and model card.

  Args:
    settings: of the run.
    base: `models.base_origin` of it.
  """
  method, options = settings.method, settings.train
  return {
    'base': settings.checkpoint,
    'base_license': base.get('license', ''),
    'imported_from': base.get('imported_from', ''),
    'license': 'unknown',
    'objective': method.objective,
    'schedule': method.schedule,
    'rate': method.rate,
    'steps': options.num_steps,
    'batch_size': options.batch_size,
    'learning_rate': options.learning_rate,
    'data': settings.data.name,
    'length': settings.data.length,
    'seed': settings.seed,
  }


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, leaves the averaged model in `workdir/model`, returns the main figures."""
  started = time.time()
  tokenizer = models.run_tokenizer(settings, workdir)
  texts = read_texts(settings.data, 'train')
  key = jax.random.fold_in(jax.random.key(settings.seed), 0)
  description, params = starting_point(settings, tokenizer, workdir, key)
  base = models.base_origin(settings, workdir)
  trained = fit(settings, description, params, tokenizer, texts, workdir)
  store.save_model(
    workdir / store.MODEL_SUBDIRECTORY,
    description,
    trained,
    origin(settings, base),
    tokenizer.files,
  )
  return {
    'mode': 'train',
    'model': str(workdir / store.MODEL_SUBDIRECTORY),
    'parameters': int(sum(np.size(x) for x in jax.tree.leaves(trained))),
    'steps': settings.train.num_steps,
    'tokens': settings.train.num_steps
    * settings.train.batch_size
    * settings.data.length,
    'seconds': round(time.time() - started, 1),
  }
