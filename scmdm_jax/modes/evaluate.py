"""`--mode=evaluate`: held-out likelihood three ways, and samples before the judges.

checkpoint -> likelihood (null, two-pass, carried) ---> workdir/evaluation.json
           -> samples -> molecules, diversity, causal judge --^
"""

import functools
import json
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.data import pipeline
from scmdm_jax.data.sources import all_texts
from scmdm_jax.data.tokenizers import Tokenizer, get_tokenizer
from scmdm_jax.diffusion.likelihood import carried_elbo, nelbo
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.judges.autoregressive import causal_nll, scored
from scmdm_jax.judges.diversity import judge_diversity
from scmdm_jax.judges.molecules import judge_molecules
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.modes.models import load_judge, load_masked
from scmdm_jax.modes.sample import Drawn, draw, starting_tokens, write_samples
from scmdm_jax.modes.train import data_directory, read_texts
from scmdm_jax.settings import EvaluateSettings, Settings, schedule_of

Model = tuple[ModelDescription, Any]


@functools.cache
def _compiled_nelbo(description: ModelDescription, schedule: Schedule, passes: int):
  assert description.mask_id is not None
  mask_id = description.mask_id

  def compute(params, key, tokens):
    return nelbo(
      key,
      denoiser.bind(params, description),
      tokens,
      schedule=schedule,
      mask_id=mask_id,
      passes=passes,
    )

  return jax.jit(compute)


@functools.cache
def _compiled_carried(
  description: ModelDescription, schedule: Schedule, steps: int, self_condition: bool
):
  assert description.mask_id is not None
  mask_id = description.mask_id

  def compute(params, key, tokens):
    return carried_elbo(
      key,
      denoiser.bind(params, description),
      tokens,
      schedule=schedule,
      mask_id=mask_id,
      num_steps=steps,
      self_condition=self_condition,
    )

  return jax.jit(compute)


@functools.cache
def _compiled_judge(description: ModelDescription):
  def compute(params, tokens):
    return causal_nll(denoiser.bind(params, description), tokens)

  return jax.jit(compute)


def _mean(compute, params, key, batches, repeats: int) -> float:
  """Mean over the real rows of all batches and over `repeats` draws each."""
  total, count = 0.0, 0
  for repeat in range(repeats):
    for i, batch in enumerate(batches):
      key_i = jax.random.fold_in(jax.random.fold_in(key, repeat), i)
      values = np.asarray(compute(params, key_i, batch.tokens), np.float64)
      total += values[batch.real].sum()
      count += int(batch.real.sum())
  return total / count


def likelihood(
  model: Model,
  schedule: Schedule,
  texts: Collection[str],
  tokenizer: Tokenizer,
  length: int,
  options: EvaluateSettings,
  key: jax.Array,
  self_conditioning: bool = True,
) -> dict[str, Any]:
  """Nats per token (all `length` positions): null pass, two passes, carried by steps.

  Equal keys score every model on the same times, masks and trajectories.
  """
  description, params = model
  batches = list(
    pipeline.heldout_batches(
      list(texts)[: options.num_examples],
      tokenizer,
      length=length,
      batch_size=options.batch_size,
    )
  )
  key_nelbo, key_carried = jax.random.split(key)
  conditioned = self_conditioning and description.injection != 'none'
  null = _mean(
    _compiled_nelbo(description, schedule, 1),
    params,
    key_nelbo,
    batches,
    options.repeats,
  )
  two = null
  if conditioned:
    compute = _compiled_nelbo(description, schedule, 2)
    two = _mean(compute, params, key_nelbo, batches, options.repeats)
  carried = {
    str(steps): _mean(
      _compiled_carried(description, schedule, steps, conditioned),
      params,
      key_carried,
      batches,
      1,
    )
    / length
    for steps in options.carried_steps
  }
  return {
    'nelbo_null': null / length,
    'nelbo_two_pass': two / length,
    'carried_elbo': carried,
  }


