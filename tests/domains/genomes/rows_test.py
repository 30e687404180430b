"""Genomes from files to rows: cut, limited, split, complemented."""

import gzip
import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scmdm_jax.domains.genomes import builder
from scmdm_jax.domains.genomes import rows as genome_rows
from scmdm_jax.domains.genomes.options import GenomeSettings
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput, DamagedData

TOKENIZER = get_tokenizer('species:2')
LENGTH = 5  # A class and four bases.
RNG = np.random.default_rng(0)


def bases(count):
  return ''.join(RNG.choice(list('ACGT'), count))


# 43 bases are 10 stretches; sequences are cut one by one.
GENOMES = {'A': [bases(43), bases(3), bases(41)], 'B': [bases(160)]}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('genomes')
  for name, sequences in GENOMES.items():
    text = ''.join(f'>{i}\n{s[:30]}\n{s[30:]}\n' for i, s in enumerate(sequences))
    (folder / f'{name}.fa.gz').write_bytes(gzip.compress(text.encode()))
  return folder


def opened(
  name, directory, split, source, tokenizer=TOKENIZER, length=LENGTH, **options
):
  """The rows of a split."""
  data = GenomeSettings(
    name, str(directory), str(source), tokenizer.name, length, **options
  )
  return genome_rows.open_rows(data, tokenizer, split)


def texts(source, tmp_path, split, **options):
  rows = opened('genomes', tmp_path / 'data', split, source, **options)
  return [TOKENIZER.decode(rows[i]) for i in range(len(rows))]


def stretches():
  """Every stretch as a row's text, in the order of the files, by another way."""
  found = []
  for label, sequences in enumerate(GENOMES.values()):
    for sequence in sequences:
      for n in range(len(sequence) // 4):
        found.append(f'<class {label}>{sequence[4 * n : 4 * n + 4]}')
  return found


def test_stretches_and_the_published_split(source, tmp_path):
  everything = stretches()
  assert len(everything) == 10 + 0 + 10 + 40
  order = np.random.default_rng(42).permutation(60)
  held_out = {int(i) for i in order[: math.ceil(0.05 * 60)]}
  train = [text for i, text in enumerate(everything) if i not in held_out]
  test = [text for i, text in enumerate(everything) if i in held_out]
  found = texts(source, tmp_path, 'train')
  assert sorted(found) == sorted(train) and found != train
  assert sorted(texts(source, tmp_path, 'test')) == sorted(test)
  # The order is always the same, and mixes the species.
  assert found == texts(source, tmp_path, 'train')
  assert {text[:9] for text in found[:20]} == {'<class 0>', '<class 1>'}


def test_the_other_strand_doubles_the_rows(source, tmp_path):
  once = texts(source, tmp_path, 'train')
  twice = texts(source, tmp_path, 'train', reverse_complement=True)
  assert len(twice) == 2 * len(once) and twice[: len(once)] == once
  pairs = str.maketrans('ACGT', 'TGCA')
  wanted = [text[:9] + text[9:].translate(pairs)[::-1] for text in once]
  assert twice[len(once) :] == wanted


def test_a_limit_keeps_some_of_every_species(source, tmp_path):
  found = [
    text
    for split in ('train', 'test')
    for text in texts(source, tmp_path, split, chunk_limit=12)
  ]
  assert len(found) == 24 and set(found) <= set(stretches())
  assert sum(text.startswith('<class 0>') for text in found) == 12
  assert len(texts(source, tmp_path, 'test', chunk_limit=12)) == math.ceil(0.05 * 24)


def test_rows_know_their_bounds(source, tmp_path):
  rows = opened('genomes', tmp_path, 'test', source)
  for index in (-1, len(rows)):
    with pytest.raises(IndexError):
      rows[index]


def test_a_table_is_cut_the_same_way(source, tmp_path):
  rows = [(i, s) for i, g in enumerate(GENOMES.values()) for s in g]
  labels, sequences = zip(*rows, strict=True)
  path = tmp_path / 'rows.parquet'
  parquet.write_table(pa.table({'species_label': labels, 'sequence': sequences}), path)
  wanted = texts(source, tmp_path, 'train')
  assert texts(path, tmp_path, 'train') == wanted


def test_ten_species_come_in_the_published_order(tmp_path):
  folder = tmp_path / 'ten'
  folder.mkdir()
  for name in builder.SETS['ten_species']:
    (folder / f'{name}.fa').write_text(f'>1\n{bases(20)}\n')
  config = builder.config_of('ten_species', folder, 4, 0)
  assert config.species[:2] == ('Homo_sapiens', 'Mus_musculus')
  assert [path.name for _, path in config.files][-1] == 'Arabidopsis_thaliana.fa'
  with pytest.raises(BadInput, match=r'has 2 classes; wanted species:10, for Homo'):
    opened('ten_species', tmp_path, 'train', folder)
  (folder / 'Felis_catus.fa').unlink()
  with pytest.raises(BadInput, match=r'has species \[.*\]; wanted \[.*Felis_catus'):
    builder.config_of('ten_species', folder, 4, 0)
  path = tmp_path / 'ten.parquet'
  columns = {'species_label': [10], 'sequence': [bases(20)]}
  parquet.write_table(pa.table(columns), path)
  with pytest.raises(BadInput, match='species_label 10; wanted a number from 0 to 9'):
    opened('ten_species', tmp_path, 'train', path, get_tokenizer('species:10'))


def test_what_cannot_be_cut_is_refused(source, tmp_path):
  with pytest.raises(BadInput, match=r'data\.source: not given; dataset genomes wants'):
    builder.config_of('genomes', '', 4, 0)
  with pytest.raises(BadInput, match='no sequence of A has 100 bases; wanted longer'):
    opened('genomes', tmp_path, 'train', source, length=101)


def test_a_changed_file_is_prepared_anew(tmp_path):
  (tmp_path / 'A.fa').write_text('>1\n' + 'A' * 40 + '\n')
  first = builder.config_of('genomes', tmp_path, 4, 0).name
  assert first == builder.config_of('genomes', tmp_path, 4, 0).name
  assert first != builder.config_of('genomes', tmp_path, 5, 0).name
  assert first != builder.config_of('genomes', tmp_path, 4, 1).name
  (tmp_path / 'A.fa').write_text('>1\n' + 'A' * 44 + '\n')
  assert first != builder.config_of('genomes', tmp_path, 4, 0).name


def test_truncated_data_are_named(source, tmp_path):
  rows = opened('genomes', tmp_path, 'train', source)
  (path,) = tmp_path.glob('genomes/*/*/*train*.array_record*')
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(DamagedData, match='prepared dataset cannot be read'):
    [rows[i] for i in range(len(rows))]
