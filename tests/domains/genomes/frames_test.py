"""Open reading frames of docs/genome_frames.py, against a regular expression."""

import pathlib
import re

import numpy as np

from tests.programs import program

ROOT = pathlib.Path(__file__).parents[3]
FROM_A_START = re.compile(
  rb'(?=((?:ATG|GTG)(?:(?!TAA|TAG|TGA)[ACGT]{3})*(?:TAA|TAG|TGA)))'
)


def longest_by_stop(sequence):
  """Every frame from a start to the stop after it, the longest of each stop."""
  best = {}
  for found in FROM_A_START.finditer(sequence):
    best.setdefault(found.end(1), found[1])  # The first start is the farthest.
  return list(best.values())


def test_frames_are_the_longest_of_every_stop_on_both_strands():
  lines = (ROOT / 'tests' / 'genomes' / 'E_coli.fna').read_bytes().splitlines()
  sequence = b''.join(line for line in lines if not line.startswith(b'>')).upper()
  other = sequence[::-1].translate(bytes.maketrans(b'ACGT', b'TGCA'))
  wanted = longest_by_stop(sequence) + longest_by_stop(other)
  for least in (30, 150):
    found = list(program('genome_frames').open_frames(sequence, least))
    expected = [frame for frame in wanted if len(frame) >= least]
    assert sorted(found) == sorted(expected)
    assert len(found) > 10


def test_stretches_begin_with_a_codon():
  module = program('genome_frames')
  frames = [b'ACG' * 180, b'TTT' * 90]  # 540 and 270 bases: two stretches and one.
  bases = module.stretches(frames)
  assert bases.shape == (3, module.STRETCH)
  np.testing.assert_array_equal(bases[:2, :3], [[0, 1, 2]] * 2)
  assert (bases[2] == 3).all()


def test_a_place_in_the_codon_is_worth_all_bits_where_it_tells_all():
  module = program('genome_frames')
  bases = np.tile([0, 1, 2], (4000, module.STRETCH // 3))
  assert abs(module.bits(bases, bases, 0, 1) - np.log2(3)) < 1e-4
  assert module.bits(bases, bases, 0, 3) < 1e-4
  assert module.bits(bases, bases, 5, 1) < 1e-4
