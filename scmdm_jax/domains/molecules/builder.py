"""Molecules as TFDS datasets (array_record; TensorFlow is never imported).

Any file of SMILES, or a folder of them, is one (`smiles.read`), with the split that the
names of its files say, or else by content (data/splits). Its vocabulary and longest
molecule are kept with it.

QM9 has the split of the published protocol, and two sources:

- the `qm9pack` PyPI package (default): the 130,831 molecules of QM9 whose geometry
  passed the original consistency checks, canonicalised here with RDKit;
- a local file, such as an export of the Hugging Face dataset `yairschiff/qm9` that the
  published protocol uses. Its strings are taken as they are.

Source: Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22. Split as in
kuleshov-group/discrete-diffusion-guidance: `train_test_split(test_size=.05, seed=42)`.
"""

import dataclasses
import hashlib
import importlib.util
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from scmdm_jax.buckets import paths
from scmdm_jax.data import documents, sources, splits
from scmdm_jax.domains.molecules import smiles as smiles_files
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import read_regular

TEXT_COLUMN = 'canonical_smiles'
_PARTS = ('qm9_part1.csv', 'qm9_part2.csv', 'qm9_part3.csv')
_INSTALL = "pip install 'scmdm_jax[molecules]'"


@dataclasses.dataclass(eq=False)
class Qm9Config(tfds.core.BuilderConfig):
  """Where the molecules come from.

  Attributes:
    source_path: file with a column `canonical_smiles`; None reads `qm9pack`.
  """

  source_path: pathlib.Path | None = None


def file_config(source_path: pathlib.Path) -> Qm9Config:
  """Config of a local file, named after its content.

  Two different files, or one file before and after an edit, are therefore prepared
  into different directories and never taken for one another.
  """
  try:
    digest = hashlib.sha256(read_regular(source_path)).hexdigest()
  except OSError as error:
    raise BadInput(
      f'{source_path}: cannot read ({error.strerror}); give a file '
      'of SMILES, or no path to use the qm9pack package'
    ) from error
  return Qm9Config(name=f'file_{digest[:16]}', source_path=source_path)


