"""Texts as a causal judge reads them: generative perplexity, and features."""

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.text import measures
from scmdm_jax.judges.protocol import CausalJudge, frame_of, start_of


def text_perplexity(
  judge: CausalJudge, samples: np.ndarray, tokenizer: Tokenizer
) -> float:
  """MDLM's generative perplexity of `samples` int [N, L]; protocol in `measures`."""
  texts, marks = _texts(judge, samples, tokenizer), frame_of(judge.tokenizer)
  return judge.score(
    texts,
    length=judge.length,
    stride=judge.length,
    counted=[measures.counted_targets(text, marks) for text in texts],
  ).perplexity


def text_features(
  judge: CausalJudge, samples: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
  """What MAUVE compares, float32 [N, D], one vector for each of `samples` int [N, L].

  A sample is read as in `text_perplexity`. Its vector is the judge's hidden state at
  the last token that is no mark; of a sample of nothing but marks, at the first.
  """
  texts, marks = _texts(judge, samples, tokenizer), frame_of(judge.tokenizer)
  last = np.zeros(len(texts), np.int32)
  for i, text in enumerate(texts):
    inside = np.flatnonzero(~np.isin(text, marks))
    last[i] = inside[-1] if inside.size else 0
  return judge.features(texts, last)


def _texts(
  judge: CausalJudge, samples: np.ndarray, tokenizer: Tokenizer
) -> list[np.ndarray]:
  """Samples in the judge's tokens, as MDLM's protocol wants; see `measures`."""
  own, frame = judge.tokenizer, frame_of(tokenizer)
  start = next(iter(start_of(own)), None)
  texts = (
    measures.reread(sample, frame, tokenizer.decode, own.encode_text, start, own.eos_id)
    for sample in samples
  )
  return [text[: judge.length] for text in texts]
