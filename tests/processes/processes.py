"""Programs as several processes of one run, by launch/local_multiprocess.sh."""

import os
import pathlib
import subprocess
import sys

from tests import compiling

ROOT = pathlib.Path(__file__).parents[2]


def start(count: int, *command: str, **variables: str) -> subprocess.Popen:
  """Starts `python COMMAND` `count` times, as one run."""
  return subprocess.Popen(
    [ROOT / 'launch/local_multiprocess.sh', str(count), sys.executable, *command],
    cwd=ROOT,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': compiling.flags(),
      'JAX_ENABLE_COMPILATION_CACHE': '0',  # Nothing of a test stays.
      **variables,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(count: int, *command: str, **variables: str) -> tuple[int, str, str]:
  """Exit code, output and errors, lines with the number of their process."""
  process = start(count, *command, **variables)
  try:
    out, err = process.communicate(timeout=500)
  finally:
    process.terminate()
  return process.returncode, out, err
