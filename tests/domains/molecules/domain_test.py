import numpy as np
import pytest

from scmdm_jax.domains.molecules import domain
from scmdm_jax.domains.registry import get_tokenizer

pytest.importorskip('rdkit')
TOKENIZER = get_tokenizer('smiles_qm9')


def test_measures_of_known_samples():
  texts = ['CCO', 'CCO', 'C1CC', 'OCC']
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in texts])
  known = domain.known_of(['CCO', 'CCCCO', 'C1CC1'], TOKENIZER)
  found = domain.measures(tokens, TOKENIZER, known, None)
  assert found['valid'] == 3
  assert found['valid_rate'] == 0.75
  assert found['unique_rate'] == pytest.approx(2 / 3)
  assert found['novel_rate'] == pytest.approx(1 / 3)  # OCC, by its string alone.
  assert found['canonical_novel_rate'] == 0
  assert found['valid_canonical_unique_rate'] == 0.25
  assert found['internal_diversity'] == 0  # Three times ethanol.
  # Of CCCC, CCCO, C1CC and 1CC1 the samples have the third.
  assert found['coverage_4'] == 0.25
  assert found['generative_perplexity'] is None
