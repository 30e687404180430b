"""What a run is made of: its code, data and tokenizer, each as a short digest."""

import functools
import hashlib
import pathlib
from typing import Any

import numpy as np

import scmdm_jax
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer

_SHOWN = 16  # Characters of a digest.
# An array beyond this is read in pieces that lie evenly in it, of so many bytes in all.
_MOST_BYTES = 1 << 30
_PIECES = 1024


@functools.cache
def code_digest() -> str:
  """Returns the digest of all Python files of this package, by name and content."""
  root = pathlib.Path(scmdm_jax.__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    digest.update(f'{path.relative_to(root)}\0'.encode())
    digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()[:_SHOWN]


def data_digest(rows: Rows) -> str:
  """Returns the digest of the texts and arrays that `rows` holds, and of how many.

  Exact up to 1 GiB an array; of a larger one 1024 pieces are read.
  """
  digest = hashlib.sha256(f'{len(rows)}'.encode())
  for name, value in sorted(vars(rows).items()):
    digest.update(f'\0{name}\0'.encode())
    _add(digest, value)
  return digest.hexdigest()[:_SHOWN]


def of_run(rows: Rows, tokenizer: Tokenizer) -> dict[str, str]:
  """Returns the digests of a run by name, as they are kept with its checkpoints."""
  return {
    'data': data_digest(rows),
    'tokenizer': f'{tokenizer.name} {tokenizer.fingerprint}',
    'code': code_digest(),
  }


def _add(digest: Any, value: Any) -> None:
  if isinstance(value, str):
    digest.update(value.encode('utf-8', 'surrogatepass') + b'\0')
  elif isinstance(value, np.ndarray):
    digest.update(f'{value.dtype}{value.shape}\0'.encode())
    _add_bytes(digest, value.reshape(-1).view(np.uint8))
  elif isinstance(value, list | tuple):
    for item in value:
      _add(digest, item)
  elif isinstance(value, int | float | None):
    digest.update(f'{value!r}\0'.encode())


def _add_bytes(digest: Any, flat: np.ndarray) -> None:
  if flat.size <= _MOST_BYTES:
    digest.update(np.ascontiguousarray(flat))
    return
  size = _MOST_BYTES // _PIECES
  for start in np.linspace(0, flat.size - size, _PIECES).astype(int):
    digest.update(np.ascontiguousarray(flat[start : start + size]))
