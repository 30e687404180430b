"""Measures of generated text beside its entropy: perplexity's protocol, repetition.

Generative perplexity as MDLM computes it (kuleshov-group/mdlm, diffusion.py):

- samples are decoded, special tokens included, and tokenised again by the judge, whose
  start and end tokens stand for the samples' own; nothing is put before or behind them,
  but that a judge whose start is not its end begins with it always: such a one has read
  nothing else, and without it reads nonsense;
- what is beyond the judge's length is cut off;
- the first token is given; of the others every one counts that is no such mark, and a
  mark counts where it is the first of the sample (`counted_targets`);
- the mean is over all tokens of all samples, not over samples.

MDLM's samples begin with the end token, which is its start token, too, so that in
effect none counts. Its padding, end tokens as well, then does not count either; here
nothing is padded, so that it never does.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from scmdm_jax.judges.diversity import distinct_n


def parts(
  sample: np.ndarray, frame: Collection[int], decode: Callable[[np.ndarray], str]
) -> list[str]:
  """Texts before, between and behind the marks of a sample; one more than marks.

  Args:
    sample: int `[L]` ids of the model's tokenizer.
    frame: its ids that begin or end a text.
    decode: ids without those -> text.
  """
  cuts = np.flatnonzero(np.isin(sample, list(frame)))
  first, *rest = np.split(sample, cuts)
  return [decode(first), *(decode(part[1:]) for part in rest)]


def reread(
  texts: Sequence[str],
  encode: Callable[[str], np.ndarray],
  start: int | None,
  end: int | None,
) -> np.ndarray:
  """A sample in the judge's tokens, int32 `[N]`.

  Args:
    texts: its `parts`.
    encode: text -> ids of the judge's tokenizer.
    start: what stands for a mark at the very beginning in the judge's tokens; None for
      nothing. Unlike `end`, it is put there anyway.
    end: what stands for one anywhere else; None for nothing.
  """
  first, *rest = texts
  pieces = [encode(first)] if first else []
  if pieces and start not in (None, end):
    pieces.insert(0, np.array([start]))
  for text in rest:
    mark = end if pieces else start
    pieces.append(np.array([] if mark is None else [mark], np.int32))
    if text:
      pieces.append(encode(text))
  return np.concatenate([np.zeros(0, np.int32), *pieces]).astype(np.int32)


def counted_targets(tokens: np.ndarray, marks: Collection[int]) -> np.ndarray:
  """Which of the targets `tokens[1:]` count, bool `[N - 1]`; see the module.

  Args:
    tokens: int `[N]` ids of a sample, as the judge reads it.
    marks: the judge's ids that begin or end a text.
  """
  marked = np.isin(tokens, list(marks))
  # MDLM's own expression is true from the first mark to before the second.
  first_mark = np.cumsum(marked) == 1
  return (first_mark | ~marked)[1:]


def repetition(samples: np.ndarray, n: int = 4, ignored: Collection[int] = ()) -> float:
  """Share of n-grams that the same sample had before, averaged over samples.

  seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319), over the whole sample.

  Args:
    samples: int `[N, L]` token ids.
    n: length of an n-gram, at least 1.
    ignored: ids taken out first; a sample with fewer than `n` tokens left has 0.

  Returns:
    In `[0, 1)`; 0 without samples.
  """
  shares = []
  for row in np.asarray(samples):
    kept = row[~np.isin(row, list(ignored))][None]
    shares.append(1 - distinct_n(kept, n) if kept.shape[1] >= n else 0.0)
  return float(np.mean(shares)) if shares else 0.0


def perplexities(likelihood: Mapping[str, Any]) -> dict[str, Any]:
  """Exp of nats per token, value by value: held-out or zero-shot perplexity.

  All `L` positions of the packed rows count, their frame included, as in MDLM.
  """
  return {
    name: perplexities(value) if isinstance(value, Mapping) else math.exp(value)
    for name, value in likelihood.items()
  }


def judge_text(samples: np.ndarray, invisible_ids: Collection[int]) -> dict[str, float]:
  """Distinct-2 (Li et al. 2016, pooled over samples) and repeated 4-grams, by name."""
  return {
    'distinct_2': distinct_n(samples, 2, invisible_ids),
    'repetition_4': repetition(samples, 4, invisible_ids),
  }