def _framed(samples: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
  """Samples as the judge reads text: start, visible tokens, end, pads; [N, L + 2].

  Visible tokens and decoded text determine each other, so this is tokenising the
  decoded text anew, except that a stray <unk> stays one token.
  """
  start, end = tokenizer.encode('', 2)
  framed = np.full((len(samples), samples.shape[1] + 2), tokenizer.pad_id, np.int32)
  for row, sample in zip(framed, samples, strict=True):
    visible = sample[~np.isin(sample, tokenizer.invisible_ids)]
    row[: len(visible) + 2] = [start, *visible, end]
  return framed


def generative_perplexity(
  judge: Model, samples: np.ndarray, tokenizer: Tokenizer, batch_size: int
) -> float:
  """exp(mean -log p per token) of `samples` int [N, L] under a causal judge.

  Every token up to and with the end is scored, and tokens, not samples, weigh equally
  (as in MDLM's generative perplexity).
  """
  description, params = judge
  compute = _compiled_judge(description)
  framed = _framed(samples, tokenizer)
  weight = np.asarray(scored(jnp.asarray(framed), int(tokenizer.encode('', 2)[1])))
  total = 0.0
  for first in range(0, len(framed), batch_size):
    batch = framed[first : first + batch_size]
    nll = np.asarray(compute(params, batch), np.float64)
    total += (nll * weight[first : first + batch_size]).sum()
  return float(np.exp(total / weight.sum()))


def judge_samples(
  drawn: Drawn,
  tokenizer: Tokenizer,
  known: Collection[str],
  judge: Model | None,
  batch_size: int,
) -> dict[str, Any]:
  """All measures of a set of samples, by name."""
  texts = [tokenizer.decode(tokens) for tokens in drawn.tokens]
  molecules = judge_molecules(texts, known).to_dict()
  diversity = judge_diversity(drawn.tokens, tokenizer.invisible_ids)
  perplexity = None
  if judge is not None:
    perplexity = generative_perplexity(judge, drawn.tokens, tokenizer, batch_size)
  return {
    'count': molecules['count'],
    'valid': molecules['valid'],
    'valid_rate': molecules['valid_fraction'],
    'unique_rate': molecules['unique_fraction'],
    'novel_rate': molecules['novel_fraction'],
    'valid_canonical_unique_rate': molecules['canonical_unique'] / molecules['count'],
    'canonical_novel_rate': molecules['canonical_novel_fraction'],
    'generative_perplexity': perplexity,
    'entropy': diversity.unigram_entropy,
    'entropy_visible': diversity.unigram_entropy_visible,
    'distinct_4': diversity.distinct_4,
    'evaluations': drawn.evaluations,
  }


def known_texts(settings: Settings) -> frozenset[str]:
  """All texts of the data set, both splits: what novelty is measured against."""
  data = settings.data
  return frozenset(all_texts(data.name, data_directory(data), data.source or None))


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `evaluation.json` and `samples.jsonl`, returns the same figures."""
  tokenizer = get_tokenizer(settings.data.tokenizer)
  x_init = starting_tokens(settings, tokenizer)
  model = load_masked(settings, workdir)
  judge = load_judge(settings, workdir)
  schedule = schedule_of(settings.method)
  key_samples, key_likelihood = jax.random.split(jax.random.key(settings.seed))
  figures: dict[str, Any] = {
    'mode': 'evaluate',
    'checkpoint': settings.checkpoint,
    'num_steps': settings.sample.num_steps,
    'strategy': settings.sample.strategy,
    'noise': settings.sample.noise,
    'temperature': settings.sample.temperature,
    'top_p': settings.sample.top_p,
    'self_conditioning': settings.sample.self_conditioning
    and model[0].injection != 'none',
    'likelihood': likelihood(
      model,
      schedule,
      read_texts(settings.data, 'test'),
      tokenizer,
      settings.data.length,
      settings.evaluate,
      key_likelihood,
      settings.sample.self_conditioning,
    ),
  }
  drawn = draw(*model, schedule, settings.sample, key_samples, x_init)
  write_samples(workdir / 'samples.jsonl', drawn, tokenizer)
  figures['samples'] = judge_samples(
    drawn, tokenizer, known_texts(settings), judge, settings.evaluate.batch_size
  )
  temporary = workdir / 'evaluation.tmp'
  temporary.write_text(json.dumps(figures, indent=2) + '\n')
  temporary.rename(workdir / 'evaluation.json')
  return figures
