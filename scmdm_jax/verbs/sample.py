"""`--mode=sample`: draws samples, or fills in a prompt, and writes JSON lines.

checkpoint -> compiled sampler -> tokens -> tokenizer -> workdir/samples.jsonl
"""

import pathlib
from typing import Any

import jax

from scmdm_jax.domains import registry
from scmdm_jax.runs.counting import agreement, cost, counted
from scmdm_jax.runs.drawing import draw, starting_rows, write_samples
from scmdm_jax.runs.opening import load_masked, mesh_of, open_run
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.options import Settings


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `samples.jsonl` and returns the main figures."""
  opened = open_run(settings, workdir)
  tokenizer = opened.tokenizer
  domain = registry.of(settings.data)
  domain.check_run(settings.data, workdir, tokenizer)
  x_init = starting_rows(settings, tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
  model = load_masked(settings, opened, mesh, settings.sample.dtype)
  key = jax.random.key(settings.seed)
  drawing = (model, schedule, settings.sample, key, x_init, mesh)
  drawn = draw(*drawing)
  same = agreement(*drawing, drawn.tokens)
  drawn = counted(drawn, x_init, tokenizer)
  figures = cost(drawn)
  write_samples(workdir, drawn, tokenizer, domain)
  return {
    'mode': 'sample',
    'samples': str(workdir / 'samples.jsonl'),
    'count': len(drawn.tokens),
    'num_steps': settings.sample.num_steps,
    **figures,
    'cache': settings.sample.cache,
    **same,
    'self_conditioning': settings.sample.self_conditioning
    and model.description.injection != 'none',
    'strategy': settings.sample.strategy,
    'noise': settings.sample.noise,
    'seconds': round(drawn.seconds, 2),  # Compilation included.
    'tokens_per_second': round(
      len(drawn.tokens) * figures['generated'] / drawn.seconds, 2
    ),
  }
