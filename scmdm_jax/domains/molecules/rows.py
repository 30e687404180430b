"""Rows of molecules: one SMILES each."""

import pathlib
from collections.abc import Sequence

from scmdm_jax.data import pipeline, sources
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.molecules import builder
from scmdm_jax.domains.options import DataSettings


def prepared(data: DataSettings) -> builder.Qm9:
  """The builder of the data set, prepared if need be.

  Raises:
    BadInput: the package is not installed, or an unsuitable source file.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  config = builder.Qm9.BUILDER_CONFIGS[0]
  if data.source:
    config = builder.file_config(pathlib.Path(data.source))
  return sources.prepared(builder.Qm9, config, data.folder)


def smiles(data: DataSettings, split: str) -> Sequence[str]:
  """The SMILES of a split, in its order; errors as `prepared`, or no such split."""
  found = prepared(data)
  sources.count(found, data.name, split)
  return tuple(sources.texts(found, split, builder.TEXT_COLUMN))


def all_smiles(data: DataSettings) -> Sequence[str]:
  """The SMILES of all splits, train first: what novelty is measured against."""
  return (*smiles(data, 'train'), *smiles(data, 'test'))


def read_rows(data: DataSettings, tokenizer: Tokenizer, split: str) -> pipeline.Encoded:
  """One molecule per row, int32 `[L]`."""
  return pipeline.Encoded(smiles(data, split), tokenizer, data.length)
