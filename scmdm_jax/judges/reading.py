"""Samples of text as a causal judge reads them: perplexity, and features.

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

from collections.abc import Callable, Collection, Sequence

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.judges.protocol import CausalJudge, frame_of, start_of
from scmdm_jax.judges.windows import Score


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


def sample_parts(sample: np.ndarray, tokenizer: Tokenizer) -> list[str]:
  """Texts before, between and behind the marks of a sample int [L]."""
  return parts(sample, frame_of(tokenizer), tokenizer.decode)


def text_perplexity(judge: CausalJudge, samples: Sequence[Sequence[str]]) -> Score:
  """MDLM's generative perplexity of samples; see the module.

  Args:
    judge: a causal model.
    samples: the `sample_parts` of each.
  """
  texts, marks = reread_all(judge, samples), frame_of(judge.tokenizer)
  return judge.score(
    texts,
    length=judge.length,
    stride=judge.length,
    counted=[counted_targets(text, marks) for text in texts],
  )


def text_features(
  judge: CausalJudge, samples: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
  """What MAUVE compares, float32 [N, D], one vector for each of `samples` int [N, L].

  A sample is read as in `text_perplexity`. Its vector is the judge's hidden state at
  the last token that is no mark; of a sample of nothing but marks, at the first.
  """
  texts = reread_all(judge, [sample_parts(sample, tokenizer) for sample in samples])
  marks = frame_of(judge.tokenizer)
  last = np.zeros(len(texts), np.int32)
  for i, text in enumerate(texts):
    inside = np.flatnonzero(~np.isin(text, marks))
    last[i] = inside[-1] if inside.size else 0
  return judge.features(texts, last)


def reread_all(
  judge: CausalJudge, samples: Sequence[Sequence[str]]
) -> list[np.ndarray]:
  """Samples, by their parts, in the judge's tokens, at most as many as it reads."""
  own = judge.tokenizer
  start = next(iter(start_of(own)), None)
  return [
    reread(texts, own.encode_text, start, own.eos_id)[: judge.length]
    for texts in samples
  ]
