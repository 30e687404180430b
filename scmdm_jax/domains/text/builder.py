"""Documents of text as a TFDS dataset (array_record; TensorFlow is never imported).

Sources are local files (`data/documents`): one's own, or a published set as it can be
downloaded elsewhere, put back together by `data/detokenize`; or the directory of a data
set that TFDS has prepared as array_record, such as its lm1b. The split is

- that of TFDS, or the files' own, where their names or folders say it (data/splits);
- for OpenWebText without such names the published one: the last 100,000 documents are
  held out (kuleshov-group/mdlm, `train[:-100000]`);
- for a single document, as text8: its first 90 % and last 5 % of characters (D3PM's
  split; the 5 % between are a validation set that nothing here needs);
- otherwise by content: the 5 % of documents with the lowest SHA-256, so that equal
  documents are never on both sides, and other documents change nothing.

Which of them it was is kept with the data set, and shown whenever it is opened.
"""

import dataclasses
import hashlib
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from scmdm_jax.buckets import paths
from scmdm_jax.data import documents, sources, splits
from scmdm_jax.domains.text import conversations
from scmdm_jax.domains.text.detokenize import detokenize
from scmdm_jax.errors import BadInput, DamagedData

TEXT_COLUMN = 'text'
_OPENWEBTEXT_HELD_OUT = 100_000
_PREPARED = ('dataset_info.json', 'features.json')  # Of a data set of TFDS.
_RULES = b'2'  # Of reading and splitting; other ones give other data.
_BLOCK = 1000  # Records read at once.
_NAMED = 20  # Files that are named of those that are left out.


@dataclasses.dataclass(frozen=True)
class TextSet:
  """A data set of texts.

  Attributes:
    origin: which files of it are read, for messages.
    column: where a row has its text.
    read: (files, column[, called with empty files]) -> places and documents.
    endings: of the names of its files.
  """

  origin: str
  column: str = TEXT_COLUMN
  read: Callable[..., Iterator[tuple[str, str]]] = documents.read
  endings: tuple[str, ...] = documents.SUFFIXES


CHAT = 'chat'
SETS = {
  'text': TextSet(
    'a text file (.txt, .html, .jsonl, .csv, .parquet) or a folder of them'
  ),
  CHAT: TextSet(
    'conversations (.jsonl, .parquet), a file or a folder',
    'messages',
    conversations.read,
    conversations.ENDINGS,
  ),
  'openwebtext': TextSet('the parquet files of Skylion007/openwebtext'),
  'lm1b': TextSet('the parquet or jsonl files of lm1b'),
  'text8': TextSet('the file text8 from text8.zip'),
  'wikitext': TextSet('the parquet files of Salesforce/wikitext'),
  'ptb': TextSet('the parquet or jsonl files of ptb_text_only', 'sentence'),
  'lambada': TextSet('the file lambada_test.jsonl'),
  'ag_news': TextSet('the parquet files of fancyzhx/ag_news'),
  'pubmed': TextSet('the parquet or jsonl files of scientific_papers', 'article'),
  'arxiv': TextSet('the parquet or jsonl files of scientific_papers', 'article'),
}


@dataclasses.dataclass(eq=False)
class TextConfig(tfds.core.BuilderConfig):
  """Which set, and where its files lie."""

  set_name: str = 'text'
  source: pathlib.Path = pathlib.Path()


def config_of(set_name: str, source: str | pathlib.Path | None) -> TextConfig:
  """Config of local files, named after their paths, sizes and times of change.

  Other files, or the same after an edit, are therefore prepared into another
  directory. Their content is not read for this: it may be many gigabytes.

  Raises:
    BadInput: no source, or nothing there that could be read.
  """
  if source is None:
    raise BadInput(
      f'data.source: not given; dataset {set_name} wants the path of '
      f'{SETS[set_name].origin}'
    )
  source = paths.local_path(str(source)).absolute()
  digest = hashlib.sha256(_RULES)
  info = source / _PREPARED[0]
  for path in [info] if _is_prepared(source) else files_of(set_name, source)[0]:
    state = path.stat()
    digest.update(
      f'{paths.named(str(path))}\0{state.st_size}\0{state.st_mtime_ns}\0'.encode()
    )
  name = f'{set_name}_{digest.hexdigest()[:16]}'
  return TextConfig(name=name, set_name=set_name, source=source)


def files_of(
  set_name: str, source: pathlib.Path
) -> tuple[list[pathlib.Path], list[str]]:
  """The files of a set, and others beside them; see `documents.files_of`."""
  return documents.files_of(source, endings=SETS[set_name].endings)


def _is_prepared(source: pathlib.Path) -> bool:
  """Whether there is a data set of TFDS."""
  return all((source / name).is_file() for name in _PREPARED)


