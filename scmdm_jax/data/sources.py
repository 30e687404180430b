"""TFDS data sets: each prepared on disk once, then read back.

Records are read in bulk: random access to single array_record entries costs about 150
us each through TFDS, reading a thousand at once 16 us.
"""

import contextlib
import dataclasses
import fcntl
import io
import itertools
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from scmdm_jax import files
from scmdm_jax.data import splits
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular, special_files

_BLOCK = 1000  # Records read at once.
Builder = TypeVar('Builder', bound=tfds.core.GeneratorBasedBuilder)


class Info(tfds.core.DatasetInfo):
  """What TFDS keeps of a data set of ours."""

  def initialize_from_bucket(self) -> None:
    """Asks nobody: no bucket has facts of ours, and TFDS leaves a directory behind."""


@dataclasses.dataclass(frozen=True)
class Documents:
  """The documents of a split, on disk.

  Attributes:
    key: name of the data set and the split, unlike that of any other.
    count: how many.
    texts: reads them again, in the order of the split.
    find: document -> where it stands in the source, for messages; '' unknown.
  """

  key: str
  count: int
  texts: Callable[[], Iterator[str]]
  find: Callable[[str], str] = lambda _: ''


def prepared(
  builder_class: type[Builder], config: Any, data_dir: str | pathlib.Path
) -> Builder:
  """The builder of a data set, which is built first unless it is there already.

  The files appear under their final name in one rename, so an interrupted
  preparation leaves nothing that could be taken for a dataset; the next call removes
  its remains and starts again. A lock makes a second process wait and then use what
  the first one built.

  Args:
    builder_class: of TFDS.
    config: one of its configs.
    data_dir: where prepared data sets live; created if need be.

  Raises:
    BadInput: an unsuitable source, or a `data_dir` that cannot be written.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  root = pathlib.Path(data_dir)
  folder = root / builder_class.name / config.name
  directory = folder / str(builder_class.VERSION)
  if not directory.exists():
    with locked(folder):
      for remains in folder.glob('incomplete.*'):
        shutil.rmtree(remains)
      # TFDS reports downloads on standard output, which belongs to the results.
      with contextlib.redirect_stdout(io.StringIO()):
        tfds.disable_progress_bar()
        # Does nothing if another process finished while this one waited.
        builder_class(
          data_dir=root, config=config, file_format='array_record'
        ).download_and_prepare()
    files.written(directory)
  with damage_named(directory):
    if special := special_files(directory):
      raise ValueError(f'{special[0]} is not a regular file')
    builder = builder_class(data_dir=root, config=config, file_format='array_record')
    if not builder.info.splits:
      raise ValueError('no dataset_info.json')
    facts = builder.info.metadata
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
  if facts:
    splits.report(facts, counts)
  return builder


def records(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict[str, Any]]:
  """The records of a split of a prepared data set, in its order, read in bulk.

  Raises:
    DamagedData: they cannot be read, or some are missing.
  """
  with damage_named(builder.data_dir):
    count = builder.info.splits[split].num_examples
    # TFDS's decorator hides the method's parameters from type checkers.
    source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
  for first in range(0, count, _BLOCK):
    with damage_named(builder.data_dir):
      block = range(first, min(first + _BLOCK, count))
      found = source.__getitems__(block)
      # array_record gives None for what lies behind the end of a truncated file.
      missing = sum(value is None for r in found for value in r.values())
      if missing:
        raise ValueError(f'{missing} of {count} records are missing')
    yield from found


def count(builder: tfds.core.DatasetBuilder, name: str, split: str) -> int:
  """How many records a split has.

  Args:
    builder: of a prepared data set.
    name: of the data set, for messages.
    split: 'train' or 'test'.

  Raises:
    BadInput: there is no such split.
  """
  if split not in builder.info.splits:
    raise BadInput(
      f'split: {split!r} is not in dataset {name}; choose from '
      f'{sorted(builder.info.splits)}'
    )
  return builder.info.splits[split].num_examples


def texts(builder: tfds.core.DatasetBuilder, split: str, column: str) -> Iterator[str]:
  """The texts in a column of `records`."""
  for record in records(builder, split):
    with damage_named(builder.data_dir):
      text = record[column].decode()
    yield text


@contextlib.contextmanager
def damage_named(directory: str | pathlib.Path) -> Iterator[None]:
  """Whatever goes wrong inside is damage of the prepared data set there."""
  try:
    yield
  except Exception as error:
    # What a damaged file raises depends on where the damage is (protobuf, JSON,
    # array_record); the remedy does not.
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise DamagedData(
      f'{directory}: prepared dataset cannot be read ({reason}); delete this '
      'directory and run again'
    ) from error


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes `folder` and waits until no other process prepares anything there."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = open_regular(folder / 'prepare.lock', 'a')
  except OSError as error:
    raise BadInput(
      f'data directory {folder}: cannot be written ({error.strerror}); give another'
    ) from error
  with lock:
    # Released by the system when the process ends, however it ends.
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def write_parts(
  documents: Documents,
  paths: Sequence[pathlib.Path],
  size: int,
  encode: Callable[[Iterable[str], int], np.ndarray],
) -> None:
  """Writes what is not there yet, each part in one rename; a bar counts the documents.

  Args:
    documents: in parts.
    paths: of the parts, `.npy`.
    size: documents of each but the last.
    encode: (texts of a part, number of the first) -> what is written.
  """
  counted = iter(
    tqdm.tqdm(
      documents.texts(),
      f'encoding {documents.key}',
      documents.count,
      unit=' documents',
      disable=None,
      file=sys.stderr,
    )
  )
  for number, path in enumerate(paths):
    texts = itertools.islice(counted, size)
    if path.is_file():
      for _ in texts:
        pass
      continue
    part = encode(texts, number * size)
    with files.replacing(path) as temporary, temporary.open('wb') as file:
      np.save(file, part)
