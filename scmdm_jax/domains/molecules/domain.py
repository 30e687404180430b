"""Molecules: an example is a SMILES string; samples are read by RDKit and a judge."""

import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from scmdm_jax.data import pipeline, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import prepared
from scmdm_jax.domains.molecules.measures import judge_molecules
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.runs.opening import Model, load_causal_judge
from scmdm_jax.runs.perplexity import generative_perplexity
from scmdm_jax.settings.options import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """One molecule per row."""
  texts = sources.open_split(
    options.name, prepared.directory(options), split, options.source or None
  )
  return pipeline.Encoded(texts, tokenizer, options.length)


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  known: Collection[str],
  judge: Model | None,
  batch_size: int,
) -> dict[str, Any]:
  """Validity, uniqueness, novelty (measures) and generative perplexity.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    known: all molecules of both splits: what is new is not among them.
    judge: a causal model; None leaves the perplexity None.
    batch_size: of the judge.
  """
  texts = [tokenizer.decode(tokens) for tokens in samples]
  found = judge_molecules(texts, known).to_dict()
  perplexity = None
  if judge is not None:
    perplexity = generative_perplexity(judge, samples, tokenizer, batch_size)
  return {
    'valid': found['valid'],
    'valid_rate': found['valid_fraction'],
    'unique_rate': found['unique_fraction'],
    'novel_rate': found['novel_fraction'],
    'valid_canonical_unique_rate': found['canonical_unique'] / found['count'],
    'canonical_novel_rate': found['canonical_novel_fraction'],
    'generative_perplexity': perplexity,
  }


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`measures` with what it needs read."""
  options = settings.data
  judge = load_causal_judge(settings, workdir, tokenizer)
  known = frozenset(
    sources.all_texts(options.name, prepared.directory(options), options.source or None)
  )
  batch = settings.evaluate.batch_size
  return lambda samples: measures(samples, tokenizer, known, judge, batch)


DOMAIN = Domain(
  'molecules', read_rows, judging, swept=('generative_perplexity', 'valid_rate')
)
