"""Genomes: an example is a species and a stretch of bases."""

import pathlib

from scmdm_jax.data import genome_rows
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import SpeciesTokenizer, Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.modes import data
from scmdm_jax.modes.domains.protocol import Domain, Measure
from scmdm_jax.settings import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """A class and a stretch per row; the other strand, too, where one trains on it."""
  if not isinstance(tokenizer, SpeciesTokenizer):
    raise BadInput(
      f'data.tokenizer: found {tokenizer.name!r} with data.name = {options.name!r}; '
      "wanted 'species:COUNT', as in species:9"
    )
  return genome_rows.open_rows(
    options.name,
    data.directory(options),
    split,
    options.source,
    tokenizer,
    options.length,
    options.chunk_limit,
    options.reverse_complement and split == 'train',
  )


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """Not yet."""
  raise NotImplementedError


DOMAIN = Domain('genomes', read_rows, judging, swept=())
