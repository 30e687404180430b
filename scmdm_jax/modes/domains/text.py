"""Text: documents packed into rows; samples are read by a causal judge."""

import pathlib
from typing import Any

import numpy as np

from scmdm_jax.data import packing, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.judges import text as judges
from scmdm_jax.modes import data
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.modes.models import Judge, load_judge
from scmdm_jax.modes.perplexity import text_perplexity
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
  samples: np.ndarray, tokenizer: Tokenizer, judge: Judge | None, batch_size: int
) -> dict[str, Any]:
  """Diversity within samples (judges/text) and generative perplexity.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    judge: a causal model; None leaves the perplexity None.
    batch_size: of the judge.
  """
  perplexity = None
  if judge is not None:
    perplexity = text_perplexity(judge, samples, tokenizer, batch_size)
  return {
    **judges.judge_text(samples, tokenizer.invisible_ids),
    'generative_perplexity': perplexity,
  }


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`measures` with its judge read."""
  judge = load_judge(settings, workdir, tokenizer)
  batch = settings.evaluate.batch_size
  return lambda samples: measures(samples, tokenizer, judge, batch)


DOMAIN = Domain(
  'text',
  read_rows,
  judging,
  swept=('generative_perplexity',),
  of_likelihood=lambda nats: {'perplexity': judges.perplexities(nats)},
)