class Text(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Documents with a split by documents."""

  name = 'text'
  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return sources.Info(
      builder=self,
      description='Documents of text.',
      features=tfds.features.FeaturesDict({TEXT_COLUMN: tfds.features.Text()}),
      # Keeps the order of the source.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.builder_config
    assert isinstance(config, TextConfig)
    if _is_prepared(config.source):
      found = _prepared_splits(config)
      self._keep(rule=f"TFDS's own: {', '.join(found)}")
      return {
        split: self._generate_examples(split, texts) for split, texts in found.items()
      }
    files, others = files_of(config.set_name, config.source)
    self._keep(left_out=others[:_NAMED], left_out_count=len(others), empty=[])
    named, rule = splits.named(files, config.source)
    if 'test' in named:
      self._keep(rule=rule)
      found = {split: self._read(paths) for split, paths in named.items()}
    else:
      found = self._unnamed_splits(files)
    return {
      split: self._generate_examples(split, texts) for split, texts in found.items()
    }

  def _unnamed_splits(self, files: list[pathlib.Path]) -> dict[str, Iterator[str]]:
    config = self.builder_config
    assert isinstance(config, TextConfig)
    keys = self._keys(files, config)
    if len(keys) == 1:
      self._keep(rule='the first 90 % and last 5 % of the only document')
      train, test = _cut(next(self._read(files)), config)
      return {'train': train, 'test': test}
    if config.set_name == 'openwebtext' and len(keys) > _OPENWEBTEXT_HELD_OUT:
      self._keep(rule=f'the last {_OPENWEBTEXT_HELD_OUT} documents are held out')
      held_out = np.arange(len(keys)) >= len(keys) - _OPENWEBTEXT_HELD_OUT
    else:
      self._keep(rule=splits.BY_CONTENT)
      held_out = splits.by_content(keys, config.source)
    return {
      'train': itertools.compress(self._read(files), ~held_out),
      'test': itertools.compress(self._read(files), held_out),
    }

  def _keep(self, **facts: Any) -> None:
    """Keeps what is known of the split with the data set."""
    assert self.info.metadata is not None
    self.info.metadata.update(facts)

  def _read(self, files: list[pathlib.Path]) -> Iterator[str]:
    """The documents of files, detokenized; notes the files without any."""
    config, metadata = self.builder_config, self.info.metadata
    assert isinstance(config, TextConfig) and metadata is not None

    def empty(path: pathlib.Path) -> None:
      if path.name not in metadata['empty'] and len(metadata['empty']) < _NAMED:
        metadata['empty'].append(path.name)

    kind = SETS[config.set_name]
    for _, text in kind.read(files, kind.column, empty):
      yield detokenize(config.set_name, text)

  def _keys(self, files: list[pathlib.Path], config: TextConfig) -> np.ndarray:
    """`splits.key` of every document, uint64 `[N]`.

    Raises:
      BadInput: there is no text.
    """
    keys, characters = [], 0
    for text in _shown(self._read(files), 'counting'):
      keys.append(splits.key(text))
      characters += len(text.strip())
    if not characters:
      raise BadInput(f'data.source {config.source}: its files are empty; wanted text')
    return np.array(keys, np.uint64)

  def _generate_examples(
    self, split: str, texts: Iterator[str]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, text in enumerate(_shown(texts, f'preparing {split}')):
      yield position, {TEXT_COLUMN: text}


def find(config: TextConfig, text: str) -> str:
  """Where a document of the source stands, for messages: file, and line or row."""
  if _is_prepared(config.source):
    return str(config.source)
  files, _ = files_of(config.set_name, config.source)
  kind = SETS[config.set_name]
  for place, written in kind.read(files, kind.column):
    if detokenize(config.set_name, written) == text:
      return place
  return str(config.source)  # Part of an only document.


def _prepared_splits(config: TextConfig) -> dict[str, Iterator[str]]:
  """The documents of a data set of TFDS, 'train' and 'test' (or 'validation').

  Raises:
    BadInput: it has no such splits or column, or another format than array_record.
    DamagedData: it cannot be read; while iterating, too.
  """
  column, where = SETS[config.set_name].column, f'data.source {config.source}'
  try:
    builder = tfds.builder_from_directory(config.source)
    features: Any = builder.info.features
    file_format: Any = builder.info.file_format
  except Exception as error:  # Protobuf's, JSON's, TFDS's own.
    raise DamagedData(f'{where}: not a data set of TFDS; prepare it again') from error
  if column not in features:
    raise BadInput(f'{where}: no feature {column}; found {[*features]}')
  if file_format != tfds.core.FileFormat.ARRAY_RECORD:
    raise BadInput(
      f'{where}: prepared as {file_format.value}; wanted array_record, as '
      "of tfds.builder(NAME, file_format='array_record')"
    )
  splits = {'train': 'train', 'validation': 'test', 'test': 'test'}
  found = {splits[name]: name for name in splits if name in builder.info.splits}
  if not found:
    raise BadInput(f'{where}: has splits {[*builder.info.splits]}; wanted train, test')
  return {ours: _records(builder, theirs, config) for ours, theirs in found.items()}


def _records(
  builder: tfds.core.DatasetBuilder, split: str, config: TextConfig
) -> Iterator[str]:
  count = builder.info.splits[split].num_examples
  source: Any = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
  for first in range(0, count, _BLOCK):
    records = source.__getitems__(range(first, min(first + _BLOCK, count)))
    # array_record gives None for what lies behind the end of a truncated file.
    if None in records:
      raise DamagedData(f'data.source {config.source}: cut short; prepare it again')
    for record in records:
      text = record[SETS[config.set_name].column].decode()
      yield detokenize(config.set_name, text)


def _shown(texts: Iterator[str], what: str) -> Iterator[str]:
  """The same texts, counted on a terminal."""
  return iter(tqdm.tqdm(texts, what, unit=' documents', disable=None, file=sys.stderr))


def _cut(text: str, config: TextConfig) -> tuple[Iterator[str], Iterator[str]]:
  """First 90 % and last 5 % of the characters of an only document."""
  train, test = text[: len(text) * 9 // 10], text[len(text) * 95 // 100 :]
  if not train:
    raise BadInput(
      f'data.source {config.source}: {len(text)} characters of text; wanted more'
    )
  return iter([train]), iter([test])
