"""Measures of genomes by hand, against SciPy, and on real stretches."""

import itertools
import math
import pathlib

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from scmdm_jax.domains.genomes import measures
from scmdm_jax.domains.genomes.files import read_fasta

REAL = pathlib.Path(__file__).parents[2] / 'genomes'


def codes(*texts):
  return np.array([['ACGTN'.index(c) for c in t] for t in texts], np.uint8)


def test_kmers_by_hand():
  # AACA: AA, AC, CA. ANCC: AN and NC have an N, CC has none.
  found = measures.count_kmers(codes('AACA', 'ANCC'), 2)
  order = [''.join(pair) for pair in itertools.product('ACGT', repeat=2)]
  wanted = {'AA': 1, 'AC': 1, 'CA': 1, 'CC': 1}
  assert found.counts.tolist() == [wanted.get(kmer, 0) for kmer in order]
  assert found.unknown == 2
  # The published frequencies have all six k-mers in the denominator.
  assert found.frequencies[0] == pytest.approx(1 / 6)
  assert found.frequencies.sum() == pytest.approx(4 / 6)
  assert found.with_unknown[-1] == pytest.approx(2 / 6)
  assert found.with_unknown.sum() == pytest.approx(1)


@pytest.mark.parametrize('k', measures.KMERS)
def test_kmers_against_slices_of_text(k):
  rng = np.random.default_rng(k)
  texts = [''.join(rng.choice(list('ACGTN'), 40)) for _ in range(5)]
  counted: dict[str, int] = {}
  for text in texts:
    for i in range(len(text) - k + 1):
      counted[text[i : i + k]] = counted.get(text[i : i + k], 0) + 1
  found = measures.count_kmers(codes(*texts), k)
  order = (''.join(kmer) for kmer in itertools.product('ACGT', repeat=k))
  assert found.counts.tolist() == [counted.get(kmer, 0) for kmer in order]
  assert found.unknown == sum(n for kmer, n in counted.items() if 'N' in kmer)


def test_sequences_shorter_than_k_have_none():
  found = measures.count_kmers(codes('AC'), 3)
  assert found.counts.sum() == found.unknown == 0


def test_distance_is_the_definition():
  rng = np.random.default_rng(0)
  p, q = rng.random((2, 64))
  p[:20] = 0
  total = 0.0
  for x, y in zip(p / p.sum(), q / q.sum(), strict=True):
    for one in (x, y):
      if one:
        total += one * math.log(one / ((x + y) / 2)) / 2
  # Not scaled to 1, as the published frequencies are where there is an N.
  assert measures.js_distance(p, q / 3) == pytest.approx(math.sqrt(total), rel=1e-12)
  # Rounding makes the divergence of equal frequencies slightly negative: SciPy's NaN.
  for p in rng.random((50, 64)):
    assert measures.js_distance(p, 3 * p) < 1e-7


