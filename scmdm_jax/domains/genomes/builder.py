"""Stretches of genomes as a TFDS dataset (array_record; TensorFlow is never imported).

Every sequence is cut from its start into stretches of one length without overlap; what
is left at its end is dropped. `chunk_limit` keeps that many stretches of a species,
drawn at random once. Of all stretches 5 % are held out, as published
(kuleshov-group/discrete-diffusion-guidance: `train_test_split(test_size=.05, seed=42)`
over the chunks of yairschiff/ten_species).

Two genomes of one species share most of their stretches: give one genome per species,
or the held-out ones are not unseen.
"""

import dataclasses
import hashlib
import itertools
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from scmdm_jax.buckets import paths
from scmdm_jax.data import sources
from scmdm_jax.domains.genomes import files as genome_files
from scmdm_jax.errors import BadInput

SEQUENCE, SPECIES = 'sequence', 'species'
_MOST_SPECIES = 1000
_SEED = 42
_HELD_OUT = 0.05
_RULES = 2  # Of reading; other ones give other data.
# Sets by name, with their species in the order of their classes; (): those of the
# source, in the order of their names.
SETS: dict[str, tuple[str, ...]] = {
  'genomes': (),
  'ten_species': (
    'Homo_sapiens',
    'Mus_musculus',
    'Drosophila_melanogaster',
    'Danio_rerio',
    'Caenorhabditis_elegans',
    'Gallus_gallus',
    'Gorilla_gorilla',
    'Felis_catus',
    'Salmo_trutta',
    'Arabidopsis_thaliana',
  ),
}


@dataclasses.dataclass(eq=False)
class GenomesConfig(tfds.core.BuilderConfig):
  """Which files, and how they are cut.

  Attributes:
    files: FASTA files with the number of their species, or tables with None.
    species: names, in the order of their classes.
    chunk_length: bases of a stretch.
    chunk_limit: most stretches of a species; 0: all.
  """

  files: tuple[tuple[int | None, pathlib.Path], ...] = ()
  species: tuple[str, ...] = ()
  chunk_length: int = 0
  chunk_limit: int = 0


def config_of(
  set_name: str, source: str | pathlib.Path, chunk_length: int, chunk_limit: int
) -> GenomesConfig:
  """Config of local files, named after their paths, sizes and times of change.

  Raises:
    BadInput: no source, or nothing there that could be read, or other species.
  """
  if not source:
    raise BadInput(
      f'data.source: not given; dataset {set_name} wants a folder with a folder or a '
      'FASTA file per species, or parquet files; docs/genome_data.md says how to make '
      'it of packages'
    )
  source = paths.local_path(str(source)).absolute()
  species = SETS[set_name]
  files: list[tuple[int | None, pathlib.Path]]
  if found := genome_files.tables(source):
    files = [(None, path) for path in found]
    species = species or _species_of_tables(found)
  else:
    by_species = genome_files.species_files(source)
    species = species or tuple(by_species)
    if set(by_species) != set(species):
      raise BadInput(
        f'data.source {source}: has species {sorted(by_species)}; wanted '
        f'{sorted(species)}, those of {set_name}'
      )
    files = [(i, path) for i, name in enumerate(species) for path in by_species[name]]
  digest = hashlib.sha256(f'{_RULES}\0{chunk_length}\0{chunk_limit}\0'.encode())
  for number, path in files:
    state = path.stat()
    line = f'{number}\0{paths.named(str(path))}\0{state.st_size}\0{state.st_mtime_ns}\0'
    digest.update(line.encode())
  return GenomesConfig(
    name=f'{set_name}_{digest.hexdigest()[:16]}',
    files=tuple(files),
    species=species,
    chunk_length=chunk_length,
    chunk_limit=chunk_limit,
  )


