"""Rows of genomes: the class of a species, then a stretch of its bases."""

import pathlib
from typing import Any

import numpy as np

from scmdm_jax.data import sources
from scmdm_jax.domains.genomes import builder
from scmdm_jax.domains.genomes.options import GenomeSettings
from scmdm_jax.domains.genomes.tokenizer import SpeciesTokenizer
from scmdm_jax.errors import BadInput

_SEED = 42


class GenomeRows:
  """Random access to the stretches of a split, int32 `[L]` each, on disk.

  They come in a random order that is always the same, so that the first ones are of all
  species. With `reverse_complement` there are twice as many: row N + i is row i read on
  the other strand.

  Args:
    records: TFDS's data source of the split.
    directory: where it lies, for messages.
    tokenizer: has a class for every species.
    reverse_complement: see above.
  """

  def __init__(
    self,
    records: Any,
    directory: pathlib.Path,
    tokenizer: SpeciesTokenizer,
    reverse_complement: bool = False,
  ):
    self._records = records
    self._directory = directory
    self._tokenizer = tokenizer
    self._order = np.random.default_rng(_SEED).permutation(len(records))
    self._strands = 2 if reverse_complement else 1

  def __len__(self) -> int:
    return self._strands * len(self._order)

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    strand, number = divmod(int(index), len(self._order))
    with sources.damage_named(self._directory):
      record = self._records[int(self._order[number])]
      text = record[builder.SEQUENCE]
      # array_record gives None for what lies behind the end of a truncated file.
      if text is None:
        raise ValueError(f'record {number} is missing')
      species = int(record[builder.SPECIES])
    row = self._tokenizer.row(species, text)
    return self._tokenizer.reverse_complement(row) if strand else row


def open_rows(
  data: GenomeSettings, tokenizer: SpeciesTokenizer, split: str
) -> GenomeRows:
  """The rows of one split; prepares them if need be.

  Args:
    data: `length` is that of a class and its bases; of the training split
      `reverse_complement` adds the other strand.
    tokenizer: of the run.
    split: 'train' or 'test'.

  Raises:
    BadInput: an unsuitable source, or not as many species as the tokenizer has classes.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  config = builder.config_of(data.name, data.source, data.length - 1, data.chunk_limit)
  classes = len(tokenizer.class_ids)
  if len(config.species) != classes:
    raise BadInput(
      f'data.tokenizer: {tokenizer.name} has {classes} classes; wanted '
      f'species:{len(config.species)}, for {", ".join(config.species)}'
    )
  found = sources.prepared(builder.Genomes, config, data.folder)
  directory = pathlib.Path(found.data_dir)
  with sources.damage_named(directory):
    # TFDS's decorator hides the method's parameters from type checkers.
    records = found.as_data_source(split)  # pyright: ignore[reportCallIssue]
  both_strands = data.reverse_complement and split == 'train'
  return GenomeRows(records, directory, tokenizer, both_strands)
