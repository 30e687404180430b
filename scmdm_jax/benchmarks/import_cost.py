r"""What an import costs: peak memory, and time beside copying the same files.

python -m scmdm_jax.benchmarks.import_cost DIRECTORY [BLOCKS [ROUNDS]]

Writes a checkpoint of LLaDA-8B's shapes (32 blocks: 16 GB of bfloat16 noise; fewer with
BLOCKS) to DIRECTORY, in shards as it is published. Then copies its files and imports it
in turn, each from files that are not in memory and until the result is on the disk. The
directory needs room for the source three times over; all of it is deleted.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import ml_dtypes
import numpy as np

from scmdm_jax.checkpoints import layouts, model_config, safetensors_writer
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig


def llada(num_blocks: int) -> ModelDescription:
  """GSAI-ML/LLaDA-8B's sizes with another number of blocks."""
  sizes = DecoderConfig(
    vocab_size=126464,
    length=4096,
    hidden_dim=4096,
    num_blocks=num_blocks,
    num_heads=32,
    num_kv_heads=32,
    mlp_dim=12288,
    rope_theta=500000.0,
    causal=False,
  )
  return ModelDescription(sizes, mask_id=126336, tokenizer='', family='llada')


def write_source(directory: pathlib.Path, description: ModelDescription) -> None:
  """A source of random weights that look like weights: normal, deviation 0.02."""
  entries = layouts.entries_of(description)
  dtype = np.dtype(ml_dtypes.bfloat16)
  rng = np.random.default_rng(0)

  def read(name: str) -> np.ndarray:
    values = rng.standard_normal(entries[name].shape, np.float32)
    return (0.02 * values).astype(dtype)

  config = model_config.config_from_description(description, 'bfloat16')
  tensors = {name: (entry.shape, dtype) for name, entry in entries.items()}
  safetensors_writer.write(directory, config, tensors, read)


def _forget(directory: pathlib.Path) -> None:
  """Puts the files on the disk and out of the page cache."""
  for path in directory.rglob('*'):
    if path.is_file():
      with path.open('rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  shutil.copytree(source, target)
  for path in target.iterdir():
    with path.open('rb') as file:
      os.fsync(file.fileno())


# What `getrusage` says of a child includes what its parent held when it was started.
_IMPORT = """
import pathlib, sys
from scmdm_jax.main import main
source, workdir = sys.argv[1:]
code = main(['', '--mode=import', '--source=' + source, '--workdir=' + workdir])
status = pathlib.Path('/proc/self/status').read_text().splitlines()
(peak,) = [line.split()[1] for line in status if line.startswith('VmHWM')]
print(1024 * int(peak))
sys.exit(code)
"""


def _import(source: pathlib.Path, target: pathlib.Path) -> int:
  """Returns the peak resident memory in bytes."""
  command = [sys.executable, '-c', _IMPORT, str(source), str(target)]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return int(done.stdout.splitlines()[-1])


def _timed(run, source: pathlib.Path, target: pathlib.Path) -> tuple[float, Any]:
  _forget(source)
  started = time.perf_counter()
  result = run(source, target)
  spent = time.perf_counter() - started
  _forget(target)
  shutil.rmtree(target)
  return spent, result


def measure(directory: pathlib.Path, num_blocks: int, rounds: int) -> dict:
  """Runs all of it; see the module."""
  source, target = directory / 'source', directory / 'target'
  directory.mkdir(parents=True, exist_ok=True)
  write_source(source, llada(num_blocks))
  try:
    size = sum(path.stat().st_size for path in source.iterdir())
    copies, again, imports, peaks = [], [], [], []
    for _ in range(rounds):
      copies.append(_timed(_copy, source, target)[0])
      spent, peak = _timed(_import, source, target)
      imports.append(spent)
      peaks.append(peak)
      again.append(_timed(_copy, source, target)[0])
  finally:
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
  return {
    'bytes': size,
    'peak_resident_bytes': max(peaks),
    'seconds_copy': copies,
    'seconds_copy_again': again,
    'seconds_import': imports,
    # Speed, not time: 1 is as fast as copying.
    'copy_over_copy': [a / b for a, b in zip(copies, again, strict=True)],
    'import_speed_over_copy': [a / b for a, b in zip(copies, imports, strict=True)],
  }


if __name__ == '__main__':
  blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 32
  rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
  print(json.dumps(measure(pathlib.Path(sys.argv[1]), blocks, rounds), indent=2))
