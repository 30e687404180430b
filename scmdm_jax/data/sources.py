"""Prepares datasets on disk once and reads their texts back.

Texts are read in bulk: random access to single array_record entries costs about 150 us
each through TFDS, reading a thousand at once 16 us. Molecules and images are held in
memory, at most some 180 megabytes; documents are not, and pass by once, on their way to
`packing`.
"""

import contextlib
import dataclasses
import fcntl
import functools
import io
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from scmdm_jax.data import splits
from scmdm_jax.domains.images import builder as images_dataset_builder
from scmdm_jax.domains.images.builder import LabelledImages
from scmdm_jax.domains.images.files import Images
from scmdm_jax.domains.molecules import builder as qm9_dataset_builder
from scmdm_jax.domains.molecules.builder import Molecules, Qm9
from scmdm_jax.domains.text import builder as text_dataset_builder
from scmdm_jax.domains.text.builder import Text
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular, special_files

# Data sets by name: QM9, the sets of texts, the sets of images. How genomes are cut
# depends on the run: see `genome_rows`.
NAMES = (
  Qm9.name,
  Molecules.name,
  *text_dataset_builder.SETS,
  *images_dataset_builder.SETS,
)
_BLOCK = 1000  # Records read at once.
_Builder = Qm9 | Molecules | Text | LabelledImages
Builder = TypeVar('Builder', bound=tfds.core.GeneratorBasedBuilder)


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
    name: one of `NAMES`.
    data_dir: where prepared datasets live; created if need be.
    source_path: local source file or folder: for QM9 and images instead of the package,
      for texts what there is; see the builders.

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
  _check_split(builder, name, split)
  return tuple(_read(builder, split))


def open_documents(
  name: str,
  data_dir: str | pathlib.Path,
  split: str,
  source_path: str | pathlib.Path | None = None,
) -> Documents:
  """As `open_split`, without reading anything yet."""
  builder = _prepared_builder(name, data_dir, source_path)
  _check_split(builder, name, split)
  config = builder.builder_config
  assert config is not None
  return Documents(
    f'{config.name}-{split}',
    builder.info.splits[split].num_examples,
    functools.partial(_read, builder, split),
    functools.partial(text_dataset_builder.find, config),
  )


def open_images(
  name: str,
  data_dir: str | pathlib.Path,
  split: str,
  source_path: str | pathlib.Path | None = None,
) -> Images:
  """As `open_split`, of a set of images."""
  builder = _prepared_builder(name, data_dir, source_path)
  _check_split(builder, name, split)
  shape: Any = builder.info.features
  pixels = np.empty(
    (
      builder.info.splits[split].num_examples,
      *shape[images_dataset_builder.IMAGE].shape,
    ),
    np.uint8,
  )
  labels = np.empty(len(pixels), np.uint8)
  for i, record in enumerate(_records(builder, split)):
    with damage_named(builder.data_dir):
      pixels[i] = record[images_dataset_builder.IMAGE]
      labels[i] = record[images_dataset_builder.LABEL]
  return Images(pixels, labels)


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


def facts(
  name: str, data_dir: str | pathlib.Path, source_path: str | pathlib.Path | None
) -> dict[str, Any]:
  """What a builder has kept beside its records; arguments and errors as `prepare`."""
  return dict(_prepared_builder(name, data_dir, source_path).info.metadata or {})


def _prepared_builder(
  name: str, data_dir: str | pathlib.Path, source_path: str | pathlib.Path | None
) -> _Builder:
  if name not in NAMES:
    raise BadInput(f'dataset: {name!r} is not known; choose from {list(NAMES)}')
  if name in text_dataset_builder.SETS:
    builder_class, config = Text, text_dataset_builder.config_of(name, source_path)
  elif name in images_dataset_builder.SETS:
    builder_class = LabelledImages
    config = images_dataset_builder.config_of(name, source_path)
  elif name == Molecules.name:
    builder_class, config = Molecules, qm9_dataset_builder.config_of(source_path)
  else:
    builder_class, config = Qm9, Qm9.BUILDER_CONFIGS[0]
    if source_path is not None:
      config = qm9_dataset_builder.file_config(pathlib.Path(source_path))
  return prepared(builder_class, config, data_dir)


def prepared(
  builder_class: type[Builder], config: Any, data_dir: str | pathlib.Path
) -> Builder:
  """The builder of a data set that is there, and built first if it is not.

  Arguments, locks and errors as `prepare`; `config` is one of the builder's.
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


def _check_split(builder: _Builder, name: str, split: str) -> None:
  if split not in builder.info.splits:
    raise BadInput(
      f'split: {split!r} is not in dataset {name}; choose from '
      f'{sorted(builder.info.splits)}'
    )


def _read(builder: _Builder, split: str) -> Iterator[str]:
  of = text_dataset_builder if isinstance(builder, Text) else qm9_dataset_builder
  for record in _records(builder, split):
    with damage_named(builder.data_dir):
      text = record[of.TEXT_COLUMN].decode()
    yield text


def _records(builder: _Builder, split: str) -> Iterator[dict[str, Any]]:
  with damage_named(builder.data_dir):
    count = builder.info.splits[split].num_examples
    # TFDS's decorator hides the method's parameters from type checkers.
    source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
  for first in range(0, count, _BLOCK):
    with damage_named(builder.data_dir):
      block = range(first, min(first + _BLOCK, count))
      records = source.__getitems__(block)
      # array_record gives None for what lies behind the end of a truncated file.
      missing = sum(value is None for r in records for value in r.values())
      if missing:
        raise ValueError(f'{missing} of {count} records are missing')
    yield from records


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