def test_distances_with_known_answers():
  assert measures.js_distance(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(
    math.sqrt(math.log(2))
  )
  assert measures.js_distance(np.array([1.0, 3]), np.array([2.0, 6])) == 0
  # (1, 0) against (1/2, 1/2), mean (3/4, 1/4), by the definition.
  divergence = (math.log(4 / 3) + math.log(2 / 3) / 2 + math.log(2) / 2) / 2
  assert measures.js_distance(
    np.array([1.0, 0]), np.array([0.5, 0.5])
  ) == pytest.approx(math.sqrt(divergence))
  assert math.isnan(measures.js_distance(np.zeros(2), np.ones(2)))


def test_gc_content():
  assert measures.gc_content(codes('ACGN', 'TTCN')) == pytest.approx(3 / 6)
  assert math.isnan(measures.gc_content(codes('NN')))


def test_bases_and_strays():
  # Ids 7 to 11 are bases; 2 and 14 are not.
  found, stray = measures.bases_of(np.array([[7, 10, 2], [11, 14, 9]]), range(7, 12))
  assert found.tolist() == [[0, 3, 4], [4, 4, 2]]
  assert stray == pytest.approx(2 / 6)


def test_figures_by_species_and_their_mean():
  real = measures.reference_of(
    codes('AAAA', 'CCCC', 'CCCC', 'CCCC'), np.array([0, 1, 1, 1]), 3
  )
  drawn = codes('AAAA', 'AAAA', 'CCNC')
  found = measures.compare_genomes(drawn, np.array([0, 1, 1]), real)
  assert [f['species'] for f in found] == [0, 1]
  assert [f['share'] for f in found] == [0.25, 0.75]
  assert found[0]['js_distance_3'] == found[0]['gc_error'] == 0
  # Species 1: AAA, AAA and two with an N against CCC only.
  assert found[1]['js_distance_3'] == pytest.approx(math.sqrt(math.log(2)))
  assert found[1]['js_distance_3_n'] == pytest.approx(math.sqrt(math.log(2)))
  assert found[1]['gc_error'] == pytest.approx(1 - 3 / 7)
  mean = measures.weighted_mean(found)
  assert mean['js_distance_3'] == pytest.approx(0.75 * math.sqrt(math.log(2)))
  assert 'share' not in mean and 'species' not in mean
  # Only the first species was drawn: its weight is all there is.
  assert measures.weighted_mean(found[:1])['gc_error'] == 0
  assert measures.weighted_mean([]) == {}


def test_entropy_of_6_mers():
  real = measures.reference_of(codes('ACGTACG'), np.zeros(1, int), 1)
  # AAAAAA twice, AAAAAC, and none across two stretches or with an N.
  drawn = codes('AAAAAAA', 'NAAAAAC')
  (found,) = measures.compare_genomes(drawn, np.zeros(2, int), real)
  wanted = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
  assert found['kmer_entropy'] == pytest.approx(wanted)
  (short,) = measures.compare_genomes(codes('AAAAA'), np.zeros(1, int), real)
  assert math.isnan(short['kmer_entropy'])


def test_n_shows_in_its_own_distance_only():
  real = measures.reference_of(codes('ACACAC'), np.array([0]), 1)
  (found,) = measures.compare_genomes(codes('NNNACA', 'CACNNN'), np.zeros(2, int), real)
  assert found['js_distance_3'] == pytest.approx(0)
  # 6 of 8 3-mers have an N; ACA and CAC are even: (1/2, 1/2, 0), (1/8, 1/8, 3/4).
  wanted = jensenshannon([0.5, 0.5, 0], [0.125, 0.125, 0.75])
  assert found['js_distance_3_n'] == pytest.approx(wanted)


def real_stretches(length=100):
  """Real DNA of three species: bases [N, length], species [N]."""
  rows, species = [], []
  for label, path in enumerate(sorted(REAL.glob('*.fna'))):
    (sequence,) = read_fasta(path)
    text = sequence.decode()
    cut = [text[i : i + length] for i in range(0, len(text) - length + 1, length)]
    rows += cut
    species += [label] * len(cut)
  return codes(*rows), np.array(species)


def test_held_out_dna_is_nearer_than_shuffled_dna():
  bases, species = real_stretches()
  assert len(bases) == 3 * 120
  train = np.arange(len(bases)) % 2 == 0
  real = measures.reference_of(bases[~train], species[~train], 3)
  rng = np.random.default_rng(0)
  shuffled = rng.permuted(bases[train], axis=1)

  def distances(rows):
    return measures.weighted_mean(measures.compare_genomes(rows, species[train], real))

  held_out, worse = distances(bases[train]), distances(shuffled)
  for name in ('js_distance_3', 'js_distance_6'):
    assert held_out[name] < worse[name]
  # Codons leave their mark on 3-mers. Of 6-mers, 5,000 bases show too few of the 4,096.
  assert worse['js_distance_3'] > 1.5 * held_out['js_distance_3']
  # Shuffling keeps the composition, another species does not.
  assert worse['gc_error'] == pytest.approx(held_out['gc_error'])
  other = measures.weighted_mean(
    measures.compare_genomes(bases[train], (species[train] + 1) % 3, real)
  )
  assert other['gc_error'] > 0.1 > 5 * held_out['gc_error']
