"""Measures of generated text beside its entropy and its perplexity."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from scmdm_jax.judges.diversity import distinct_n


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
