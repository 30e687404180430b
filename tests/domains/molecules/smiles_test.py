"""SMILES out of files, and the tokenizer that is made of them."""

import json
import re
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from scmdm_jax.data import tokenizers
from scmdm_jax.domains.molecules import builder, prepared, smiles
from scmdm_jax.domains.molecules.rows import MoleculeRows
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput, DamagedData
from tests.data import packed

MOLECULES = ['CCO', 'c1ccc(Cl)cc1Br', 'C[C@@H](N)C(=O)O', 'F/C=C\\F', 'N#N', 'CC.[Na+]']
# As published (Schwaller et al. 2019), for texts of SMILES.
PUBLISHED = (
  r'(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|'
  r'\$|\%[0-9]{2}|[0-9])'
)
SMILES_LIKE = st.text(st.sampled_from('CNOcnBrl[]@H+-()=#123%/\\.'), max_size=30)
QUICK = settings(max_examples=200, deadline=None)


def written(path, texts):
  path.write_text('\n'.join(texts) + '\n')
  return path


def read(path):
  return [text for _, text in smiles.read(path)]


@pytest.mark.parametrize('ending', ['', '.gz', '.BZ2', '.xz', '.zst'])
@pytest.mark.parametrize(
  ('name', 'lines'),
  [
    ('a.csv', ['id,SMILES', *(f'{i},{m}' for i, m in enumerate(MOLECULES))]),
    ('b.CSV', ['canonical_smiles', *MOLECULES]),
    ('c.tsv', ['name\tsmiles', *(f'x\t{m}' for m in MOLECULES)]),
    ('d.csv', ['"smiles","n"', *(f'"{m}\n",1' for m in MOLECULES)]),
    ('e.smi', MOLECULES),
    ('f.smi', [f'{m} name of it' for m in MOLECULES]),
    ('g.smi', ['SMILES name', *(f'{m} x' for m in MOLECULES)]),
    ('h.smiles', [f'{m}\t{i}' for i, m in enumerate(MOLECULES)]),
    ('i.txt', ['chembl_id\tcanonical_smiles', *(f'x\t{m}' for m in MOLECULES)]),
    ('j.smi', ['# a remark', '', *MOLECULES, '']),
    ('k.jsonl', [json.dumps({'smiles': m}) for m in MOLECULES]),
  ],
)
def test_molecules_of_any_file(tmp_path, name, lines, ending):
  path = written(tmp_path / name, lines)
  content = ('\ufeff' + path.read_text().replace('\n', '\r\n')).encode()
  packing = packed.WAYS[ending.lower()]
  (tmp_path / (name + ending)).write_bytes(packing(content))
  assert read(tmp_path / (name + ending)) == MOLECULES


def test_molecules_of_parquet(tmp_path):
  # 'NA' and 'N' would be missing values to a careless reader.
  values = ['N', 'C#N', 'O', 'C1']
  table = pa.table({'x': [1] * 4, 'smiles': values})
  parquet.write_table(table, tmp_path / 'a.parquet')
  assert read(tmp_path / 'a.parquet') == values


@pytest.mark.parametrize(
  ('name', 'text', 'kind', 'message'),
  [
    (
      'a.csv',
      'a,b\n1,2\n',
      BadInput,
      r"no column canonical_smiles; found \['a', 'b'\]",
    ),
    ('a.csv', '', DamagedData, 'cannot be parsed'),
    ('a.csv', 'smiles,x\nC,1\nN\n', DamagedData, 'line 3 cannot be parsed'),
    ('a.csv', 'smiles\nC\n""\n', BadInput, 'line 3 is no SMILES .nothing'),
    (
      'a.smi',
      'C\nC O\nC\nHello\n',
      BadInput,
      "line 4 is no SMILES .'H' at character 0",
    ),
    ('a.smi', 'C[Na\n', BadInput, r"line 1 is no SMILES .'\[' at character 1"),
    ('a.smi', 'Cé\n', BadInput, 'line 1 is no SMILES'),
    ('a.parquet', 'smiles', DamagedData, 'cannot be parsed'),
  ],
)
def test_unsuitable_files_are_named(tmp_path, name, text, kind, message):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(kind, match=f'{re.escape(str(path))}: .*{message}') as caught:
    read(path)
  assert type(caught.value) is kind
  assert '\n' not in str(caught.value)


@QUICK
@given(SMILES_LIKE)
def test_pieces_are_those_of_the_published_expression(text):
  try:
    found = smiles.pieces(text)
  except ValueError:
    return
  assert ''.join(found) == text
  if '%(' in text:  # Ring numbers in brackets are ours.
    return
  assert found == re.findall(PUBLISHED, text)


@pytest.mark.parametrize('unit', ['[', '[C', '[C]', 'C', '%', '%(1', 'B', '%(1)'])
def test_time_grows_with_the_length_only(tmp_path, unit):
  tokenizer = made(tmp_path, ['C[C]', 'N'])
  for split in (smiles._PIECES.findall, tokenizer.encode_text):
    seconds = []
    for count in (5_000, 40_000):
      start = time.process_time()
      split(unit * count)
      seconds.append(time.process_time() - start)
    # Eight times as long: 8 if linear, 64 if quadratic.
    assert seconds[1] < 24 * seconds[0] + 0.2


