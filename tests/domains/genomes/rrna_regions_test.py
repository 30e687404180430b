"""Regions of docs/rrna_regions.py: from genes written here, as a program of its own."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest

from tests.programs import DOCS, program

SCRIPT = DOCS / 'rrna_regions.py'


def test_regions_stand_behind_their_primers_once_each(tmp_path):
  draw = random.Random(0)
  v5, v6, other = (''.join(draw.choices('ACGT', k=63)) for _ in range(3))
  sites = 'ATTAGATACCCTGGTAGTCC', 'AACGCGAAGAACCTTACC'
  genes = [
    'CC' + sites[0] + v5 + 'AC' + sites[1] + v6 + 'GG',
    sites[0].lower() + v5.lower() + 'TTTT',  # The same region again, in small letters.
    sites[1] + other,
    sites[1] + v6[:62],  # Too short.
    sites[1] + v6[:10] + 'N' + v6[11:],  # One base is not known.
  ]
  source = tmp_path / 'genes.fna'
  source.write_text(''.join(f'>g{i}\n{g}\n' for i, g in enumerate(2 * genes)))
  command = [sys.executable, str(SCRIPT), f'--source={source}', f'--out={tmp_path}']
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  found = {}
  for region in ('V5', 'V6', 'V9'):
    lines = (tmp_path / f'{region}.fna').read_text().split()
    found[region] = sorted(line for line in lines if not line.startswith('>'))
  assert found == {'V5': [v5], 'V6': sorted([v6, other]), 'V9': []}
  counts = [line.split()[:3] for line in done.stdout.splitlines()[1:]]
  assert counts == [['V5', '4', '1'], ['V6', '4', '2'], ['V9', '0', '0']]
  longer = [*command, '--regions', 'V6', 'V7', '--bases=64']
  done = subprocess.run(longer, check=True, capture_output=True, text=True)
  assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
    ['V6', '2', '1'],
    ['V7', '0', '0'],
  ]
  assert (tmp_path / 'V6.fna').read_text().split() == ['>0', v6 + 'G']


def test_primers_are_what_the_gene_of_e_coli_has():
  # Of 16S rRNA of Escherichia coli (J01859), at 341, 787, 967, 1099 and 1391.
  sites = {
    'V3': 'CCTACGGGAGGCAGCAG',
    'V5': 'ATTAGATACCCTGGTAGTCC',
    'V6': 'AACGCGAAGAACCTTACC',
    'V7': 'GCAACGAGCGCAACCC',
    'V9': 'GTACACACCGCCCGTC',
  }
  module = program('rrna_regions')
  for region, primer in module.PRIMERS.items():
    assert module.pattern(primer).fullmatch(sites[region].encode()), region


def test_place_and_what_stands_before_are_worth_all_bits_where_they_tell_all():
  module = program('rrna_regions')
  placed = np.tile(np.arange(63) % 4, (500, 1))
  frequency, place, context = module.bits(placed, placed)
  assert frequency == pytest.approx(
    -np.mean([math.log2(np.mean(placed == b)) for b in placed[0]]), abs=1e-3
  )
  # Witten and Bell keep 1 of 501 for bases not met, a share of it for what is right.
  assert place < 0.01 > context
  rng = np.random.default_rng(0)
  # Every stretch goes round from a base of its own: its place tells nothing.
  moved = (placed + rng.integers(0, 4, (500, 1))) % 4
  frequency, place, context = module.bits(moved, moved)
  assert frequency == pytest.approx(2, abs=0.01)
  assert place == pytest.approx(2, abs=0.05)
  assert context < 0.1


@pytest.mark.parametrize('name', ['rrna_regions', 'genome_frames'])
def test_what_cannot_be_read_is_one_line(tmp_path, name):
  script = str(SCRIPT.with_name(f'{name}.py'))
  command = [sys.executable, script, f'--source={tmp_path / "missing.fna"}']
  found = subprocess.run(
    [*command, f'--out={tmp_path}'], capture_output=True, text=True
  )
  assert found.returncode == 1
  assert found.stderr.startswith('error: ') and 'missing.fna' in found.stderr
  assert len(found.stderr.splitlines()) == 1


def test_no_bases_is_one_line(tmp_path):
  command = [sys.executable, str(SCRIPT), '--source=x', f'--out={tmp_path}']
  found = subprocess.run([*command, '--bases=0'], capture_output=True, text=True)
  assert (found.returncode, found.stdout) == (1, '')
  assert found.stderr == 'error: --bases 0: wanted 1 or more\n'
