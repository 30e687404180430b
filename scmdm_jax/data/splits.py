"""Which documents train and which are held out: by the names of files, or by content.

A split that a publisher made is kept: folders or files whose names say `train`, `test`
and so on, as on Hugging Face's hub. Otherwise the documents with the lowest SHA-256 are
held out, so that equal ones are never on both sides, and others change nothing.
"""

import hashlib
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scmdm_jax.data import journal
from scmdm_jax.errors import BadInput

HELD_OUT = 0.05
BY_CONTENT = f'the {HELD_OUT:.0%} of documents with the lowest SHA-256 are held out'
# Spelling -> split. Of the last four the first that is there is what is held out.
_WORDS = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('test', 'testing'), 'test'),
  **dict.fromkeys(('validation', 'valid', 'val'), 'validation'),
  'dev': 'dev',
  **dict.fromkeys(('eval', 'evaluation'), 'eval'),
}
_HELD_OUT_NAMES = ('test', 'validation', 'dev', 'eval')
_WORD = re.compile('[A-Za-z]+')
# What lies beside data: cards, licences, lists of checksums, what programs leave.
_CARD = re.compile(
  r'(?:readme|licen[cs]e|copying|notice|citation|authors|contributing|changelog|'
  r'code_of_conduct|datasheet|dataset_?card)(?:[._-].*)?',
  re.IGNORECASE,
)
_CARD_ENDINGS = ('', '.md', '.markdown', '.txt', '.rst', '.html', '.cff')
_NO_DATA = re.compile(
  r'(?:dataset_infos?|dataset_dict|state|features|croissant|metadata)\.json|'
  r'(?:requirements|checksums?|(?:md5|sha\d+)sums?)\.txt',
  re.IGNORECASE,
)


def is_data(path: pathlib.Path) -> bool:
  """Whether a file of a folder is data, by its name, and not the card beside them."""
  if _CARD.fullmatch(path.name) and path.suffix.lower() in _CARD_ENDINGS:
    return False
  return _NO_DATA.fullmatch(path.name) is None


def named(
  files: Sequence[pathlib.Path], root: pathlib.Path
) -> tuple[dict[str, list[pathlib.Path]], str]:
  """The splits that the names of files say, and by which rule; ({}, '') without.

  Folders are asked first: where every file lies in one that names a split, they
  decide; else every file's own name, or else its folder, has to say it. Where there is
  no test split, a validation split is the test split; what remains is left out.

  Args:
    files: of a source.
    root: the source; names above it say nothing.

  Returns:
    'train' and 'test', as far as they are named, with their files.

  Raises:
    BadInput: some files name a split and others do not, or one names two.
  """
  folders = {path: _said(path.relative_to(root).parts[:-1]) for path in files}
  own = {path: _said((path.name,)) for path in files}
  if len(files) == 1 and len(own[files[0]]) > 1:
    return {}, ''  # One file of everything.
  if all(len(spelt) == 1 for spelt in folders.values()):
    found, rule = folders, 'folders name the split'
  else:
    found = {path: own[path] or folders[path] for path in files}
    rule = 'files name the split'
  if not any(found.values()):
    return {}, ''
  for path, spelt in found.items():
    if len(spelt) != 1:
      other = next((p for p in files if len(found[p]) == 1), path)
      what = ' and '.join(sorted(spelt)) or 'no split'
      raise BadInput(
        f'data.source {root}: {path.relative_to(root)} names {what}, and '
        f'{other.relative_to(root)} {" and ".join(sorted(found[other]))}; wanted every '
        'file or folder to name one of train, test, validation, or none; rename or '
        'move files'
      )
  splits: dict[str, list[pathlib.Path]] = {}
  for path, (name,) in found.items():
    splits.setdefault(name, []).append(path)
  held_out = [name for name in _HELD_OUT_NAMES if name in splits]
  result = {'train': splits['train']} if 'train' in splits else {}
  if held_out:
    result['test'] = splits[held_out[0]]
    rule += f': test is {held_out[0]!r}'
  if left := held_out[1:]:
    rule += f', {" and ".join(map(repr, left))} left out'
  return result, rule


def _said(parts: Iterable[str]) -> set[str]:
  """Splits that words of these names are."""
  words = (word.lower() for part in parts for word in _WORD.findall(part))
  return {_WORDS[word] for word in words if word in _WORDS}


def key(text: str) -> int:
  """The first 8 bytes of a text's SHA-256."""
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')


def by_content(keys: np.ndarray, source: pathlib.Path) -> np.ndarray:
  """Which documents are held out, bool `[N]`: 5 % by the `key` of each, uint64 `[N]`.

  Raises:
    BadInput: all are the same.
  """
  last = math.ceil(HELD_OUT * len(keys)) - 1
  held_out = keys <= np.partition(keys, last)[last]
  if held_out.all():
    raise BadInput(
      f'data.source {source}: all {len(keys)} documents are the same; at least '
      '2 different ones are needed for a split'
    )
  return held_out


def report(facts: Mapping[str, Any], counts: Mapping[str, int]) -> None:
  """Says and keeps which rule made a split, and how many documents its parts have.

  Args:
    facts: what a builder keeps of it: `rule`, and perhaps `left_out` (some of the
      files that are no data), `left_out_count`, `empty` (files without any text).
    counts: documents of its parts, by name.
  """
  parts = ', '.join(f'{count} {name}' for name, count in counts.items())
  line = f'split: {facts["rule"]}; {parts}'
  if left := facts.get('left_out'):
    more = facts.get('left_out_count', len(left)) - len(left[:5])
    line += f'; not read: {", ".join(left[:5])}{f" and {more} more" if more else ""}'
  if empty := facts.get('empty'):
    line += f'; without any text: {", ".join(empty[:5])}'
  kept = ('rule', 'left_out', 'left_out_count', 'empty')
  facts = {name: facts[name] for name in kept if name in facts}
  journal.note('split', {**facts, 'documents': dict(counts)}, line)
