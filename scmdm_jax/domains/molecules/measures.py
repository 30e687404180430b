"""Validity, uniqueness, novelty and diversity of generated SMILES, by RDKit.

Published protocol (QM9, kuleshov-group/discrete-diffusion-guidance; it matches the
paper's "594.2 of 1024"): 64 batches of 16 samples, 32 steps, then over the decoded
texts

- valid: not empty, and `Chem.MolFromSmiles` returns a molecule; counted with
  repetitions;
- unique: number of different *strings* among the valid ones;
- novel: number of those strings that are not among the canonical SMILES of the whole
  data set (both splits);
- the percentages of unique and novel are over the *valid* samples.

The samples are not canonicalised, so another way to write a known molecule counts as
new, and two ways to write one molecule count as two. The `canonical_*` figures repeat
the counts with every valid sample canonicalised first; they are never larger.

Internal diversity is MOSES's IntDiv (arXiv 1811.12823): how unlike two valid samples
are on average, which neither counts nor n-grams see.

RDKit silently reads `C C` or a trailing newline as `C`. The decoded texts of our
tokenizers have no white space, so the published rule is kept as it is.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from scmdm_jax.errors import BadInput

PAIRED = 5000  # These pairs take RDKit some eight seconds of a core.


@dataclasses.dataclass(frozen=True)
class MoleculeScores:
  """Counts over a set of samples; see the module for the protocol.

  Attributes:
    count: samples.
    valid: valid samples, with repetitions.
    unique: different strings among the valid samples (published).
    novel: different strings among the valid samples that are not known (published).
    canonical_unique: different molecules among the valid samples (ours).
    canonical_novel: different molecules that are not known (ours).
    internal_diversity: see `_internal_diversity`.
  """

  count: int
  valid: int
  unique: int
  novel: int
  canonical_unique: int
  canonical_novel: int
  internal_diversity: float

  def to_dict(self) -> dict[str, int | float]:
    """The counts, and fractions: valid over all samples, the rest over valid ones.

    A fraction over no samples is 0.
    """
    counts = dataclasses.asdict(self)
    fractions = {'valid_fraction': self.valid / max(self.count, 1)}
    for field in ('unique', 'novel', 'canonical_unique', 'canonical_novel'):
      fractions[f'{field}_fraction'] = counts[field] / max(self.valid, 1)
    return counts | fractions


def judge_molecules(samples: Sequence[str], known: Collection[str]) -> MoleculeScores:
  """Scores decoded samples.

  Args:
    samples: decoded texts, special tokens removed.
    known: canonical SMILES of the whole data set, all splits. Give a set when calling
      often: anything else is copied into one.

  Returns:
    The scores.

  Raises:
    BadInput: RDKit is not installed.
  """
  try:
    from rdkit import Chem, rdBase
  except ImportError as error:
    raise BadInput(
      "judge molecules: RDKit is not installed; run pip install 'scmdm_jax[molecules]'"
    ) from error

  known = known if isinstance(known, set | frozenset) else frozenset(known)
  valids, molecules = [], []
  canonical = set()
  with rdBase.BlockLogs():
    for sample in samples:
      molecule = Chem.MolFromSmiles(sample) if sample else None
      if molecule is not None:
        valids.append(sample)
        molecules.append(molecule)
        canonical.add(Chem.MolToSmiles(molecule))
  unique = set(valids)
  return MoleculeScores(
    count=len(samples),
    valid=len(valids),
    unique=len(unique),
    novel=len(unique - known),
    canonical_unique=len(canonical),
    canonical_novel=len(canonical - known),
    internal_diversity=_internal_diversity(molecules),
  )


def _internal_diversity(molecules: Sequence[Any]) -> float:
  """One less the mean Tanimoto similarity of all pairs, each with itself among them.

  As MOSES has it (`moses.metrics.internal_diversity`): Morgan fingerprints of radius 2
  in 1024 bits. Of more than `PAIRED` molecules the first so many are taken. It is (1 -
  1/n) times that of different pairs, so that of few it is less.

  Args:
    molecules: of RDKit, repeated ones as often as they are.

  Returns:
    In `[0, 1)`; 0 without molecules.
  """
  from rdkit import DataStructs
  from rdkit.Chem import rdFingerprintGenerator

  generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
  prints = [generator.GetFingerprint(molecule) for molecule in molecules[:PAIRED]]
  alike = [np.mean(DataStructs.BulkTanimotoSimilarity(p, prints)) for p in prints]
  return 1 - float(np.mean(alike)) if prints else 0.0
