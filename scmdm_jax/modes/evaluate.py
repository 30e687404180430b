"""`--mode=evaluate`: held-out likelihood three ways, and samples before the judges.

checkpoint -> likelihood (null, two-pass, carried) ---> workdir/evaluation.json
           -> samples -> the measures of the domain, causal judge --^
"""

import functools
import json
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.data import pipeline
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.likelihood import carried_elbo, nelbo
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.judges import text
from scmdm_jax.judges.autoregressive import causal_nll, score
from scmdm_jax.judges.diversity import judge_diversity
from scmdm_jax.judges.molecules import judge_molecules
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.modes import data
from scmdm_jax.modes.models import (
  Judge,
  load_judge,
  load_masked,
  mesh_of,
  place,
  run_tokenizer,
)
from scmdm_jax.modes.sample import Drawn, draw, starting_tokens, write_samples
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel import multihost
from scmdm_jax.settings import EvaluateSettings, Settings, schedule_of

Model = tuple[ModelDescription, Any]


@functools.cache
def _compiled_nelbo(
  description: ModelDescription, schedule: Schedule, passes: int, mesh: Mesh
):
  assert description.mask_id is not None
  mask_id = description.mask_id

  def compute(params, key, tokens):
    return nelbo(
      key,
      denoiser.bind(params, description, execution=meshes.execution(mesh)),
      tokens,
      schedule=schedule,
      mask_id=mask_id,
      passes=passes,
    )

  return jax.jit(compute, out_shardings=meshes.replicated(mesh))


@functools.cache
def _compiled_carried(
  description: ModelDescription,
  schedule: Schedule,
  steps: int,
  self_condition: bool,
  mesh: Mesh,
):
  assert description.mask_id is not None
  mask_id = description.mask_id

  def compute(params, key, tokens):
    return carried_elbo(
      key,
      denoiser.bind(params, description, execution=meshes.execution(mesh)),
      tokens,
      schedule=schedule,
      mask_id=mask_id,
      num_steps=steps,
      self_condition=self_condition,
    )

  return jax.jit(compute, out_shardings=meshes.replicated(mesh))


@functools.cache
def compiled_nll(description: ModelDescription):
  """`causal_nll` of a judge: (parameters, tokens int32 [B, L]) -> nats [B, L - 1]."""

  def compute(params, tokens):
    return causal_nll(denoiser.bind(params, description), tokens)

  return jax.jit(compute)


def scorer(judge: Judge) -> Callable[[np.ndarray], jax.Array]:
  """`causal_nll` of a judge: tokens int32 [B, L] -> nats [B, L - 1].

  Raises, when called:
    Stopped: by SIGTERM, before the batch.
  """
  compute = compiled_nll(judge.description)

  def nll(tokens: np.ndarray) -> jax.Array:
    multihost.leave_if_asked('judging')
    return compute(judge.params, tokens)

  return nll


def _mean(compute, params, key, batches, repeats: int) -> float:
  """Mean over the real rows of all batches and over `repeats` draws each."""
  total, count = 0.0, 0
  for repeat in range(repeats):
    for i, batch in enumerate(batches):
      multihost.leave_if_asked('evaluation')
      key_i = jax.random.fold_in(jax.random.fold_in(key, repeat), i)
      found = multihost.gathered(compute(params, key_i, batch.tokens))
      values = np.asarray(found, np.float64)
      total += values[batch.real].sum()
      count += int(batch.real.sum())
  return total / count


