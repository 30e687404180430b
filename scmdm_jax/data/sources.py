"""Prepares datasets on disk once and reads their texts back.

A split is read whole into memory. Random access to single array_record entries costs
about 150 us each through TFDS, reading them in bulk 16 us, and the texts of QM9 take
a few megabytes.
"""

import contextlib
import fcntl
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from scmdm_jax.data.datasets.qm9 import qm9_dataset_builder
from scmdm_jax.data.datasets.qm9.qm9_dataset_builder import Qm9
from scmdm_jax.errors import BadInput, DamagedData


def prepare(
  name: str,
  data_dir: str | pathlib.Path,
  source_path: str | pathlib.Path | None = None,
) -> pathlib.Path:
  """Builds a dataset unless it is there already.

  The files appear under their final name in one rename, so an interrupted
  preparation leaves nothing that could be taken for a dataset; the next call removes
  its remains and starts again. A lock makes a second process wait and then use what
  the first one built. Takes about 15 s for QM9 on one core.

  Args:
    name: 'qm9'.
    data_dir: where prepared datasets live; created if need be.
    source_path: local source file instead of the package; see the builder.

  Returns:
    The directory of the prepared dataset.

  Raises:
    BadInput: unknown name, package not installed, unsuitable source file, or a
      `data_dir` that cannot be written.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  return pathlib.Path(_prepared_builder(name, data_dir, source_path).data_dir)


def open_split(
  name: str,
  data_dir: str | pathlib.Path,
  split: str,
  source_path: str | pathlib.Path | None = None,
) -> Sequence[str]:
  """The texts of one split, in the order of the split; prepares them if need be.

  Args:
    name: as in `prepare`.
    data_dir: as in `prepare`.
    split: 'train' or 'test'.
    source_path: as in `prepare`.

  Raises:
    BadInput: unknown split; otherwise as `prepare`.
    DamagedData: as `prepare`.
  """
  builder = _prepared_builder(name, data_dir, source_path)
  if split not in builder.info.splits:
    raise BadInput(
      f'split: {split!r} is not in dataset {name}; choose from '
      f'{sorted(builder.info.splits)}'
    )
  return _read(builder, split)


def all_texts(
  name: str,
  data_dir: str | pathlib.Path,
  source_path: str | pathlib.Path | None = None,
) -> Sequence[str]:
  """The texts of all splits, train first: what novelty is measured against.

  Arguments and errors as `prepare`.
  """
  builder = _prepared_builder(name, data_dir, source_path)
  return (*_read(builder, 'train'), *_read(builder, 'test'))


def _prepared_builder(
  name: str, data_dir: str | pathlib.Path, source_path: str | pathlib.Path | None
) -> Qm9:
  if name != Qm9.name:
    raise BadInput(f'dataset: {name!r} is not known; choose from {[Qm9.name]}')
  config = Qm9.BUILDER_CONFIGS[0]
  if source_path is not None:
    config = qm9_dataset_builder.file_config(pathlib.Path(source_path))
  root = pathlib.Path(data_dir)
  folder = root / name / config.name
  prepared = folder / str(Qm9.VERSION)
  if not prepared.exists():
    with _locked(folder):
      for remains in folder.glob('incomplete.*'):
        shutil.rmtree(remains)
      # TFDS reports on standard output, which belongs to the results.
      with contextlib.redirect_stdout(sys.stderr):
        tfds.disable_progress_bar()
        # Does nothing if another process finished while this one waited.
        Qm9(
          data_dir=root, config=config, file_format='array_record'
        ).download_and_prepare()
  with _damage_named(prepared):
    builder = Qm9(data_dir=root, config=config, file_format='array_record')
    if not builder.info.splits:
      raise ValueError('no dataset_info.json')
  return builder


def _read(builder: Qm9, split: str) -> tuple[str, ...]:
  with _damage_named(builder.data_dir):
    count = builder.info.splits[split].num_examples
    # TFDS's decorator hides the method's parameters from type checkers.
    source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
    records = source.__getitems__(range(count))
    texts = [record[qm9_dataset_builder.TEXT_COLUMN] for record in records]
    # array_record gives None for what lies behind the end of a truncated file.
    if None in texts:
      raise ValueError(f'{texts.count(None)} of {count} records are missing')
    return tuple(text.decode() for text in texts)


@contextlib.contextmanager
def _damage_named(directory: str | pathlib.Path) -> Iterator[None]:
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
def _locked(folder: pathlib.Path) -> Iterator[None]:
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / 'prepare.lock').open('w')
  except OSError as error:
    raise BadInput(
      f'data directory {folder}: cannot be written ({error.strerror}); give another'
    ) from error
  with lock:
    # Released by the system when the process ends, however it ends.
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
