"""Text: documents packed into rows; samples are read by a causal judge."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scmdm_jax.data import packing, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.judges import ngrams
from scmdm_jax.judges import text as judges
from scmdm_jax.judges.mauve import judge_mauve
from scmdm_jax.modes import data
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.modes.models import Judge, load_judge
from scmdm_jax.modes.perplexity import text_features, text_perplexity
from scmdm_jax.settings import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """Documents one after the other, cut into rows."""
  folder = data.directory(options)
  return packing.packed_rows(
    sources.open_documents(options.name, folder, split, options.source or None),
    tokenizer,
    options.length,
    folder,
    options.frame,
  )


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  judge: Judge | None,
  batch_size: int,
  real: np.ndarray | None = None,
  seeds: Sequence[int] = (),
) -> dict[str, Any]:
  """Diversity within samples (judges/text), generative perplexity, and MAUVE if asked.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    judge: a causal model; None leaves the perplexity None.
    batch_size: of the judge.
    real: float [M, D], `text_features` of real rows: MAUVE's reference, with as many of
      them as there are samples; None leaves MAUVE out.
    seeds: of its k-means.
  """
  found: dict[str, Any] = judges.judge_text(samples, tokenizer.invisible_ids)
  found['generative_perplexity'] = None
  if judge is not None:
    found['generative_perplexity'] = text_perplexity(
      judge, samples, tokenizer, batch_size
    )
    if real is not None:
      features = text_features(judge, samples, tokenizer, batch_size)
      found |= judge_mauve(features, real[: len(features)], seeds).to_dict()
  return found


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`measures` with its judge and reference read."""
  judge = load_judge(settings, workdir, tokenizer)
  batch, seeds = settings.evaluate.batch_size, range(settings.evaluate.mauve_seeds)
  real = None
  if judge is not None and seeds:
    rows = read_rows(settings.data, tokenizer, 'test')
    count = min(settings.sample.num_samples, len(rows))
    if count < 2:
      raise BadInput(
        f'evaluate.mauve_seeds: found {len(seeds)} with {len(rows)} held-out rows and '
        f'{settings.sample.num_samples} samples; wanted at least 2 of each'
      )
    used = np.stack([rows[i] for i in range(count)])
    real = text_features(judge, used, tokenizer, batch)
  counted = _counting(settings, tokenizer)
  return lambda samples: (
    measures(samples, tokenizer, judge, batch, real, seeds) | counted(samples)
  )


def _counting(settings: Settings, tokenizer: Tokenizer) -> Measure:
  """Bits of an n-gram model and known words, with those of held-out rows beside.

  Raises:
    BadInput: stretches of that many tokens are too many to count.
  """
  options = settings.evaluate
  if not options.ngram_order:
    return lambda samples: {}
  if not ngrams.fits(tokenizer.vocab_size, options.ngram_order):
    raise BadInput(
      f'evaluate.ngram_order: found {options.ngram_order} with a vocabulary of '
      f'{tokenizer.vocab_size}; wanted their power below 2**63'
    )
  rows = read_rows(settings.data, tokenizer, 'train')
  count = min(len(rows), options.ngram_tokens // settings.data.length)
  stream = np.concatenate([rows[i] for i in range(count)])
  model = ngrams.NGrams(stream, tokenizer.vocab_size, options.ngram_order)
  known = frozenset(tokenizer.decode(stream).split())
  heldout = read_rows(settings.data, tokenizer, 'test')
  # Of all documents: neighbouring rows are of one.
  count = min(len(heldout), options.num_examples)
  heldout = [heldout[i * len(heldout) // count] for i in range(count)]

  def count_in(samples: np.ndarray) -> dict[str, float]:
    texts = [tokenizer.decode(tokens) for tokens in samples]
    return {
      'ngram_bits': model.bits(samples),
      'word_rate': ngrams.word_rate(texts, known),
    }

  real = {f'{name}_real': x for name, x in count_in(np.stack(heldout)).items()}
  return lambda samples: count_in(samples) | real


DOMAIN = Domain(
  'text',
  read_rows,
  judging,
  swept=('generative_perplexity', 'ngram_bits', 'word_rate'),
  of_likelihood=lambda nats: {'perplexity': judges.perplexities(nats)},
)
