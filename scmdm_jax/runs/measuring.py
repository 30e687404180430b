"""The measures of a run's samples: its domain's, with the judge it reads with."""

import pathlib

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import registry
from scmdm_jax.domains.protocol import Measure, Readers
from scmdm_jax.runs import discriminator, judges
from scmdm_jax.settings.options import Settings


def measure_of(
  settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer
) -> Measure:
  """The measures of the run's domain, its judge and reference data read once.

  Raises:
    BadInput: the judge is another kind of model, or not for the run's data.
  """
  domain = registry.of(settings.data)
  causal = domain.judge == 'causal'

  def discriminate(real: np.ndarray, drawn: np.ndarray, epochs: int) -> float | None:
    return discriminator.discriminate(
      real,
      drawn,
      tokenizer.class_ids,
      tokenizer.vocab_size,
      epochs=epochs,
      seed=settings.seed,
    )

  readers = Readers(
    tokenizer,
    judges.load_causal(settings, workdir, tokenizer) if causal else None,
    None if causal else judges.load_classifier(settings, workdir, tokenizer),
    discriminate,
    settings.sample.num_samples,
  )
  return domain.measuring(settings.data, settings.evaluate, readers)
