"""`--mode=sample`: draws samples, fills in a prompt or answers many; writes JSON lines.

checkpoint -> compiled sampler -> tokens -> tokenizer -> workdir/samples.jsonl
"""

import dataclasses
import functools
import os
import pathlib
import time
from typing import Any

import jax

from scmdm_jax.domains import registry
from scmdm_jax.runs import answering, answers
from scmdm_jax.runs.counting import APPROXIMATE, agreement, cost, counted
from scmdm_jax.runs.drawing import (
  check_mask,
  draw,
  sampler_on,
  starting_rows,
  write_samples,
)
from scmdm_jax.runs.opening import Model, Opened, load_masked, mesh_of, open_run
from scmdm_jax.settings.building import sampler_of, schedule_of
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `samples.jsonl` and returns the main figures."""
  opened = open_run(settings, workdir)
  tokenizer = opened.tokenizer
  domain = registry.of(settings.data)
  domain.check_run(settings.data, workdir, tokenizer)
  if settings.sample.prompts:
    return {**_described(settings), **_answer(settings, workdir, opened)}
  x_init = starting_rows(settings, tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
  model = load_masked(settings, opened, mesh, settings.sample.dtype)
  sampler = sampler_of(settings.sample, schedule)
  sampler = sampler_on(model.description, sampler, mesh, x_init.shape[1])
  key = jax.random.key(settings.seed)
  drawing = (model, schedule, settings.sample, key, x_init, mesh)
  drawn = draw(*drawing)
  same = agreement(*drawing, drawn.tokens)
  drawn = counted(drawn, x_init, tokenizer)
  figures = cost(drawn)
  write_samples(workdir, drawn, tokenizer, domain)
  return {
    **_described(settings),
    'samples': str(workdir / 'samples.jsonl'),
    'count': len(drawn.tokens),
    **figures,
    'cache': sampler.cache,
    **same,
    'self_conditioning': _carries(settings, model),
    'seconds': round(drawn.seconds, 2),  # Compilation included.
    'tokens_per_second': round(len(x_init) * figures['generated'] / drawn.seconds, 2),
  }


def _described(settings: Settings) -> dict[str, Any]:
  sample = settings.sample
  return {
    'mode': 'sample',
    'num_steps': sample.num_steps,
    'strategy': sample.strategy,
    'noise': sample.noise,
  }


def _carries(settings: Settings, model: Model) -> bool:
  return settings.sample.self_conditioning and model.description.injection != 'none'


def _answer(
  settings: Settings, workdir: pathlib.Path, opened: Opened
) -> dict[str, Any]:
  """Answers what a file of prompts asks and was not answered yet."""
  options, tokenizer, started = settings.sample, opened.tokenizer, time.time()
  check_mask(settings, tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
  length, speak = settings.data.length, registry.of(settings.data).converse
  if options.max_new_tokens and opened.stored is not None:
    length = opened.stored.description.architecture.length
  prompts = answering.read(
    pathlib.Path(os.path.expanduser(options.prompts)),
    tokenizer,
    options.max_new_tokens,
    length,
    functools.partial(speak, settings.data, tokenizer) if speak else None,
  )
  path = workdir / 'samples.jsonl'
  done = answers.left_out(path, prompts)
  model = load_masked(settings, opened, mesh, options.dtype)
  sampler = sampler_on(model.description, sampler_of(options, schedule), mesh)
  key = jax.random.key(settings.seed)
  batches = answering.answer(model, sampler, options, key, prompts, mesh, done)
  answers.write(path, batches, prompts, tokenizer)
  same = {}
  if sampler.cache in APPROXIMATE:
    # The first of them once more, by the same keys, without a cache.
    plain = dataclasses.replace(sampler, cache='none', refresh=0)
    others = range(options.batch_size, len(prompts))
    batches = answering.answer(model, plain, options, key, prompts, mesh, others)
    first = [answer for batch in batches for answer in batch]
    same = answers.agreement(path, first, prompts, tokenizer)
  return {
    'samples': str(path),
    **answers.figures(path),
    'answered_before': len(done),
    'cache': sampler.cache,
    **same,
    'self_conditioning': _carries(settings, model),
    'seconds': round(time.time() - started, 2),
  }