class Qm9(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """QM9 SMILES with the split of the published protocol.

  Not registered by name: TFDS has an own `qm9` with other features.
  """

  name = 'qm9'
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar[list[Qm9Config]] = [Qm9Config(name='qm9pack')]

  def _info(self) -> tfds.core.DatasetInfo:
    return sources.Info(
      builder=self,
      description='Canonical SMILES of the QM9 molecules.',
      homepage='https://doi.org/10.1038/sdata.2014.22',
      features=tfds.features.FeaturesDict({TEXT_COLUMN: tfds.features.Text()}),
      # Keeps the order of the published split, record by record.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    assert isinstance(self.builder_config, Qm9Config)
    path = self.builder_config.source_path
    smiles = [s for _, s in smiles_files.read(path)] if path else canonical_qm9pack()
    if len(smiles) < 2:
      raise BadInput(
        f'{path}: {len(smiles)} molecules; at least 2 are needed for a split'
      )
    train, test = published_split(len(smiles))
    return {
      'train': self._generate_examples(smiles, train),
      'test': self._generate_examples(smiles, test),
    }

  def _generate_examples(
    self, smiles: Sequence[str], rows: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, row in enumerate(rows):
      yield position, {TEXT_COLUMN: smiles[row]}


@dataclasses.dataclass(eq=False)
class MoleculesConfig(tfds.core.BuilderConfig):
  """Where molecules of one's own lie."""

  source: pathlib.Path = pathlib.Path()


def config_of(source: str | pathlib.Path | None) -> MoleculesConfig:
  """Config of local files, named after their paths, sizes and times of change.

  Raises:
    BadInput: no source, or nothing there that could be read.
  """
  wanted = ' '.join(smiles_files.ENDINGS)
  if not source:
    raise BadInput(
      f'data.source: not given; data.name = molecules wants a file of SMILES '
      f'({wanted}), or a folder of them'
    )
  source = paths.local_path(str(source)).absolute()
  digest = hashlib.sha256()
  for path in documents.files_of(source, endings=smiles_files.ENDINGS)[0]:
    state = path.stat()
    digest.update(
      f'{paths.named(str(path))}\0{state.st_size}\0{state.st_mtime_ns}\0'.encode()
    )
  return MoleculesConfig(name=digest.hexdigest()[:16], source=source)


class Molecules(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """SMILES of one's own, with their split, vocabulary and longest molecule."""

  name = 'molecules'
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return sources.Info(
      builder=self,
      description='SMILES of molecules.',
      features=tfds.features.FeaturesDict({TEXT_COLUMN: tfds.features.Text()}),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    config, metadata = self.builder_config, self.info.metadata
    assert isinstance(config, MoleculesConfig) and metadata is not None
    files, others = documents.files_of(config.source, endings=smiles_files.ENDINGS)
    named, rule = splits.named(files, config.source)
    census, keys = smiles_files.Census(), []
    for smiles in _read([*itertools.chain(*named.values())] or files):
      census.add(smiles)
      if 'test' not in named:
        keys.append(splits.key(smiles))
    metadata.update(left_out=others[:20], left_out_count=len(others), **census.facts())
    if 'test' in named:
      metadata['rule'] = rule
      found = {split: _read(paths) for split, paths in named.items()}
    else:
      if len(keys) < 2:
        raise BadInput(
          f'data.source {config.source}: {len(keys)} molecules; at least 2 are needed '
          'for a split'
        )
      metadata['rule'] = splits.BY_CONTENT
      held_out = splits.by_content(np.array(keys, np.uint64), config.source)
      found = {
        'train': itertools.compress(_read(files), ~held_out),
        'test': itertools.compress(_read(files), held_out),
      }
    return {split: self._generate_examples(smiles) for split, smiles in found.items()}

  def _generate_examples(
    self, smiles: Iterator[str]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, text in enumerate(smiles):
      yield position, {TEXT_COLUMN: text}


def _read(files: Iterable[pathlib.Path]) -> Iterator[str]:
  return (smiles for path in files for _, smiles in smiles_files.read(path))


def find(source: pathlib.Path, text: str) -> str:
  """Where a SMILES stands in a source, for messages: file, and line or row."""
  for path in documents.files_of(source, endings=smiles_files.ENDINGS)[0]:
    for place, smiles in smiles_files.read(path):
      if smiles == text:
        return f'{path}: {place}'
  return str(source)


def published_split(count: int) -> tuple[np.ndarray, np.ndarray]:
  """Row numbers of Hugging Face `train_test_split(test_size=.05, seed=42)`.

  Args:
    count: number of rows `N`, at least 2.

  Returns:
    `(train, test)`, int64 `[N - ceil(.05 N)]` and `[ceil(.05 N)]`, in the order of
    the split.
  """
  order = np.random.default_rng(42).permutation(count)
  test_count = math.ceil(0.05 * count)
  return order[test_count:], order[:test_count]


def canonical_qm9pack() -> list[str]:
  """RDKit canonical SMILES of every molecule in `qm9pack`, in its order.

  Raises:
    BadInput: `qm9pack` or RDKit is not installed.
    DamagedData: a file of the package is missing or unreadable, or holds a SMILES
      that RDKit cannot parse.
  """
  # find_spec of a top-level name does not run the package (which needs pandas and
  # pkg_resources); only its data files are wanted.
  spec = importlib.util.find_spec('qm9pack')
  if spec is None or spec.origin is None:
    raise BadInput(
      f'dataset qm9: the package qm9pack is not installed; run {_INSTALL}, or give a '
      f'.csv or .parquet file with a column {TEXT_COLUMN}'
    )
  try:
    from rdkit import Chem, rdBase
  except ImportError as error:
    raise BadInput(f'dataset qm9: RDKit is not installed; run {_INSTALL}') from error

  folder = pathlib.Path(spec.origin).parent / 'data'
  canonical = []
  with rdBase.BlockLogs():
    for part in _PARTS:
      if not (folder / part).is_file():
        raise DamagedData(f'{folder / part}: missing; reinstall qm9pack ({_INSTALL})')
      for place, smiles in smiles_files.read(folder / part):
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
          raise DamagedData(
            f'{folder / part}: {place} is not a SMILES ({smiles!r}); reinstall '
            f'qm9pack ({_INSTALL})'
          )
        canonical.append(Chem.MolToSmiles(molecule))
  return canonical
