"""One device and 8 in several meshes: the same training, the same samples."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import compiling

ROOT = pathlib.Path(__file__).parents[2]


def on_eight_devices(*arguments):
  """Standard output of a Python program that sees 8 devices."""
  env = os.environ | {
    'XLA_FLAGS': compiling.flags(8),
    'PYTHONPATH': str(ROOT),
  }
  result = subprocess.run(
    [sys.executable, *arguments],
    env=env,
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  return result.stdout


@pytest.mark.long
@pytest.mark.parametrize(
  ('architecture', 'meshes'), [('dit', 3), ('dream', 5), ('blocks', 3)]
)
def test_training_and_samples_do_not_depend_on_the_mesh(architecture, meshes):
  out = on_eight_devices('-m', 'tests.parallel.sameness_program', architecture)
  assert out.count('same') == meshes
