"""Prepared molecules read back, and the tokenizer that is made of them."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

from scmdm_jax import files
from scmdm_jax.buckets import paths
from scmdm_jax.data import sources, unknown
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.molecules import builder, smiles
from scmdm_jax.domains.molecules.rows import MoleculeRows
from scmdm_jax.domains.options import DataSettings

# As data.tokenizer: made of the molecules.
MADE = 'smiles'


def prepared(data: DataSettings) -> builder.Qm9 | builder.Molecules:
  """The builder of the data set, prepared if need be.

  Raises:
    BadInput: a package is not installed, or an unsuitable source.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  if data.name == builder.Molecules.name:
    config = builder.config_of(data.source)
    return sources.prepared(builder.Molecules, config, data.folder)
  config = builder.Qm9.BUILDER_CONFIGS[0]
  if data.source:
    config = builder.file_config(paths.local_path(data.source))
  return sources.prepared(builder.Qm9, config, data.folder)


def texts(data: DataSettings, split: str) -> Sequence[str]:
  """The SMILES of a split, in its order; errors as `prepared`, or no such split."""
  found = prepared(data)
  sources.count(found, data.name, split)
  return tuple(sources.texts(found, split, builder.TEXT_COLUMN))


def all_texts(data: DataSettings) -> Sequence[str]:
  """The SMILES of all splits, train first: what novelty is measured against."""
  return (*texts(data, 'train'), *texts(data, 'test'))


def read_rows(data: DataSettings, tokenizer: Tokenizer, split: str) -> MoleculeRows:
  """One molecule per row.

  Raises:
    BadInput: as `prepared`, or more than `data.unknown` that the tokenizer does not
      know.
    DamagedData: as `prepared`.
  """
  found = texts(data, split)
  if data.source:  # The package's molecules are those that its tokenizer is made for.
    _check_unknown(data, tokenizer)
  source = paths.local_path(data.source)

  def find(text: str) -> str:
    return builder.find(source, text) if data.source else data.name

  return MoleculeRows(found, tokenizer, data.length, find)


def longest(data: DataSettings) -> int:
  """Tokens that the longest molecule takes, with its start and end."""
  return _facts(data)['longest'] + 2


def made_tokenizer(data: DataSettings) -> pathlib.Path | None:
  """The folder of a tokenizer of the pieces that the molecules have, made once.

  None unless `data.tokenizer` asks for it.
  """
  if data.tokenizer != MADE:
    return None
  content = smiles.tokenizer_files(_facts(data)['pieces'], f'data.source {data.source}')
  digest = hashlib.sha256(b''.join(content.values())).hexdigest()
  folder = data.folder / 'tokenizers' / f'smiles-{digest[:16]}'
  for name, written in content.items():
    if not (folder / name).is_file():
      with sources.locked(folder):
        files.write_bytes(folder / name, written)
  return folder


def _check_unknown(data: DataSettings, tokenizer: Tokenizer) -> None:
  counts: dict[str, int] = _facts(data)['pieces']
  named = {
    piece: found
    for piece, found in counts.items()
    if unknown.count(tokenizer.encode_text(piece), tokenizer)
  }
  unknown.check(
    data.name,
    tokenizer,
    sum(named.values()),
    sum(counts.values()),
    sorted(named, key=counts.__getitem__, reverse=True)[:10],
    data.unknown,
  )


def _facts(data: DataSettings) -> dict[str, Any]:
  """Counts of pieces and the most of a molecule, of both splits."""
  found = dict(prepared(data).info.metadata or {})
  if 'pieces' not in found:  # QM9 keeps none.
    census = smiles.Census()
    for text in all_texts(data):
      census.add(text)
    found = census.facts()
  return found
