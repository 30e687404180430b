"""`--mode=evaluate`: held-out likelihood three ways, and samples before the judges.

checkpoint -> likelihood (null, two-pass, carried) ---> workdir/evaluation.json
           -> samples -> the measures of the domain, causal judge --^
           -> or tasks of lm-eval --------------------------^
"""

import pathlib
from typing import Any

import jax

from scmdm_jax import files
from scmdm_jax.data import journal
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.processes import multihost
from scmdm_jax.runs import measuring
from scmdm_jax.runs.counting import agreement, cost, counted
from scmdm_jax.runs.drawing import (
  check_mask,
  draw,
  sampler_on,
  starting_rows,
  write_samples,
)
from scmdm_jax.runs.opening import Opened, check_blocks, load_masked, mesh_of, open_run
from scmdm_jax.runs.scoring import judge_samples, likelihood
from scmdm_jax.settings.building import sampler_of, schedule_of
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `evaluation.json` and `samples.jsonl`, returns the same figures."""
  opened = open_run(settings, workdir)
  tokenizer = opened.tokenizer
  domain = registry.of(settings.data)
  domain.check_run(settings.data, workdir, tokenizer)
  if settings.evaluate.lm_eval:
    return _tasks(settings, workdir, opened)
  x_init = starting_rows(settings, tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
  model = load_masked(settings, opened, mesh)
  check_blocks(model.description, settings)
  sampler = sampler_of(settings.sample, schedule)
  sampler = sampler_on(model.description, sampler, mesh, x_init.shape[1])
  measure = measuring.measure_of(settings, workdir, tokenizer)
  rows = domain.read_rows(settings.data, tokenizer, 'test')
  key_samples, key_likelihood = jax.random.split(jax.random.key(settings.seed))
  figures: dict[str, Any] = {
    'mode': 'evaluate',
    'checkpoint': settings.checkpoint,
    'num_steps': settings.sample.num_steps,
    'strategy': settings.sample.strategy,
    'noise': settings.sample.noise,
    'temperature': settings.sample.temperature,
    'top_p': settings.sample.top_p,
    'block_length': sampler.block_length,
    'cache': sampler.cache,
    'self_conditioning': settings.sample.self_conditioning
    and model.description.injection != 'none',
    # The likelihood is a mean over so many of them.
    'held_out_rows': min(settings.evaluate.num_examples, len(rows)),
    'likelihood': likelihood(
      model,
      schedule,
      rows,
      settings.evaluate,
      key_likelihood,
      mesh,
      settings.sample.self_conditioning,
    ),
  }
  figures |= domain.of_likelihood(figures['likelihood'])
  if multihost.index() == 0:
    journal.say()
  drawing = (model, schedule, settings.sample, key_samples, x_init, mesh)
  drawn = draw(*drawing)
  same = agreement(*drawing, drawn.tokens)
  drawn = counted(drawn, x_init, tokenizer)
  write_samples(workdir, drawn, tokenizer, domain)
  figures['samples'] = judge_samples(measure, drawn, tokenizer) | cost(drawn) | same
  if multihost.index() == 0:
    files.write_json(workdir / 'evaluation.json', figures)
  return figures


def _tasks(settings: Settings, workdir: pathlib.Path, opened: Opened) -> dict[str, Any]:
  """Writes the results of tasks of lm-eval to `evaluation.json`, and returns them."""
  try:
    from scmdm_jax.runs import harness
  except ModuleNotFoundError as e:
    raise BadInput(
      f"evaluate.lm_eval: {e.name} is not installed; pip install 'scmdm_jax[lm_eval]'"
    ) from e
  check_mask(settings, opened.tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
  model = load_masked(settings, opened, mesh, settings.sample.dtype)
  found = harness.evaluate(settings, model, schedule, mesh)
  figures = {'mode': 'evaluate', 'checkpoint': settings.checkpoint, **found}
  if multihost.index() == 0:
    files.write_json(workdir / 'evaluation.json', figures)
  return figures
