"""Diversity of real molecules by docs/molecule_diversity.py, run as a program."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from scmdm_jax.domains.molecules import domain
from scmdm_jax.domains.registry import get_tokenizer
from tests.programs import DOCS, program
from tests.tiny_run import MOLECULES

pytest.importorskip('rdkit')
SCRIPT = DOCS / 'molecule_diversity.py'


def test_measures_by_hand():
  tokenizer = get_tokenizer('smiles_qm9')
  texts = ['CCCC', 'C#N', 'C#N']
  tokens = np.stack([tokenizer.encode(text, 8) for text in texts])
  known = domain.known_of(['CCCC', 'CCCO'], tokenizer)
  found = program('molecule_diversity').diversity(tokens, tokenizer, known)
  # bos CCCC eos and two pads; bos C#N eos and three pads.
  one, other = ([4, 2, 1, 1], [3, 1, 1, 1, 1, 1])
  entropies = [-sum(n / 8 * math.log(n / 8) for n in c) for c in (one, other, other)]
  assert found['entropy'] == pytest.approx(np.mean(entropies))
  assert found['entropy_visible'] == pytest.approx(2 / 3 * math.log(3))
  assert found['distinct_4'] == 1  # CCCC alone has four tokens.
  assert found['coverage_4'] == 1 / 2
  # Of nine pairs five are of the same molecule, and butane shares no atom's
  # surroundings with hydrogen cyanide.
  assert found['internal_diversity'] == pytest.approx(4 / 9)


def run(tmp_path, *options, source=MOLECULES):
  command = [sys.executable, str(SCRIPT), f'--source={source}', *options]
  environment = {**os.environ, 'HOME': str(tmp_path)}
  return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_prints_mean_and_spread_of_the_sets(tmp_path):
  lines = run(tmp_path, '--count=4').stdout.splitlines()
  assert lines[0].endswith(' sets of 4') and int(lines[0].split()[0]) >= 2
  names = [line.split()[0] for line in lines[1:]]
  assert names == [
    *('entropy', 'entropy_visible', 'distinct_4'),
    *('coverage_4', 'internal_diversity'),
  ]
  for line in lines[1:]:
    mean, spread = map(float, line.split()[1:])
    assert 0 < spread < mean


def test_more_than_there_are_is_one_line(tmp_path):
  found = run(tmp_path, '--count=100000')
  assert found.returncode == 1 and found.stdout == ''
  [line] = [x for x in found.stderr.splitlines() if x.startswith('error: ')]
  assert line.startswith('error: --count 100000: wanted 1 to ')


def test_tokens_that_qm9_has_not_are_one_line(tmp_path):
  other = tmp_path / 'other.csv'
  other.write_text('smiles\n' + 'CCl\nCBr\nCCS\nCI\n' * 30)
  found = run(tmp_path, '--count=2', source=other)
  assert found.returncode == 1 and found.stdout == ''
  [line] = [x for x in found.stderr.splitlines() if x.startswith('error: ')]
  assert 'Cl' in line and 'smiles_qm9' in line
