"""Held-out likelihood of a model, and all measures of its samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.data import pipeline
from scmdm_jax.data.pipeline import HeldoutBatch, Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.likelihood import carried_nelbo, nelbo
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.judges.diversity import judge_diversity
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.processes import multihost
from scmdm_jax.runs.drawing import Drawn
from scmdm_jax.runs.opening import Model, place
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.options import EvaluateSettings, Settings


@functools.cache
def _compiled(
  bound: Callable[..., jax.Array],
  description: ModelDescription,
  schedule: Schedule,
  mesh: Mesh,
  dtype: str = '',
  **choices: Any,
):
  """The compiled `bound`, `nelbo` or `carried_nelbo`, of the rows of a batch."""
  assert description.mask_id is not None
  fixed = dict(schedule=schedule, mask_id=description.mask_id, **choices)

  def compute(params, key, tokens, target, mask):
    execution = Execution(Placement(mesh), dtype=dtype)
    network = denoiser.bind(params, description, execution=execution)
    return bound(key, network, tokens, target=target, mask=mask, **fixed)

  return jax.jit(compute, out_shardings=meshes.replicated(mesh))


def _mean(compute, params, key, batches, repeats: int, may_leave: bool = True) -> float:
  """Nats per scored position of the real rows of all batches, `repeats` draws each."""
  total, count = 0.0, 0
  for repeat in range(repeats):
    for i, (batch, placed) in enumerate(batches):
      if may_leave:
        multihost.leave_if_asked('evaluation')
      key_i = jax.random.fold_in(jax.random.fold_in(key, repeat), i)
      found = multihost.gathered(compute(params, key_i, *placed))
      values = np.asarray(found, np.float64)
      total += values[batch.real].sum()
      count += int(batch.scored[batch.real].sum())
  return total / count


def _heldout(
  rows: Rows, options: EvaluateSettings, mesh: Mesh
) -> list[tuple[HeldoutBatch, Any]]:
  """Returns the rows in batches, each with its arrays on the mesh."""
  meshes.check_batch('evaluate.batch_size', options.batch_size, mesh)
  chosen = pipeline.spread_indices(len(rows), options.num_examples)
  batches = pipeline.heldout_batches(rows, batch_size=options.batch_size, chosen=chosen)
  return [(b, meshes.place_rows(mesh, (b.tokens, b.target, b.mask))) for b in batches]


def mean_nelbo(
  model: Model,
  schedule: Schedule,
  rows: Rows,
  options: EvaluateSettings,
  key: jax.Array,
  mesh: Mesh,
  passes: int,
) -> float:
  """Returns the NELBO in nats per token that may be masked, of `passes` passes."""
  params = place(model.params, mesh, 'float32')
  batches = _heldout(rows, options, mesh)
  compute = _compiled(nelbo, model.description, schedule, mesh, passes=passes)
  return _mean(compute, params, key, batches, options.repeats)


def heldout_losses(
  description: ModelDescription, settings: Settings, rows: Rows, mesh: Mesh
) -> Callable[[Any], dict[str, float]]:
  """Returns what makes of parameters their held-out losses in nats per token, by name.

  Always of the same rows, times and masks, so that two of them differ by what was
  learned alone; products are in `train.dtype`.
  """
  batches = _heldout(rows, settings.evaluate, mesh)
  key = jax.random.fold_in(jax.random.key(settings.seed), 4)
  passes = {'heldout_nelbo': 1}
  if description.injection != 'none':
    passes['heldout_nelbo_two_pass'] = 2
  schedule, repeats = schedule_of(settings.method), settings.evaluate.repeats

  def losses(params: Any) -> dict[str, float]:
    found = {}
    for name, count in passes.items():
      compute = _compiled(
        nelbo, description, schedule, mesh, settings.train.dtype, passes=count
      )
      found[name] = _mean(compute, params, key, batches, repeats, may_leave=False)
    return found

  return losses


def mean_carried_nelbo(
  model: Model,
  schedule: Schedule,
  rows: Rows,
  options: EvaluateSettings,
  key: jax.Array,
  mesh: Mesh,
  num_steps: int,
  self_conditioning: bool = True,
) -> float:
  """Returns the carried NELBO in nats per token of a chain of `num_steps` steps."""
  params = place(model.params, mesh, 'float32')
  batches = _heldout(rows, options, mesh)
  conditioned = self_conditioning and model.description.injection != 'none'
  compute = _compiled(
    carried_nelbo,
    model.description,
    schedule,
    mesh,
    num_steps=num_steps,
    self_conditioning=conditioned,
  )
  return _mean(compute, params, key, batches, 1)


def likelihood(
  model: Model,
  schedule: Schedule,
  rows: Rows,
  options: EvaluateSettings,
  key: jax.Array,
  mesh: Mesh,
  self_conditioning: bool = True,
) -> dict[str, Any]:
  """Returns nats per token: null pass, two passes and more, carried by steps.

  Equal keys score every model on the same times, masks and trajectories.
  """
  key_nelbo, key_carried = jax.random.split(key)
  what = (model, schedule, rows, options)
  null = mean_nelbo(*what, key_nelbo, mesh, 1)
  names = {2: 'nelbo_two_pass', **{k: f'nelbo_{k}_passes' for k in options.passes}}
  more = dict.fromkeys(names.values(), null)
  if self_conditioning and model.description.injection != 'none':
    more = {n: mean_nelbo(*what, key_nelbo, mesh, k) for k, n in names.items()}
  carried = {
    str(steps): mean_carried_nelbo(*what, key_carried, mesh, steps, self_conditioning)
    for steps in options.carried_steps
  }
  return {'nelbo_null': null, **more, 'carried_nelbo': carried}


def judge_samples(
  measure: Callable[[np.ndarray], dict[str, Any]], drawn: Drawn, tokenizer: Tokenizer
) -> dict[str, Any]:
  """All measures of a set of samples, by name.

  Args:
    measure: those of the domain; see `protocol.Domain.measuring`.
    drawn: the samples.
    tokenizer: of the run.
  """
  diversity = judge_diversity(drawn.tokens, tokenizer.invisible_ids)
  return {
    'count': len(drawn.tokens),
    **measure(drawn.tokens),
    'entropy': diversity.unigram_entropy,
    'entropy_visible': diversity.unigram_entropy_visible,
    'distinct_4': diversity.distinct_4,
    'evaluations': drawn.evaluations,
  }
