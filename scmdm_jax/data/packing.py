"""Documents to rows of token ids without padding.

MDLM's wrapping (kuleshov-group/mdlm, dataloader.py): all documents of a split, each
followed by eos, are one stream of tokens; it is cut into stretches of `L - 2`, and
every stretch becomes the row bos, stretch, eos. What is left at the end of the stream
is dropped (MDLM drops a remainder after every 1000 documents).

The stream does not depend on `L` and is kept on disk, in parts, each written in one
rename: an interrupted preparation goes on with the part it was at, and of a corpus
larger than memory only the rows in use are read.
"""

import itertools
import json
import pathlib
from collections.abc import Iterable

import numpy as np

from scmdm_jax import files
from scmdm_jax.data import unknown
from scmdm_jax.data.pipeline import check_vocabulary
from scmdm_jax.data.sources import Documents, locked, write_parts
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput, DamagedData

_PART = 20_000  # Documents per part; each part keeps a file open.


class PackedRows:
  """Rows of a stream of tokens, int32 `[L]` each.

  Args:
    parts: the stream in pieces, integers `[N_i]`; may be memory-mapped.
    length: `L`.
    bos: id before every row's stretch; None for none.
    eos: id behind it; None for none.
  """

  def __init__(
    self, parts: list[np.ndarray], length: int, bos: int | None, eos: int | None
  ):
    self._parts = parts
    self._ends = np.cumsum([len(part) for part in parts])
    self._before = np.array([] if bos is None else [bos], np.int32)
    self._behind = np.array([] if eos is None else [eos], np.int32)
    self._stretch = length - len(self._before) - len(self._behind)

  def __len__(self) -> int:
    return int(self._ends[-1]) // self._stretch if self._parts else 0

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    start, pieces = index * self._stretch, []
    stop = start + self._stretch
    part = int(np.searchsorted(self._ends, start, side='right'))
    while start < stop:
      first = int(self._ends[part]) - len(self._parts[part])
      pieces.append(self._parts[part][start - first : stop - first])
      start, part = int(self._ends[part]), part + 1
    return np.concatenate([self._before, *pieces, self._behind], dtype=np.int32)


def packed_rows(
  documents: Documents,
  tokenizer: Tokenizer,
  length: int,
  data_dir: pathlib.Path,
  frame: bool = True,
  unknown_limit: float = 0.01,
) -> PackedRows:
  """The rows of a split, its tokens prepared under `data_dir` if need be.

  Args:
    documents: the split.
    tokenizer: without bos its eos stands for it; one with neither gives rows that are
      nothing but text, and joins documents directly.
    length: `L`.
    data_dir: where prepared data live.
    frame: whether rows begin with bos and end with eos, as MDLM trains; its zero-shot
      rows of later releases do not.
    unknown_limit: largest share of tokens that the tokenizer may not know.

  Raises:
    BadInput: not one row of text, a text that the tokenizer refuses, or too much that
      it does not know.
    DamagedData: what an earlier run prepared cannot be read.
  """
  eos = tokenizer.eos_id
  bos = eos if tokenizer.bos_id is None else tokenizer.bos_id
  framed = (bos, eos) if frame else (None, None)
  least = sum(i is not None for i in framed) + 1
  if length < least:
    raise BadInput(f'data.length: found {length}; wanted at least {least} for text')
  folder = data_dir / 'tokens' / f'{documents.key}-{tokenizer.fingerprint[:16]}'
  paths = [folder / f'{first:010}.npy' for first in range(0, documents.count, _PART)]
  if not all(path.is_file() for path in paths):
    with locked(folder):
      write_parts(
        documents,
        paths,
        _PART,
        lambda texts, first: _encode(documents, texts, tokenizer, first),
      )
  try:
    parts = [np.load(path, mmap_mode='r') for path in paths]
  except (OSError, ValueError, EOFError) as error:
    raise DamagedData(
      f'{folder}: prepared tokens cannot be read ({error}); delete this directory and '
      'run again'
    ) from error
  _check_unknown(documents, tokenizer, parts, folder, unknown_limit)
  rows = PackedRows(parts, length, *framed)
  if not len(rows):
    found = sum(map(len, parts))
    raise BadInput(
      f'data.length: found {length}; wanted at most {found + least - 1}, since '
      f'{documents.key} has {found} tokens'
    )
  return rows


def _check_unknown(
  documents: Documents,
  tokenizer: Tokenizer,
  parts: list[np.ndarray],
  folder: pathlib.Path,
  limit: float,
) -> None:
  """Counts once what the tokenizer does not know, and reports or refuses it."""
  if tokenizer.unk_id is None:
    return
  path = folder / 'unknown.json'
  if not path.is_file():
    counts = [unknown.count(part, tokenizer) for part in parts]
    named: list[str] = []
    if any(counts):
      first = next(i for i, found in enumerate(counts) if found) * _PART
      for text in itertools.islice(documents.texts(), first, None):
        if named := unknown.examples(sorted(set(text)), tokenizer):
          break
    facts = {'unknown': sum(counts), 'tokens': sum(map(len, parts)), 'named': named}
    with locked(folder):
      files.write_json(path, facts)
  try:
    facts = json.loads(path.read_bytes())
    found = facts['unknown'], facts['tokens'], facts['named']
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise DamagedData(f'{path}: cannot be read; delete it and run again') from error
  unknown.check(documents.key, tokenizer, *found, limit)


def _encode(
  documents: Documents, texts: Iterable[str], tokenizer: Tokenizer, first: int
) -> np.ndarray:
  """Ids of documents, each followed by eos, in the smallest type that holds them."""
  end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
  encoded = [np.zeros(0, np.int32)]
  for number, text in enumerate(texts, first):
    try:
      ids = tokenizer.encode_text(text)
      check_vocabulary(ids, tokenizer, 'a document')
    except BadInput as error:
      where = documents.find(text) or f'record {number}'
      raise BadInput(f'{where}: {error}') from error
    encoded += [ids, np.array(end, np.int32)]
  kind = np.min_scalar_type(tokenizer.vocab_size - 1)
  return np.concatenate(encoded).astype(kind)
