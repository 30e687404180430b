"""What samples cost: tokens that count, evaluations, and what a cache changed."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.data.tokenizers.protocol import up_to_end
from scmdm_jax.diffusion.caching import evaluated
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.models import flops
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.runs.drawing import Drawn, draw
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import SampleSettings

APPROXIMATE = ('prefix', 'dual')


def flops_per_token(
  description: ModelDescription, sampler: Sampler, length: int
) -> float:
  """Returns FLOPs of a whole sample of `length` tokens, per token, without exits.

  `sampler` is as the model has it, see `drawing.sampler_on`; with guidance every
  evaluation is two.
  """
  size = sampler.block_length or length
  counts = evaluated(sampler.cache, length, size, sampler.num_steps)
  once = flops.sampling(
    description,
    length,
    sampler.num_steps,
    sampler.self_conditioning and description.injection != 'none',
    length // size,
    sum(size * n for size, n in counts.items()),
  )
  return once * (1 if sampler.guidance is None else 2)


def counted(drawn: Drawn, x_init: np.ndarray, tokenizer: Tokenizer) -> Drawn:
  """Returns samples up to their ends, and how many tokens of each were generated.

  Args:
    drawn: the samples.
    x_init: int32 [N, L], what they were drawn from.
    tokenizer: of the samples.
  """
  tokens = up_to_end(drawn.tokens, x_init, tokenizer)
  return drawn._replace(tokens=tokens, generated=generated(tokens, x_init, tokenizer))


def generated(
  tokens: np.ndarray, x_init: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
  """Returns how many tokens of samples int32 [N, L] were generated, int [N].

  That is what was written, without ends and what fills a row behind them; `x_init` is
  what the samples were drawn from, `tokens` are up to their ends.
  """
  fillers = [i for i in (tokenizer.eos_id, tokenizer.pad_id) if i is not None]
  return ((x_init == tokenizer.mask_id) & ~np.isin(tokens, fillers)).sum(-1)


def cost(drawn: Drawn) -> dict[str, Any]:
  """Returns the figures of samples that are `counted`.

  Evaluations and positions are of an example, the most of all batches; `rows` is of
  all. `tokens_per_evaluation` counts an example's own, after which it stood, as the
  answers to prompts do.
  """
  assert drawn.generated is not None
  return {
    'evaluations': drawn.evaluations,
    'positions': drawn.positions,
    'rows': drawn.rows,
    'generated': float(drawn.generated.mean()),
    'tokens_per_evaluation': float(drawn.generated.sum() / max(drawn.written.sum(), 1)),
  }


def agreement(
  model: Model,
  schedule: Schedule,
  options: SampleSettings,
  key: jax.Array,
  x_init: np.ndarray,
  mesh: Mesh,
  tokens: np.ndarray,
) -> dict[str, Any]:
  """Returns how far an approximate cache left the tokens as they are without it.

  The first batch is drawn once more by the same keys, without a cache. {} if the cache
  of `options` is none of APPROXIMATE.
  """
  if options.cache not in APPROXIMATE:
    return {}
  first = x_init[: options.batch_size]
  plain = dataclasses.replace(options, cache='none', refresh=0, trajectory=False)
  found = draw(model, schedule, plain, key, first, mesh).tokens
  same = (found == tokens[: len(first)])[first == model.tokenizer.mask_id]
  return {'agreement': float(same.mean()), 'agreement_samples': len(first)}