def likelihood(
  model: Model,
  schedule: Schedule,
  rows: Rows,
  options: EvaluateSettings,
  key: jax.Array,
  mesh: Mesh,
  self_conditioning: bool = True,
) -> dict[str, Any]:
  """Nats per token (all `L` positions): null pass, two passes, carried by steps.

  Equal keys score every model on the same times, masks and trajectories.
  """
  description, params = model[0], place(model[1], mesh, 'float32')
  meshes.check_batch('evaluate.batch_size', options.batch_size, mesh)
  used = [rows[i] for i in range(min(options.num_examples, len(rows)))]
  batches = [
    batch._replace(tokens=meshes.place_rows(mesh, batch.tokens))
    for batch in pipeline.heldout_batches(used, batch_size=options.batch_size)
  ]
  length = used[0].size
  key_nelbo, key_carried = jax.random.split(key)
  conditioned = self_conditioning and description.injection != 'none'
  null = _mean(
    _compiled_nelbo(description, schedule, 1, mesh),
    params,
    key_nelbo,
    batches,
    options.repeats,
  )
  two = null
  if conditioned:
    compute = _compiled_nelbo(description, schedule, 2, mesh)
    two = _mean(compute, params, key_nelbo, batches, options.repeats)
  carried = {
    str(steps): _mean(
      _compiled_carried(description, schedule, steps, conditioned, mesh),
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


def _framed(samples: np.ndarray, tokenizer: Tokenizer) -> list[list[int]]:
  """Samples [N, L] as a judge with the same tokenizer reads text.

  Start, visible tokens, end, as far as the tokenizer has a start and an end. Visible
  tokens and decoded text determine each other, so this is tokenising the decoded text
  anew, except that a stray <unk> stays one token.
  """
  start = start_of(tokenizer)
  end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
  visible = [row[~np.isin(row, tokenizer.invisible_ids)] for row in samples]
  return [[*start, *row.tolist(), *end] for row in visible]


def start_of(tokenizer: Tokenizer) -> list[int]:
  """The token before a text, if any: start, or the end of what came before."""
  start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
  return [] if start is None else [start]


def _reread(samples: np.ndarray, tokenizer: Tokenizer, judge: Judge) -> list[list[int]]:
  """Samples [N, L] as text in the judge's tokens, at most as many as it reads.

  A sample may hold several documents: each that its end token closes is closed by the
  judge's own, so that the judge is asked about ends, too. What lies beyond the judge's
  length is cut off, as in MDLM's generative perplexity.
  """
  own = judge.tokenizer
  end = [] if own.eos_id is None else [own.eos_id]
  limit = judge.description.architecture.length
  frame = [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None]
  rows = []
  for sample in samples:
    ends = np.flatnonzero(np.isin(sample, frame))
    *closed, last = (tokenizer.decode(part) for part in np.split(sample, ends))
    row = start_of(own)
    for part in filter(None, closed):
      row += [*own.encode_text(part).tolist(), *end]
    row += own.encode_text(last).tolist() if last else []
    rows.append(row[:limit] if len(row) > 1 else [*row, *end])
  return rows


def generative_perplexity(
  judge: Judge, samples: np.ndarray, tokenizer: Tokenizer, batch_size: int
) -> float:
  """exp(mean -log p per token) of `samples` int [N, L] under a causal judge.

  A judge with another tokenizer reads the samples' text. The first token is given, and
  tokens, not samples, weigh equally (as in MDLM's generative perplexity).
  """
  if judge.tokenizer.fingerprint == tokenizer.fingerprint:
    rows, length = _framed(samples, tokenizer), samples.shape[1] + 1
  else:
    rows = _reread(samples, tokenizer, judge)
    length = judge.description.architecture.length
  return score(
    scorer(judge),
    [np.array(row, np.int32) for row in rows],
    length=length,
    stride=length,
    batch_size=batch_size,
  ).perplexity


def text_perplexity(
  judge: Judge, samples: np.ndarray, tokenizer: Tokenizer, batch_size: int
) -> float:
  """MDLM's generative perplexity of `samples` int [N, L]; protocol in judges/text."""
  own = judge.tokenizer
  limit = judge.description.architecture.length
  frame = [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None]
  rows = [
    text.reread(sample, frame, tokenizer.decode, own.encode_text, own.eos_id)[:limit]
    for sample in samples
  ]
  return score(
    functools.partial(compiled_nll(judge.description), judge.params),
    rows,
    length=limit,
    stride=limit,
    batch_size=batch_size,
    counted=[text.counted_targets(row, own.eos_id) for row in rows],
  ).perplexity


def perplexity_of(domain: str) -> Callable[[Judge, np.ndarray, Tokenizer, int], float]:
  """The protocol of generative perplexity in a domain."""
  return generative_perplexity if domain == 'molecules' else text_perplexity


def _judge_molecules(
  drawn: Drawn, tokenizer: Tokenizer, known: Collection[str]
) -> dict[str, Any]:
  texts = [tokenizer.decode(tokens) for tokens in drawn.tokens]
  molecules = judge_molecules(texts, known).to_dict()
  return {
    'valid': molecules['valid'],
    'valid_rate': molecules['valid_fraction'],
    'unique_rate': molecules['unique_fraction'],
    'novel_rate': molecules['novel_fraction'],
    'valid_canonical_unique_rate': molecules['canonical_unique'] / molecules['count'],
    'canonical_novel_rate': molecules['canonical_novel_fraction'],
  }


def judge_samples(
  domain: str,
  drawn: Drawn,
  tokenizer: Tokenizer,
  known: Collection[str],
  judge: Judge | None,
  batch_size: int,
) -> dict[str, Any]:
  """All measures of a set of samples of a domain, by name."""
  if domain == 'molecules':
    measures = _judge_molecules(drawn, tokenizer, known)
  else:
    measures = text.judge_text(drawn.tokens, tokenizer.invisible_ids)
  diversity = judge_diversity(drawn.tokens, tokenizer.invisible_ids)
  perplexity = None
  if judge is not None:
    measure = perplexity_of(domain)
    perplexity = measure(judge, drawn.tokens, tokenizer, batch_size)
  return {
    'count': len(drawn.tokens),
    **measures,
    'generative_perplexity': perplexity,
    'entropy': diversity.unigram_entropy,
    'entropy_visible': diversity.unigram_entropy_visible,
    'distinct_4': diversity.distinct_4,
    'evaluations': drawn.evaluations,
  }


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `evaluation.json` and `samples.jsonl`, returns the same figures."""
  tokenizer = run_tokenizer(settings, workdir)
  x_init = starting_tokens(settings, tokenizer)
  model = load_masked(settings, workdir, tokenizer)
  judge = load_judge(settings, workdir, tokenizer)
  schedule, mesh = schedule_of(settings.method), mesh_of(settings)
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
      data.read_rows(settings.data, tokenizer, 'test'),
      settings.evaluate,
      key_likelihood,
      mesh,
      settings.sample.self_conditioning,
    ),
  }
  if data.domain(settings.data) == 'text':
    figures['perplexity'] = text.perplexities(figures['likelihood'])
  drawn = draw(*model, schedule, settings.sample, key_samples, x_init, mesh)
  write_samples(workdir / 'samples.jsonl', drawn, tokenizer)
  figures['samples'] = judge_samples(
    data.domain(settings.data),
    drawn,
    tokenizer,
    data.known_texts(settings.data),
    judge,
    settings.evaluate.batch_size,
  )
  if multihost.index() == 0:
    temporary = workdir / 'evaluation.tmp'
    temporary.write_text(json.dumps(figures, indent=2) + '\n')
    temporary.rename(workdir / 'evaluation.json')
  return figures
