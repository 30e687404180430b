"""Options that only genomes have."""

import dataclasses

from scmdm_jax.domains.options import DataSettings
from scmdm_jax.settings.rules import at_least, plain


@dataclasses.dataclass(frozen=True)
class GenomeSettings(DataSettings):
  """How genomes are cut."""

  chunk_limit: int = at_least(
    0, 0, 'Genomes: most stretches of a species, drawn once, of both splits; 0: all.'
  )
  reverse_complement: bool = plain(
    False, 'Genomes: every epoch has each training stretch on its other strand, too.'
  )


@dataclasses.dataclass(frozen=True)
class GenomeEvaluation:
  """What is measured on genomes alone."""

  discriminator_epochs: int = at_least(
    5,
    0,
    (
      'Genomes: epochs of a network trained to distinguish samples from '
      'real stretches, as published 5; 0: none.'
    ),
  )
  context_stretches: int = at_least(
    0,
    0,
    'Genomes: bits of samples under a model that counts, in so many of the training '
    'stretches, which base follows which; 0: none.',
  )
