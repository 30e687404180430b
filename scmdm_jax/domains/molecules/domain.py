"""Molecules: an example is a SMILES string; samples are read by RDKit and a judge."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.molecules.measures import judge_molecules
from scmdm_jax.domains.molecules.prepared import (
  MADE,
  all_texts,
  longest,
  made_tokenizer,
  read_rows,
)
from scmdm_jax.domains.molecules.reading import generative_perplexity
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.domains.protocol import BuiltIn, Domain, Figure, Measure, Readers
from scmdm_jax.judges.diversity import coverage_n, n_grams
from scmdm_jax.judges.protocol import CausalJudge

FIGURES = {
  'valid_rate': Figure('valid rate', 'higher', quality=True),
  'generative_perplexity': Figure('generative perplexity', 'lower', quality=True),
  'valid': Figure('valid count', 'higher'),
  'unique_rate': Figure('unique of valid', 'higher'),
  'novel_rate': Figure('novel of valid', 'higher'),
  'valid_canonical_unique_rate': Figure('valid and canonically unique', 'higher'),
  'internal_diversity': Figure('internal diversity'),
  'coverage_4': Figure('4-grams of the data met', of_count=True),
}


class Known(NamedTuple):
  """What samples are compared with, of both splits.

  Attributes:
    texts: all molecules: what is new is not among them.
    grams: the different 4-grams of their tokens.
  """

  texts: frozenset[str]
  grams: frozenset[tuple[int, ...]]


def known_of(texts: Sequence[str], tokenizer: Tokenizer) -> Known:
  """Of molecules as the data have them."""
  rows = (tokenizer.encode_text(text) for text in texts)
  grams = frozenset(gram for row in rows for gram in n_grams(row, 4))
  return Known(frozenset(texts), grams)


def measures(
  samples: np.ndarray,
  tokenizer: Tokenizer,
  known: Known,
  judge: CausalJudge | None,
) -> dict[str, Any]:
  """Validity, uniqueness, novelty, diversity (measures) and generative perplexity.

  Args:
    samples: int32 [N, L].
    tokenizer: of the run.
    known: of the data.
    judge: a causal model; None leaves the perplexity None.
  """
  texts = [tokenizer.decode(tokens) for tokens in samples]
  found = judge_molecules(texts, known.texts).to_dict()
  perplexity = None
  if judge is not None:
    perplexity = generative_perplexity(judge, samples, tokenizer)
  return {
    'valid': found['valid'],
    'valid_rate': found['valid_fraction'],
    'unique_rate': found['unique_fraction'],
    'novel_rate': found['novel_fraction'],
    'valid_canonical_unique_rate': found['canonical_unique'] / found['count'],
    'canonical_novel_rate': found['canonical_novel_fraction'],
    'internal_diversity': found['internal_diversity'],
    'coverage_4': coverage_n(samples, known.grams, tokenizer.invisible_ids),
    'generative_perplexity': perplexity,
  }


def measuring(data: DataSettings, evaluation: Any, readers: Readers) -> Measure:
  """`measures`, the known molecules read."""
  del evaluation
  known = known_of(all_texts(data), readers.tokenizer)
  return lambda samples: measures(samples, readers.tokenizer, known, readers.causal)


def show(data: DataSettings, samples: np.ndarray, tokenizer: Tokenizer) -> list[Any]:
  """Every molecule drawn, its SMILES below it."""
  from scmdm_jax.domains.molecules import drawing  # RDKit is an extra.

  del data
  return drawing.show([tokenizer.decode(tokens) for tokens in samples])


DOMAIN = Domain(
  name='molecules',
  data_sets=('qm9', 'molecules'),
  settings=DataSettings,
  tokenizers=(
    BuiltIn(
      SmilesTokenizer.name,
      lambda name: name == SmilesTokenizer.name,
      lambda _: SmilesTokenizer(),
    ),
    BuiltIn(MADE, lambda name: name == MADE, None),
  ),
  judge='causal',
  read_rows=read_rows,
  measuring=measuring,
  figures=FIGURES,
  swept=(
    *('generative_perplexity', 'valid_rate'),
    *('entropy_visible', 'distinct_4', 'coverage_4', 'internal_diversity'),
  ),
  made_tokenizer=made_tokenizer,
  length=longest,
  show=show,
  # QM9's tokenizer frames its prompts itself, and its models are older than framings.
  framing=lambda data: '' if data.name == 'qm9' else 'start_end',
)
