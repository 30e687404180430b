"""The package from Python: load a model, sample, adapt, measure and save it.

The functions are those behind the command line, on one device unless a mesh is given;
`import scmdm_jax as sc` has them.
"""

import dataclasses
import functools
import os
import pathlib
import tempfile
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.buckets import staging, urls
from scmdm_jax.checkpoints import store
from scmdm_jax.data import pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import LogLinear, Schedule
from scmdm_jax.errors import BadInput
from scmdm_jax.models import lora
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.runs import (
  adapting,
  compiling,
  drawing,
  opening,
  scoring,
  starting,
  watching,
)
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.building import loop_of, optimizer_of
from scmdm_jax.settings.options import (
  DataSettings,
  EvaluateSettings,
  MethodSettings,
  SampleSettings,
  Settings,
  TrainSettings,
)
from scmdm_jax.training import loop

# Small pretrained models that come along: `load(ASSETS / 'qm9_base')`.
ASSETS = pathlib.Path(__file__).parent / 'assets'


def load(
  path: str | os.PathLike[str], *, mesh: Mesh | None = None, dtype: str = 'float32'
) -> Model:
  """Opens any checkpoint that the command line takes.

  Args:
    path: one of ours, a directory with config.json and safetensors, or a *.gguf.
    mesh: of `make_mesh`, over which the parameters are split; None: one device.
    dtype: of the parameters, 'float32' or 'bfloat16'.

  Returns:
    The model: `description`, `params`, `tokenizer` and `origin`.

  Raises:
    BadInput: no checkpoint there, or one without a tokenizer.
    DamagedData: its files are truncated or altered.
  """
  with tempfile.TemporaryDirectory() as folder:
    text = urls.accepted('checkpoint', os.fspath(path))
    stored = opening.open_path(text, pathlib.Path(folder), 'model')
    tokenizer = opening.own_tokenizer(stored)
    if tokenizer is None:
      raise BadInput(
        f'{path}: brings no tokenizer along; put its tokenizer files beside it'
      )
    description = opening.padded(stored.description, tokenizer)
    params = opening.load(stored, mesh, dtype)
    return Model(description, params, tokenizer, stored.extra)


def save(model: Model, path: str | os.PathLike[str]) -> None:
  """Writes a model with its tokenizer to the new directory `path`.

  `load`, the command line, and `--mode=export` read it.

  Raises:
    BadInput: something is there already, or it cannot be written.
  """
  text = urls.accepted('path', os.fspath(path))
  with staging.staged(text, locked=False) as directory:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
      raise BadInput(f'{text}: something is there already; give a new directory')
    store.save_model(
      directory,
      model.description,
      model.params,
      dict(model.origin),
      model.tokenizer.files,
    )


def sample(
  key: jax.Array,
  model: Model,
  *,
  num_samples: int = 1,
  sampler: Sampler | None = None,
  prompt: str = '',
  length: int = 0,
  options: SampleSettings | None = None,
  mesh: Mesh | None = None,
) -> np.ndarray:
  """Draws samples; `model.tokenizer.decode` makes text of each.

  Sample i depends on `fold_in(key, i)` only, whatever the batch size and the mesh.

  Args:
    key: consumed.
    model: a masked diffusion model.
    num_samples: N.
    sampler: steps, strategy, schedule, ...; None: 32 ancestral steps.
    prompt: a template whose `_` are to be written, as `sample.prompt` on the command
      line; '': everything is.
    length: L; 0: the model's own.
    options: batch size, temperature and dtype; None: their defaults.
    mesh: of `make_mesh`; None: one device.

  Returns:
    int32 [N, L], without a mask.

  Raises:
    BadInput: no masked diffusion model, or a prompt that leaves nothing to write.
  """
  _check_masked(model)
  return drawing.draw_rows(
    model,
    sampler or Sampler(num_steps=32),
    options or SampleSettings(),
    key,
    _starting_rows(model, num_samples, prompt, length),
    mesh or meshes.one_device(),
  ).tokens


def _starting_rows(
  model: Model, num_samples: int, prompt: str, length: int
) -> np.ndarray:
  """What samples start from, int32 [N, L]; see `sample`."""
  length = length or model.description.architecture.length
  wanted = Settings(
    data=DataSettings(length=length),
    sample=SampleSettings(prompt=prompt, num_samples=num_samples),
  )
  return drawing.starting_rows(wanted, model.tokenizer)


class Beliefs(NamedTuple):
  """How N samples were written in T steps.

  Attributes:
    states: int32 [T + 1, N, L], the tokens at the start and after every step.
    log_probs: float32 [T, N, L, V], what the model predicted in every step of the
      positions that were masked before it.
  """

  states: np.ndarray
  log_probs: np.ndarray


def beliefs(
  key: jax.Array,
  model: Model,
  *,
  num_samples: int = 1,
  sampler: Sampler | None = None,
  prompt: str = '',
) -> Beliefs:
  """Draws what `sample` draws, and returns every step with what the model believed.

  Args:
    key: consumed; equal keys give the tokens of `sample`.
    model: a masked diffusion model.
    num_samples: N, a few.
    sampler: without guidance and blocks; None: 32 ancestral steps.
    prompt: see `sample`.

  Raises:
    BadInput: see `sample`.
    ValueError: a sampler that cannot be replayed; see `diffusion.beliefs`.
  """
  _check_masked(model)
  start = _starting_rows(model, num_samples, prompt, 0)
  sampler = sampler or Sampler(num_steps=32)
  mesh = meshes.one_device()
  return Beliefs(*watching.watched(model, sampler, SampleSettings(), key, start, mesh))