def options_of(tmp_path, texts, name='own.smi'):
  source = written(tmp_path / name, texts)
  return DataSettings(
    name='molecules',
    source=str(source),
    directory=str(tmp_path / 'data'),
    tokenizer='smiles',
  )


def made(tmp_path, texts):
  folder = prepared.made_tokenizer(options_of(tmp_path, texts))
  files = tokenizers.files_at(folder)
  return tokenizers.from_files_for_new_model(files, causal=False, where='here')


def test_vocabulary_and_length_are_those_of_the_file(tmp_path):
  tokenizer = made(tmp_path, MOLECULES)
  pieces = {piece for text in MOLECULES for piece in re.findall(PUBLISHED, text)}
  assert tokenizer.tokens == (*smiles.SPECIALS, *sorted(pieces))
  assert tokenizer.vocab_size == len(pieces) + 5
  assert tokenizer.mask_id == 2
  # [C@@H], Cl and Br are one piece each: c1ccc(Cl)cc1Br has 12, and 2 of the frame.
  assert prepared.longest(options_of(tmp_path, MOLECULES)) == 14
  for text in MOLECULES:
    ids = tokenizer.encode_text(text)
    assert [tokenizer.tokens[i] for i in ids] == re.findall(PUBLISHED, text)
    assert tokenizer.decode(ids) == text
  # What looks special is not: its characters are pieces, or unknown.
  assert not {0, 1, 2, 3} & set(tokenizer.encode_text('<mask>C<eos>').tolist())


def test_rows_are_framed_and_too_long_a_molecule_is_named_with_its_line(tmp_path):
  options = options_of(tmp_path, MOLECULES)
  tokenizer = made(tmp_path, MOLECULES)
  texts = prepared.texts(options, 'train')
  rows = MoleculeRows(texts, tokenizer, 14, lambda _: 'here')
  for text, row in zip(texts, (rows[i] for i in range(len(rows))), strict=True):
    ids = [0, *tokenizer.encode_text(text), 1]
    assert row.tolist() == ids + [3] * (14 - len(ids))
    assert row.dtype == np.int32
  short = DataSettings(**{**vars(options), 'length': 13})
  rows = prepared.read_rows(short, tokenizer, 'train')
  at = texts.index(MOLECULES[1])
  with pytest.raises(BadInput, match=r'own\.smi: line 2: .*takes 14 tokens .* = 13;'):
    rows[at]


def test_what_a_published_tokenizer_does_not_know_is_refused(tmp_path):
  texts = ['CCS', 'CCCCCCC', 'ClCC', 'CC(C)=O']  # 2 of 20 pieces.
  options = options_of(tmp_path, texts)
  with pytest.raises(
    BadInput, match=r"2 of 20 tokens .*10\.00%: 'Cl' 'S'.*unknown=0\.1$"
  ):
    prepared.read_rows(options, SmilesTokenizer(), 'train')
  allowed = DataSettings(**{**vars(options), 'unknown': 0.1})
  assert len(prepared.read_rows(allowed, SmilesTokenizer(), 'train')) == 3


def test_the_split_is_that_of_the_names(tmp_path):
  (tmp_path / 'set').mkdir()
  for name, texts in (('train', MOLECULES), ('test', ['CC']), ('valid', ['CCC'])):
    written(tmp_path / 'set' / f'{name}.smi', texts)
  source = tmp_path / 'set'
  data = DataSettings('molecules', str(tmp_path / 'data'), str(source))
  assert list(prepared.texts(data, 'train')) == MOLECULES
  assert list(prepared.texts(data, 'test')) == ['CC']
  assert builder.find(source, 'CCC') == f'{source}/valid.smi: line 1'


def test_equal_molecules_are_never_on_both_sides(tmp_path):
  texts = [f'{"C" * n}{end}' for n in range(1, 21) for end in 'NOF']
  options = options_of(tmp_path, texts * 2)
  train, test = (prepared.texts(options, split) for split in ('train', 'test'))
  assert len(test) == 6 and len(train) == 114  # 5 % of 120.
  assert not set(train) & set(test)


def test_too_few_molecules_and_no_source_are_named(tmp_path):
  with pytest.raises(BadInput, match='1 molecules; at least 2'):
    prepared.longest(options_of(tmp_path, ['C']))
  with pytest.raises(BadInput, match=r'data\.source: not given; .*\.smi'):
    prepared.prepared(DataSettings('molecules', str(tmp_path)))


@QUICK
@given(st.binary(), st.sampled_from(['a.smi', 'a.csv', 'a.parquet', 'a']))
def test_any_bytes_are_molecules_or_one_line(tmp_path_factory, content, name):
  path = tmp_path_factory.mktemp('t') / name
  path.write_bytes(content)
  try:
    for text in read(path):
      assert ''.join(smiles.pieces(text)) == text
  except BadInput as error:
    assert '\n' not in str(error)
    assert str(path) in str(error)
