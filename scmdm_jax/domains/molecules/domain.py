"""Molecules: an example is a SMILES string; samples are read by RDKit and a judge."""

import hashlib
import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.data import sources, unknown
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains import prepared
from scmdm_jax.domains.molecules import builder, smiles
from scmdm_jax.domains.molecules.measures import judge_molecules
from scmdm_jax.domains.molecules.rows import MoleculeRows
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.runs.opening import Model, load_causal_judge
from scmdm_jax.runs.perplexity import generative_perplexity
from scmdm_jax.settings.options import DataSettings, Settings


def read_rows(options: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """One molecule per row."""
  texts = sources.open_split(
    options.name, prepared.directory(options), split, options.source or None
  )
  source = pathlib.Path(options.source).expanduser()
  if (
    options.source
  ):  # The package's molecules are those that its tokenizer is made for.
    _check_unknown(options, tokenizer)

  def find(text: str) -> str:
    return builder.find(source, text) if options.source else options.name

  return MoleculeRows(texts, tokenizer, options.length, find)


def _check_unknown(options: DataSettings, tokenizer: Tokenizer) -> None:
  counts: dict[str, int] = _facts(options)['pieces']
  named = {
    piece: found
    for piece, found in counts.items()
    if unknown.count(tokenizer.encode_text(piece), tokenizer)
  }
  unknown.check(
    options.name,
    tokenizer,
    sum(named.values()),
    sum(counts.values()),
    sorted(named, key=counts.__getitem__, reverse=True)[:10],
    options.unknown,
  )


def longest(options: DataSettings) -> int:
  """Tokens that the longest molecule takes, with its start and end."""
  return _facts(options)['longest'] + 2


def made_tokenizer(options: DataSettings) -> pathlib.Path:
  """The folder of a tokenizer of the pieces that the molecules have, made once."""
  facts = _facts(options)
  counts = facts['pieces']
  where = f'data.source {options.source}'
  content = smiles.tokenizer_files(counts, where)
  digest = hashlib.sha256(b''.join(content.values())).hexdigest()
  folder = prepared.directory(options) / 'tokenizers' / f'smiles-{digest[:16]}'
  for name, data in content.items():
    if not (folder / name).is_file():
      with sources.locked(folder):
        files.write_bytes(folder / name, data)
  return folder


def _facts(options: DataSettings) -> dict[str, Any]:
  """Counts of pieces and the most of a molecule, of both splits."""
  arguments = options.name, prepared.directory(options), options.source or None
  found = sources.facts(*arguments)
  if 'pieces' not in found:  # QM9 keeps none.
    census = smiles.Census()
    for text in sources.all_texts(*arguments):
      census.add(text)
    found = census.facts()
  return found


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  known: Collection[str],
  judge: Model | None,
  batch_size: int,
) -> dict[str, Any]:
  """Validity, uniqueness, novelty (measures) and generative perplexity.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    known: all molecules of both splits: what is new is not among them.
    judge: a causal model; None leaves the perplexity None.
    batch_size: of the judge.
  """
  texts = [tokenizer.decode(tokens) for tokens in samples]
  found = judge_molecules(texts, known).to_dict()
  perplexity = None
  if judge is not None:
    perplexity = generative_perplexity(judge, samples, tokenizer, batch_size)
  return {
    'valid': found['valid'],
    'valid_rate': found['valid_fraction'],
    'unique_rate': found['unique_fraction'],
    'novel_rate': found['novel_fraction'],
    'valid_canonical_unique_rate': found['canonical_unique'] / found['count'],
    'canonical_novel_rate': found['canonical_novel_fraction'],
    'generative_perplexity': perplexity,
  }


def judging(settings: Settings, workdir: pathlib.Path, tokenizer: Tokenizer) -> Measure:
  """`measures` with what it needs read."""
  options = settings.data
  judge = load_causal_judge(settings, workdir, tokenizer)
  known = frozenset(
    sources.all_texts(options.name, prepared.directory(options), options.source or None)
  )
  batch = settings.evaluate.batch_size
  return lambda samples: measures(samples, tokenizer, known, judge, batch)


DOMAIN = Domain(
  'molecules',
  read_rows,
  judging,
  swept=('generative_perplexity', 'valid_rate'),
  # QM9's tokenizer frames its prompts itself, and its models are older than framings.
  framing=lambda data: '' if data.name == 'qm9' else 'start_end',
  length=longest,
  tokenizer=made_tokenizer,
)