def adapt(
  key: jax.Array,
  model: Model,
  rows: Rows,
  *,
  method: MethodSettings | None = None,
  train: TrainSettings | None = None,
  mesh: Mesh | None = None,
) -> Model:
  """Teaches a model to read its own previous prediction; returns the adapted one.

  This is `--mode=train` without a workdir: nothing is saved on the way.

  Args:
    key: consumed.
    model: a masked diffusion model, with or without self-conditioning.
    rows: N examples, int32 [L] each: an int32 [N, L] array, or what reads them.
    method: rate, injection, schedule; None: the paper's rate 1.
    train: steps, batch size, learning rates; None: the defaults of the options.
    mesh: of `make_mesh`; None: one device.

  Raises:
    BadInput: options that do not fit each other, the model or the rows.
    DamagedData: the loss stopped being finite.
  """
  _check_masked(model)
  method, train = method or MethodSettings(), train or TrainSettings()
  mesh = mesh or meshes.one_device()
  key_start, key_train, key_order = jax.random.split(key, 3)
  if train.lora_rank and model.description.adapter is None:
    raise BadInput(
      f'train.lora_rank: found {train.lora_rank}; wanted 0, or --mode=train, whose '
      'checkpoint names the base beside which the factors are trained'
    )
  start = starting.add_injection(model, method, key_start)
  frozen, trained = lora.divided(start.params, start.description.adapter)
  state = loop.train(
    adapting.fresh_state(trained, optimizer_of(train), mesh),
    compiling.step_on_mesh(
      start.description,
      method,
      train,
      mesh,
      key_train,
      functools.partial(meshes.place_rows, mesh),
      frozen,
    ),
    pipeline.training_batches(
      rows,
      batch_size=train.batch_size,
      seed=int(jax.random.bits(key_order, dtype=np.uint32)),
    ),
    loop_of(train),
  )
  return dataclasses.replace(start, params=lora.joined(frozen, state.ema))


def _scoring(
  model: Model,
  schedule: Schedule | None,
  rows: Rows,
  options: EvaluateSettings | None,
  key: jax.Array,
  mesh: Mesh | None,
) -> tuple[Model, Schedule, Rows, EvaluateSettings, jax.Array, Mesh]:
  """What both bounds of `scoring` take first, with the defaults for None."""
  _check_masked(model)
  schedule, options = schedule or LogLinear(), options or EvaluateSettings()
  return model, schedule, rows, options, key, mesh or meshes.one_device()


def nelbo(
  key: jax.Array,
  model: Model,
  rows: Rows,
  *,
  passes: int = 2,
  schedule: Schedule | None = None,
  options: EvaluateSettings | None = None,
  mesh: Mesh | None = None,
) -> float:
  """Returns the negative ELBO of held-out rows, in nats per token.

  Args:
    key: consumed; equal keys give every model the same times and masks.
    model: a masked diffusion model.
    rows: N examples, int32 [L] each.
    passes: 1: under the null signal; 2: given the model's own prediction.
    schedule: of masking; None: log-linear.
    options: most rows, batch size, draws per row; None: their defaults.
    mesh: of `make_mesh`; None: one device.
  """
  what = _scoring(model, schedule, rows, options, key, mesh)
  return scoring.mean_nelbo(*what, passes)


def carried_nelbo(
  key: jax.Array,
  model: Model,
  rows: Rows,
  *,
  num_steps: int = 32,
  schedule: Schedule | None = None,
  options: EvaluateSettings | None = None,
  mesh: Mesh | None = None,
) -> float:
  """Returns the negative ELBO of the chain that `sample` runs, in nats per token.

  Args:
    key: consumed; equal keys give every model the same trajectories.
    model: a masked diffusion model.
    rows: N examples, int32 [L] each.
    num_steps: T, of the chain.
    schedule: of masking; None: log-linear.
    options: most rows and batch size; None: their defaults.
    mesh: of `make_mesh`; None: one device.
  """
  what = _scoring(model, schedule, rows, options, key, mesh)
  return scoring.mean_carried_nelbo(*what, num_steps)


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, sequence: int = 1
) -> Mesh:
  """Returns a mesh of all devices; -1 for one size is what the others leave.

  Args:
    data: splits the examples.
    fsdp: splits the examples and the parameters.
    tensor: splits widths and the vocabulary.
    sequence: splits the positions of an example.

  Raises:
    BadInput: the product is not the number of devices.
  """
  return meshes.make_mesh(data, fsdp, tensor, sequence)


def _check_masked(model: Model) -> None:
  """Raises BadInput if the model has no mask, so that it is a judge."""
  if model.description.mask_id is None:
    found = model.description.objective
    raise BadInput(f'model: found a {found} one; wanted a masked diffusion model')
