"""Text: documents packed into rows; samples are read by a causal judge."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scmdm_jax.data import pipeline
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.protocol import BuiltIn, Domain, Figure, Measure, Readers
from scmdm_jax.domains.text import builder, chat
from scmdm_jax.domains.text import measures as judges
from scmdm_jax.domains.text.mauve import judge_mauve
from scmdm_jax.domains.text.options import TextEvaluation, TextSettings
from scmdm_jax.domains.text.rows import LEARNT, learnt_tokenizer, read_rows
from scmdm_jax.domains.text.tokenizer import TEXT8
from scmdm_jax.errors import BadInput
from scmdm_jax.judges import ngrams
from scmdm_jax.judges.protocol import CausalJudge
from scmdm_jax.judges.reading import sample_parts, text_features, text_perplexity

FIGURES = {
  'generative_perplexity': Figure('generative perplexity', 'lower', quality=True),
  'mauve': Figure('MAUVE', 'higher', quality=True),
  'mauve_smoothed': Figure('MAUVE, smoothed', 'higher'),
  'distinct_2': Figure('distinct-2'),
  'repetition_4': Figure('repeated 4-grams'),
  'ngram_bits': Figure('n-gram bits', 'lower'),
  'word_rate': Figure('known words', 'higher'),
  'ngram_bits_real': Figure('n-gram bits, real'),
  'word_rate_real': Figure('known words, real'),
}


def check_settings(data: TextSettings, evaluation: TextEvaluation, judge: str) -> None:
  """Refuses too few pieces, and MAUVE without anybody to read it."""
  size = data.tokenizer.removeprefix(LEARNT)
  if data.tokenizer.startswith(LEARNT) and not (
    size.isdecimal() and 300 <= int(size) <= 1_000_000
  ):
    raise BadInput(
      f'data.tokenizer: found {data.tokenizer!r} with data.name = {data.name!r}; '
      'wanted a number of pieces from 300, as in sentencepiece:1024'
    )
  if evaluation.mauve_seeds and not judge:
    raise BadInput(
      f'evaluate.mauve_seeds: found {evaluation.mauve_seeds} with data.name = '
      f'{data.name!r} and judge = {judge!r}; wanted a judge that reads texts, or 0'
    )


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  judge: CausalJudge | None,
  real: np.ndarray | None = None,
  seeds: Sequence[int] = (),
) -> dict[str, Any]:
  """Diversity within samples (measures), generative perplexity, and MAUVE if asked.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    judge: a causal model; None leaves the perplexity None.
    real: float [M, D], `text_features` of real rows: MAUVE's reference, with as many of
      them as there are samples; None leaves MAUVE out.
    seeds: of its k-means.
  """
  found: dict[str, Any] = judges.judge_text(samples, tokenizer.invisible_ids)
  found['generative_perplexity'] = None
  if judge is not None:
    texts = [sample_parts(sample, tokenizer) for sample in samples]
    found['generative_perplexity'] = text_perplexity(judge, texts).perplexity
    if real is not None:
      features = text_features(judge, samples, tokenizer)
      found |= judge_mauve(features, real[: len(features)], seeds).to_dict()
  return found


def measuring(
  data: TextSettings, evaluation: TextEvaluation, readers: Readers
) -> Measure:
  """`measures` with its reference read."""
  judge, tokenizer = readers.causal, readers.tokenizer
  seeds = range(evaluation.mauve_seeds)
  real = None
  if judge is not None and seeds:
    rows = read_rows(data, tokenizer, 'test')
    count = min(readers.num_samples, len(rows))
    if count < 2:
      raise BadInput(
        f'evaluate.mauve_seeds: found {len(seeds)} with {len(rows)} held-out rows and '
        f'{readers.num_samples} samples; wanted at least 2 of each'
      )
    real = text_features(judge, np.stack([rows[i] for i in range(count)]), tokenizer)
  counted = _counting(data, evaluation, tokenizer)
  return lambda samples: (
    measures(samples, tokenizer, judge, real, seeds) | counted(samples)
  )


def _counting(data: TextSettings, evaluation: Any, tokenizer: Tokenizer) -> Measure:
  """Bits of an n-gram model and known words, with those of held-out rows beside.

  Raises:
    BadInput: stretches of that many tokens are too many to count.
  """
  order = evaluation.ngram_order
  if not order:
    return lambda samples: {}
  if not ngrams.fits(tokenizer.vocab_size, order):
    raise BadInput(
      f'evaluate.ngram_order: found {order} with a vocabulary of '
      f'{tokenizer.vocab_size}; wanted their power below 2**63'
    )
  rows = read_rows(data, tokenizer, 'train')
  count = min(len(rows), evaluation.ngram_tokens // data.length)
  stream = np.concatenate([rows[i] for i in range(count)])
  model = ngrams.NGrams(stream, tokenizer.vocab_size, order)
  known = frozenset(tokenizer.decode(stream).split())
  heldout = pipeline.spread(read_rows(data, tokenizer, 'test'), evaluation.num_examples)

  def count_in(samples: np.ndarray) -> dict[str, float]:
    texts = [tokenizer.decode(tokens) for tokens in samples]
    return {
      'ngram_bits': model.bits(samples),
      'word_rate': ngrams.word_rate(texts, known),
    }

  real = {f'{name}_real': x for name, x in count_in(np.stack(heldout)).items()}
  return lambda samples: count_in(samples) | real


DOMAIN = Domain(
  name='text',
  data_sets=tuple(builder.SETS),
  settings=TextSettings,
  tokenizers=(
    BuiltIn(TEXT8.name, lambda name: name == TEXT8.name, lambda _: TEXT8, shared=True),
    BuiltIn(f'{LEARNT}PIECES', lambda name: name.startswith(LEARNT), None),
  ),
  judge='causal',
  read_rows=read_rows,
  measuring=measuring,
  figures=FIGURES,
  swept=('generative_perplexity', 'ngram_bits', 'word_rate', 'distinct_4'),
  evaluation=TextEvaluation,
  check_settings=check_settings,
  made_tokenizer=learnt_tokenizer,
  of_likelihood=lambda nats: {'perplexity': judges.perplexities(nats)},
  framing=lambda data: (
    'start_end' if data.frame and data.name != builder.CHAT else 'none'
  ),
  fields=lambda sample, tokenizer: {'parts': sample_parts(sample, tokenizer)},
  converse=chat.converse,
)