class Genomes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stretches of bases and their species, with a split by stretches."""

  name = 'genomes'
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    assert isinstance(config, GenomesConfig)
    return sources.Info(
      builder=self,
      description='Stretches of genomes, A C G T and N.',
      features=tfds.features.FeaturesDict(
        {
          SEQUENCE: tfds.features.Text(),
          SPECIES: tfds.features.ClassLabel(names=list(config.species)),
        }
      ),
      # Keeps the order of the source.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.builder_config
    assert isinstance(config, GenomesConfig)
    species = np.array([s for s, _ in _shown(_chunks(config), 'counting')], np.int16)
    kept = _kept(species, config)
    test = held_out(int(kept.sum()))
    held = np.zeros(len(species), bool)
    held[np.flatnonzero(kept)[test]] = True
    return {
      'train': self._generate_examples(config, 'train', kept & ~held),
      'test': self._generate_examples(config, 'test', held),
    }

  def _generate_examples(
    self, config: GenomesConfig, split: str, chosen: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    chunks = _shown(_chunks(config), f'preparing {split}')
    for position, (species, bases) in enumerate(itertools.compress(chunks, chosen)):
      yield position, {SEQUENCE: bases.decode(), SPECIES: species}


def held_out(count: int) -> np.ndarray:
  """Numbers of the held-out ones of `count` stretches, int64 `[ceil(.05 count)]`."""
  order = np.random.default_rng(_SEED).permutation(count)
  return order[: math.ceil(_HELD_OUT * count)]


def _chunks(config: GenomesConfig) -> Iterator[tuple[int, bytes]]:
  """Species and bases of all stretches, in the order of the files."""
  length = config.chunk_length
  for species, sequence in _sequences(config):
    for start in range(0, len(sequence) - length + 1, length):
      yield species, sequence[start : start + length]


def _sequences(config: GenomesConfig) -> Iterator[tuple[int, bytes]]:
  for number, path in config.files:
    if number is not None:
      for sequence in genome_files.read_fasta(path):
        yield number, sequence
      continue
    for label, sequence in genome_files.read_table(path):
      known = label in config.species
      species = config.species.index(label) if known else label
      if not isinstance(species, int) or not 0 <= species < len(config.species):
        raise BadInput(
          f'{path}: {genome_files.LABEL} {label!r}; wanted a number from 0 to '
          f'{len(config.species) - 1} or one of {list(config.species)}'
        )
      yield species, sequence


def _kept(species: np.ndarray, config: GenomesConfig) -> np.ndarray:
  """Which stretches stay under the limit, bool `[N]`.

  Raises:
    BadInput: a species has none at all, or there are too few for a split.
  """
  kept = np.zeros(len(species), bool)
  for number, name in enumerate(config.species):
    own = np.flatnonzero(species == number)
    if not len(own):
      raise BadInput(
        f'data.source: no sequence of {name} has {config.chunk_length} bases; wanted '
        'longer ones, or a smaller data.length'
      )
    order = np.random.default_rng((_SEED, number)).permutation(len(own))
    kept[own[order[: config.chunk_limit or len(own)]]] = True
  if kept.sum() < 2:
    raise BadInput(
      f'data.source: {kept.sum()} stretches of {config.chunk_length} bases; at least 2 '
      'are needed for a split'
    )
  return kept


def _species_of_tables(files: Iterable[pathlib.Path]) -> tuple[str, ...]:
  """The labels of tables, as names: numbers in their order, or names in theirs."""
  labels = {label for path in files for label, _ in genome_files.read_table(path)}
  if all(isinstance(label, int) for label in labels):
    last = max((int(label) for label in labels), default=-1)
    if last >= _MOST_SPECIES:
      raise BadInput(
        f'data.source: found the label {last}; wanted species numbered from 0, below '
        f'{_MOST_SPECIES}, or names'
      )
    return tuple(f'species {number}' for number in range(last + 1))
  return tuple(sorted(map(str, labels)))


def _shown(chunks: Iterator[Any], what: str) -> Iterator[Any]:
  """The same, counted on a terminal."""
  return iter(tqdm.tqdm(chunks, what, unit=' chunks', disable=None, file=sys.stderr))
