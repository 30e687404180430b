"""Molecules as a causal judge reads them: generative perplexity."""

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.judges.protocol import CausalJudge, frame_of, start_of


def generative_perplexity(
  judge: CausalJudge, samples: np.ndarray, tokenizer: Tokenizer
) -> float:
  """exp(mean -log p per token) of `samples` int [N, L] under a causal judge.

  A judge with another tokenizer reads the samples' text. The first token is given, and
  tokens, not samples, weigh equally (as in MDLM's generative perplexity).
  """
  if judge.tokenizer.fingerprint == tokenizer.fingerprint:
    rows, length = _framed(samples, tokenizer), samples.shape[1] + 1
  else:
    rows, length = _reread(samples, tokenizer, judge), judge.length
  texts = [np.array(row, np.int32) for row in rows]
  return judge.score(texts, length=length, stride=length).perplexity


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


def _reread(
  samples: np.ndarray, tokenizer: Tokenizer, judge: CausalJudge
) -> list[list[int]]:
  """Samples [N, L] as text in the judge's tokens, at most as many as it reads.

  A sample may hold several documents: each that its end token closes is closed by the
  judge's own, so that the judge is asked about ends, too. What lies beyond the judge's
  length is cut off, as in MDLM's generative perplexity.
  """
  own = judge.tokenizer
  end = [] if own.eos_id is None else [own.eos_id]
  frame = frame_of(tokenizer)
  rows = []
  for sample in samples:
    ends = np.flatnonzero(np.isin(sample, frame))
    *closed, last = (tokenizer.decode(part) for part in np.split(sample, ends))
    row = start_of(own)
    for part in filter(None, closed):
      row += [*own.encode_text(part).tolist(), *end]
    row += own.encode_text(last).tolist() if last else []
    rows.append(row[: judge.length] if len(row) > 1 else [*row, *end])
  return rows
