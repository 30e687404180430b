"""Samples as a causal judge reads them: generative perplexity, and features of text."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.text import measures
from scmdm_jax.domains.text.mauve import last_hidden
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost
from scmdm_jax.runs.opening import Model
from scmdm_jax.runs.windows import Score, score
from scmdm_jax.training.losses import causal_nll


@functools.cache
def compiled_nll(description: ModelDescription):
  """`causal_nll` of a judge: (parameters, tokens int32 [B, L]) -> nats [B, L - 1]."""

  def compute(params, tokens):
    return causal_nll(denoiser.bind(params, description), tokens)

  return jax.jit(compute)


@functools.cache
def compiled_features(description: ModelDescription):
  """`last_hidden` of a judge: (parameters, int32 [B, L], int32 [B]) -> [B, D]."""

  def compute(params, tokens, last):
    return last_hidden(denoiser.bind(params, description), tokens, last)

  return jax.jit(compute)


def scorer(judge: Model) -> Callable[[np.ndarray], jax.Array]:
  """`causal_nll` of a judge: tokens int32 [B, L] -> nats [B, L - 1].

  Raises, when called:
    Stopped: by SIGTERM, before the batch.
  """
  compute = compiled_nll(judge.description)

  def nll(tokens: np.ndarray) -> jax.Array:
    multihost.leave_if_asked('judging')
    return compute(judge.params, tokens)

  return nll


def _framed(samples: np.ndarray, tokenizer: Tokenizer) -> list[list[int]]:
  """Samples [N, L] as a judge with the same tokenizer reads text.

  Start, visible tokens, end, as far as the tokenizer has a start and an end. Visible
  tokens and decoded text determine each other, so this is tokenising the decoded text
  again, except that a stray <unk> stays one token.
  """
  start = start_of(tokenizer)
  end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
  visible = [row[~np.isin(row, tokenizer.invisible_ids)] for row in samples]
  return [[*start, *row.tolist(), *end] for row in visible]


def start_of(tokenizer: Tokenizer) -> list[int]:
  """The token before a text, if any: start, or the end of what came before."""
  start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
  return [] if start is None else [start]


def _reread(samples: np.ndarray, tokenizer: Tokenizer, judge: Model) -> list[list[int]]:
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
  judge: Model, samples: np.ndarray, tokenizer: Tokenizer, batch_size: int
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


def sample_parts(sample: np.ndarray, tokenizer: Tokenizer) -> list[str]:
  """Texts before, between and behind the marks of a sample int [L]."""
  return measures.parts(sample, _frame(tokenizer), tokenizer.decode)


def text_perplexity(
  judge: Model, samples: Sequence[Sequence[str]], batch_size: int
) -> Score:
  """MDLM's generative perplexity of samples; its protocol is in domains/text/measures.

  Args:
    judge: a causal model.
    samples: the `sample_parts` of each.
    batch_size: samples at a time.
  """
  limit = judge.description.architecture.length
  rows = reread(judge, samples)
  return score(
    scorer(judge),
    rows,
    length=limit,
    stride=limit,
    batch_size=batch_size,
    counted=[measures.counted_targets(row, _frame(judge.tokenizer)) for row in rows],
  )


def text_features(
  judge: Model, samples: np.ndarray, tokenizer: Tokenizer, batch_size: int
) -> np.ndarray:
  """What MAUVE compares, float32 [N, D], one vector for each of `samples` int [N, L].

  A sample is read as in `text_perplexity`. Its vector is the judge's hidden state at
  the last token that is no mark; of a sample of nothing but marks, at the first.
  """
  rows = reread(judge, [sample_parts(sample, tokenizer) for sample in samples])
  limit = judge.description.architecture.length
  width = min(-(-max(len(row) for row in rows) // 64) * 64, limit)
  last = np.zeros(len(rows), np.int32)
  tokens = np.zeros((len(rows), width), np.int32)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    inside = np.flatnonzero(~np.isin(row, _frame(judge.tokenizer)))
    last[i] = inside[-1] if inside.size else 0
  compute = compiled_features(judge.description)
  found = []
  # The last batch repeats its last row, so that all have one shape.
  for first in range(0, len(rows), batch_size):
    multihost.leave_if_asked('judging')
    chosen = np.minimum(np.arange(first, first + batch_size), len(rows) - 1)
    hidden = compute(judge.params, tokens[chosen], last[chosen])
    found.append(np.asarray(hidden)[: len(rows) - first])
  return np.concatenate(found)


def _frame(tokenizer: Tokenizer) -> list[int]:
  """Ids that begin or end a text, as far as there are any."""
  return [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None]


def reread(judge: Model, samples: Sequence[Sequence[str]]) -> list[np.ndarray]:
  """Samples, by their parts, in the judge's tokens, at most as many as it reads."""
  own, limit = judge.tokenizer, judge.description.architecture.length
  start = next(iter(start_of(own)), None)
  return [
    measures.reread(parts, own.encode_text, start, own.eos_id)[:limit]
    for parts in samples
  ]
