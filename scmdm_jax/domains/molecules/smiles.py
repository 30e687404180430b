"""SMILES out of files, and a tokenizer made of them: one token per atom, bond or digit.

Pieces are those of a published expression (Schwaller et al. 2019, Molecular
Transformer, doi:10.1021/acscentsci.9b00576), with ring numbers of three digits, and
with brackets that hold no bracket, so that splitting takes time in proportion to the
text.
"""

import collections
import json
import pathlib
import re
from collections.abc import Iterator, Mapping

from scmdm_jax.data import reading, tables
from scmdm_jax.errors import BadInput

PATTERN = (
  r'\[[^\[\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|'
  r'\*|\$|%[0-9]{2}|%\([0-9]+\)|[0-9]'
)
COLUMNS = ('canonical_smiles', 'smiles', 'smi')
# Files with a molecule per line, its name behind it.
_LINES = ('.smi', '.smiles', '.ism', '.can', '.txt')
ENDINGS = (*tables.SUFFIXES, *_LINES)
_MOST_PIECES = 5000  # ChEMBL has some 600; far more are something else than SMILES.
SPECIALS = ('<bos>', '<eos>', '<mask>', '<pad>', '<unk>')
_PIECES = re.compile(PATTERN)


def pieces(text: str) -> list[str]:
  """Splits a SMILES; joined, the pieces are the text again.

  Raises:
    ValueError: a character that no SMILES has there; the message names it.
  """
  found = _PIECES.findall(text)
  if sum(map(len, found)) < len(text):
    at = 0
    for match in _PIECES.finditer(text):
      if match.start() != at:
        break
      at = match.end()
    raise ValueError(f'{text[at]!a} at character {at} of {text[:60]!a}')
  return found


def read(
  path: pathlib.Path, names: tuple[str, ...] = COLUMNS
) -> Iterator[tuple[str, str]]:
  """The SMILES of a file and their places, in its order.

  Args:
    path: a table with one of the columns `names`; or lines that begin with a SMILES,
      perhaps below a line of names.
    names: see `path`.

  Raises:
    BadInput: no such column, a row without SMILES, or with something else.
    DamagedData: the file cannot be unpacked or parsed.
  """
  for place, text in _written(path, names):
    smiles = text.strip()
    try:
      if not pieces(smiles):
        raise ValueError('nothing')
    except ValueError as error:
      raise BadInput(
        f'{path}: {place} is no SMILES ({error}); correct or remove it'
      ) from error
    yield place, smiles


def _written(path: pathlib.Path, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
  if tables.is_table(path):
    yield from tables.texts(path, names)
    return
  first = next(reading.lines(path), '')
  if mark := tables.header_delimiter(first, names, '\t'):
    yield from tables.delimited(path, names, mark)
    return
  headed = bool(first.split()) and first.split()[0].lower() in names
  for number, line in enumerate(reading.lines(path), 1):
    if line.strip() and not line.startswith('#') and not (headed and number == 1):
      yield f'line {number}', line.split()[0]


class Census:
  """Counts the pieces of molecules, and how many the longest has."""

  def __init__(self):
    self._counts: collections.Counter[str] = collections.Counter()
    self._longest = 0

  def add(self, smiles: str) -> None:
    """Counts one molecule."""
    found = _PIECES.findall(smiles)
    self._counts.update(found)
    self._longest = max(self._longest, len(found))

  def facts(self) -> dict[str, object]:
    """Returns `pieces` (their counts, in order) and `longest`."""
    return {'pieces': dict(sorted(self._counts.items())), 'longest': self._longest}


def tokenizer_files(counts: Mapping[str, int], where: str) -> dict[str, bytes]:
  """The files of a tokenizer that knows these pieces, for the `tokenizers` library.

  Raises:
    BadInput: more pieces than molecules have.
  """
  if len(counts) > _MOST_PIECES:
    raise BadInput(
      f'{where}: {len(counts)} different pieces; wanted SMILES, which have at most '
      f'{_MOST_PIECES}'
    )
  vocabulary = [*SPECIALS, *counts]
  special = {'single_word': False, 'lstrip': False, 'rstrip': False}
  special |= {'normalized': False, 'special': True}
  split = {'type': 'Split', 'pattern': {'Regex': PATTERN}, 'behavior': 'Isolated'}
  definition = {
    'version': '1.0',
    'added_tokens': [
      {'id': i, 'content': token, **special} for i, token in enumerate(SPECIALS)
    ],
    'normalizer': None,
    'pre_tokenizer': split | {'invert': False},
    'post_processor': None,
    'decoder': {'type': 'Fuse'},
    'model': {
      'type': 'WordLevel',
      'vocab': {token: i for i, token in enumerate(vocabulary)},
      'unk_token': '<unk>',
    },
  }
  roles = {f'{token[1:-1]}_token': token for token in SPECIALS}
  return {
    'tokenizer.json': json.dumps(definition, indent=1).encode(),
    'tokenizer_config.json': json.dumps(roles, indent=1).encode(),
  }
