"""Bits of docs/image_greys.py: from images written here, as a program of its own."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.domains.images.idx_files import write_fashion
from tests.programs import DOCS, program

SCRIPT = DOCS / 'image_greys.py'


def labelled(values, levels):
  """Rows of images int [N, P], of classes 0 to 9 in turn."""
  labels = levels + np.arange(len(values)) % 10
  return np.concatenate([labels[:, None], values], axis=1).astype(np.int16)


def test_class_place_and_neighbours_are_worth_all_bits_where_they_tell_all():
  module, levels, grid = program('image_greys'), 4, (1, 3, 3)
  of_class = labelled((np.arange(1000)[:, None] + np.arange(9)) % levels, levels)
  frequency, known, neighbours = module.bits(of_class, of_class, grid, levels)
  shares = [np.mean(of_class[:, 1:] == value) for value in range(levels)]
  entropy = -sum(share * math.log2(share) for share in shares)
  assert frequency == pytest.approx(entropy, abs=1e-3)
  # A class has two of the four values at a place, as often: one bit.
  assert known == pytest.approx(1, abs=0.05)
  assert neighbours < known  # The value to the left tells which.
  rng = np.random.default_rng(0)
  flat = labelled(np.repeat(rng.integers(0, levels, (2000, 1)), 9, axis=1), levels)
  frequency, known, neighbours = module.bits(flat, flat, grid, levels)
  assert frequency == pytest.approx(2, abs=0.01)
  assert known == pytest.approx(2, abs=0.05)
  # One value of nine is not known, and any of four: two bits.
  assert neighbours == pytest.approx(2 / 9, abs=0.1)


def test_the_program_prints_a_line_for_every_side_and_number_of_greys(tmp_path):
  source = write_fashion(tmp_path / 'source')
  command = [sys.executable, str(SCRIPT), f'--source={source}']
  environment = os.environ | {'HOME': str(tmp_path)}
  done = subprocess.run(
    command, check=True, capture_output=True, text=True, env=environment
  )
  module = program('image_greys')
  lines = [line.split() for line in done.stdout.splitlines()]
  assert lines[0][:2] == ['side', 'greys']
  wanted = [[str(s), str(n)] for s in module.SIDES for n in module.LEVELS]
  assert [line[:2] for line in lines[1:]] == wanted
  for _, _, _, known, neighbours, worth in lines[1:]:
    assert float(worth) == pytest.approx(float(known) - float(neighbours), abs=2e-3)


def test_what_cannot_be_read_is_one_line(tmp_path):
  command = [sys.executable, str(SCRIPT), f'--source={tmp_path / "missing"}']
  found = subprocess.run(command, capture_output=True, text=True)
  assert found.returncode == 1
  assert found.stderr.startswith('error: ') and 'missing' in found.stderr
  assert len(found.stderr.splitlines()) == 1
