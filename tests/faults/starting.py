"""The program in a process of its own, with programs compiled once for all tests."""

import os
import pathlib
import subprocess
import sys

from tests import compiling

ROOT = pathlib.Path(__file__).parents[2]


def start(cache: pathlib.Path, *arguments: object, **variables: str):
  """Starts `python -m scmdm_jax.main ARGUMENTS`; its output is in pipes, as text."""
  return subprocess.Popen(
    [sys.executable, '-m', 'scmdm_jax.main', *map(str, arguments)],
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': compiling.flags(),
      'JAX_COMPILATION_CACHE_DIR': str(cache),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      **variables,
    },
    cwd=cache,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
