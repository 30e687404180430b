"""Text: documents packed into rows; samples are read by a causal judge."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scmdm_jax.data import packing, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import prepared
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.domains.text import measures as judges
from scmdm_jax.domains.text.mauve import judge_mauve
from scmdm_jax.errors import BadInput
from scmdm_jax.runs.opening import Model, load_causal_judge
from scmdm_jax.runs.perplexity import sample_parts, text_features, text_perplexity
from scmdm_jax.settings.options import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """Documents one after the other, cut into rows."""
  folder = prepared.directory(options)
  return packing.packed_rows(
    sources.open_documents(options.name, folder, split, options.source or None),
    tokenizer,
    options.length,
    folder,
    options.frame,
    options.unknown,
  )


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  judge: Model | None,
  batch_size: int,
  real: np.ndarray | None = None,
  seeds: Sequence[int] = (),
) -> dict[str, Any]:
  """Diversity within samples (measures), generative perplexity, and MAUVE if asked.

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
    texts = [sample_parts(sample, tokenizer) for sample in samples]
    found['generative_perplexity'] = text_perplexity(
      judge, texts, batch_size
    ).perplexity
    if real is not None:
      features = text_features(judge, samples, tokenizer, batch_size)
      found |= judge_mauve(features, real[: len(features)], seeds).to_dict()
  return found


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`measures` with its judge and reference read."""
  judge = load_causal_judge(settings, workdir, tokenizer)
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
  return lambda samples: measures(samples, tokenizer, judge, batch, real, seeds)


DOMAIN = Domain(
  'text',
  read_rows,
  judging,
  swept=('generative_perplexity',),
  of_likelihood=lambda nats: {'perplexity': judges.perplexities(nats)},
  framing=lambda data: 'start_end' if data.frame else 'none',
  fields=lambda sample, tokenizer: {'parts': sample_parts(sample, tokenizer)},
)
