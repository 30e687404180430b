import pytest

from scmdm_jax.domains.molecules import measures
from scmdm_jax.domains.molecules.measures import judge_molecules

# Ethanol three ways (two strings, one of them twice), methane (known), benzene,
# an unclosed ring, a five-bonded carbon, left-over special tokens, an empty text.
SAMPLES = [
  *('CCO', 'OCC', 'CCO', 'C', 'c1ccccc1'),
  *('C1CC', 'C(C)(C)(C)(C)C', 'C<mask>', '<unk>', ''),
]


def test_counts_by_hand(capfd):
  scores = judge_molecules(SAMPLES, {'C', 'CCO'})
  assert scores.count == 10
  assert scores.valid == 5
  # Strings: CCO, OCC, C, c1ccccc1; not known: OCC, c1ccccc1.
  assert (scores.unique, scores.novel) == (4, 2)
  # Molecules: ethanol, methane, benzene; not known: benzene.
  assert (scores.canonical_unique, scores.canonical_novel) == (3, 1)
  # RDKit's complaints about the invalid ones stay out of the terminal.
  assert capfd.readouterr() == ('', '')


def test_fractions_are_over_the_published_denominators():
  scores = judge_molecules(SAMPLES, ['C', 'CCO']).to_dict()
  assert scores['valid_fraction'] == pytest.approx(5 / 10)
  assert scores['unique_fraction'] == pytest.approx(4 / 5)
  assert scores['novel_fraction'] == pytest.approx(2 / 5)
  assert scores['canonical_unique_fraction'] == pytest.approx(3 / 5)
  assert scores['canonical_novel_fraction'] == pytest.approx(1 / 5)


def test_internal_diversity_by_sets_of_bits():
  Chem = pytest.importorskip('rdkit.Chem')
  AllChem = pytest.importorskip('rdkit.Chem.AllChem')
  texts = ['CCO', 'OCC', 'C1CC', 'c1ccccc1', 'CC(=O)N']
  bits = []
  for text in ('CCO', 'CCO', 'c1ccccc1', 'CC(=O)N'):
    molecule = Chem.MolFromSmiles(text)
    found = AllChem.GetMorganFingerprintAsBitVect(molecule, 2, nBits=1024)
    bits.append(set(found.GetOnBits()))
  alike = [len(a & b) / len(a | b) for a in bits for b in bits]
  wanted = 1 - sum(alike) / 16
  assert 0.3 < wanted < 0.7
  assert judge_molecules(texts, ()).internal_diversity == pytest.approx(wanted)
  assert judge_molecules(['CCO', 'OCC'], ()).internal_diversity == 0


def test_internal_diversity_of_many_is_that_of_the_first(monkeypatch):
  monkeypatch.setattr(measures, 'PAIRED', 2)
  assert judge_molecules(['CCO', 'OCC', 'c1ccccc1'], ()).internal_diversity == 0
  assert judge_molecules(['CCO', 'c1ccccc1', 'CCO'], ()).internal_diversity > 0.4


@pytest.mark.parametrize('samples', [[], ['', 'C('], ['<mask>'] * 3])
def test_nothing_valid_is_zero_not_an_error(samples):
  scores = judge_molecules(samples, set())
  assert scores.count == len(samples)
  assert not any(v for k, v in scores.to_dict().items() if k != 'count')


def test_white_space_follows_rdkit_as_published():
  # Pins the documented quirk: RDKit reads a name after the space.
  assert judge_molecules(['C C'], {'C'}).valid == 1
