"""FASTA and tables to bases."""

import codecs
import gzip
import lzma
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from scmdm_jax.data import journal
from scmdm_jax.domains.genomes import files
from scmdm_jax.errors import BadInput, DamagedData
from tests.data import packed

FASTA = b'; made by hand\n>one first\nACgt\nNNRy\n\n>empty\n>two\r\nGATTACA\r\n'
SEQUENCES = [b'ACGTNNNN', b'GATTACA']


ENDINGS = ('.fa', '.FNA', '.Fasta', '.fas', '.ffn', '.dna')


@pytest.mark.parametrize('packing', packed.WAYS)
@pytest.mark.parametrize('ending', ENDINGS)
def test_sequences_of_a_file(tmp_path, ending, packing):
  path = tmp_path / f'E_coli.x{ending}{packing.upper()}'
  path.write_bytes(packed.WAYS[packing](FASTA))
  assert list(files.read_fasta(path)) == SEQUENCES
  assert files.species_files(tmp_path) == {'E_coli.x': [path]}


@pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\r'])
@pytest.mark.parametrize('mark', [b'', codecs.BOM_UTF8])
def test_line_ends_and_marks(tmp_path, end, mark):
  content = mark + FASTA.replace(b'\r', b'').replace(b'\n', end)
  (tmp_path / 'a.fa').write_bytes(content + content)
  assert list(files.read_fasta(tmp_path / 'a.fa')) == SEQUENCES * 2


def test_headers_may_be_in_any_encoding(tmp_path):
  (tmp_path / 'a.fa').write_bytes(b'>Ca\xf1\xf3n \xff\nACGT\n')
  assert list(files.read_fasta(tmp_path / 'a.fa')) == [b'ACGT']


def test_every_code_of_iupac_and_no_other_letter(tmp_path):
  path = tmp_path / 'a.fa'
  for code in map(chr, range(33, 127)):
    path.write_text(f'>x\nA{code}A\n')
    if code in '>;':
      continue
    if code.upper() in 'ACGTRYKMSWBDHVNX-.':
      base = code.upper() if code.upper() in 'ACGT' else 'N'
      assert list(files.read_fasta(path)) == [f'A{base}A'.encode()]
    else:
      with pytest.raises(BadInput, match='is no nucleotide'):
        list(files.read_fasta(path))


@settings(max_examples=150, deadline=None)
@given(st.binary(), st.sampled_from([b'', b'>x\n', b'\x1f\x8b']))
def test_any_bytes_are_sequences_or_one_line(tmp_path_factory, content, head):
  path = tmp_path_factory.mktemp('t') / 'a.fa'
  path.write_bytes(head + content)
  try:
    for sequence in files.read_fasta(path):
      assert not set(sequence) - set(b'ACGTN')
  except BadInput as error:
    assert '\n' not in str(error)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'>p\nACGT\nMKVLE\n', r"a\.fa: line 3: 'L' is no nucleotide; wanted A, C, G, T"),
    (b'>p\nACGU\n', r"line 2: 'U' is no nucleotide; .*is this RNA\? write T for U"),
    (b'>p\nacgu\n', r"line 2: 'u' is no nucleotide; .*is this RNA\?"),
    ('>p\nAC\u00e9T\n'.encode(), r"line 2: '.xe9' is no nucleotide"),
    (b'>p\nAC GT\n', r"line 2: ' ' is no nucleotide"),
    (b'ACGT\n', r'line 1 stands before any header; wanted FASTA'),
  ],
)
def test_what_is_no_dna_is_refused(tmp_path, content, message):
  (tmp_path / 'a.fa').write_bytes(content)
  with pytest.raises(BadInput, match=message):
    list(files.read_fasta(tmp_path / 'a.fa'))


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('a.fa.gz', gzip.compress(FASTA * 100, mtime=0)[:-20]),
    ('a.fa.gz', b'not gzip'),
    ('a.fa.xz', lzma.compress(FASTA * 100)[:-20]),
    ('a.fa.xz', b'not xz'),
  ],
)
def test_damaged_archives_are_named(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(DamagedData, match=re.escape(f'{name}: cannot be read (')):
    list(files.read_fasta(tmp_path / name))


def test_species_are_files_and_folders(tmp_path):
  for name in ('B.fna.gz', 'A/2.fa', 'A/deep/1.fa', 'README.txt', '.x/3.fa', 'C.dna'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  found = files.species_files(tmp_path)
  assert {k: [p.name for p in v] for k, v in found.items()} == {
    'A': ['2.fa', '1.fa'],
    'B': ['B.fna.gz'],
    'C': ['C.dna'],
  }
  assert list(found) == ['A', 'B', 'C']
  assert journal.entries()['left_out'] == ['README.txt']


@pytest.mark.parametrize('names', [('A.fa', 'A.fna'), ('A.fa', 'A/1.fa')])
def test_a_species_twice_is_refused(tmp_path, names):
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  with pytest.raises(BadInput, match='species A is there twice'):
    files.species_files(tmp_path)


def test_missing_sources_say_how_to_make_them(tmp_path):
  with pytest.raises(BadInput, match=r'nowhere: no folder; .* docs/genome_data\.md'):
    files.species_files(tmp_path / 'nowhere')
  with pytest.raises(BadInput, match=r'no FASTA file in it; .* docs/genome_data\.md'):
    files.species_files(tmp_path)


def table(path, **columns):
  parquet.write_table(pa.table(columns), path)
  return path


def test_rows_of_a_table(tmp_path):
  path = table(tmp_path / 'a.parquet', species_label=[1, 0], sequence=['acgt', 'NNK'])
  assert list(files.read_table(path)) == [(1, b'ACGT'), (0, b'NNN')]
  assert files.tables(tmp_path) == files.tables(path) == [path]
  assert files.tables(tmp_path / 'b.fa') == []


def test_tables_of_something_else_are_refused(tmp_path):
  path = tmp_path / 'a.parquet'
  with pytest.raises(BadInput, match='no column species_label; found'):
    list(files.read_table(table(path, sequence=['ACGT'])))
  bad = table(path, species_label=[0, 0], sequence=['ACGT', 'ACQT'])
  with pytest.raises(BadInput, match="row 1: 'Q' is no nucleotide"):
    list(files.read_table(bad))
  bad = table(path, species_label=[0.5], sequence=['ACGT'])
  with pytest.raises(BadInput, match=r'row 0 has species_label 0\.5'):
    list(files.read_table(bad))
  path.write_bytes(b'PAR1 but no more')
  with pytest.raises(DamagedData, match='cannot be parsed'):
    list(files.read_table(path))
