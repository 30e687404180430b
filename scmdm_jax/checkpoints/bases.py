"""The base of an adapter: named in the adapter's checkpoint, and the only one it takes.

Two ways to know it again: by the list of the digests of its files, which costs nothing,
and, where that has changed since it was copied or imported again, by its weights.
"""

import hashlib
import logging
import pathlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from scmdm_jax.checkpoints import apart, digests
from scmdm_jax.errors import BadInput, DamagedData

# Beside the adapter's checkpoint: where its base, or a link to it, may lie, too.
BESIDE = 'base'


class Stored(Protocol):
  """An opened checkpoint; `store.StoredModel` is one."""

  @property
  def directory(self) -> pathlib.Path:
    """Where it lies."""
    ...

  @property
  def params(self) -> dict[str, Any]:
    """Shapes and dtypes."""
    ...

  @property
  def extra(self) -> dict[str, Any]:
    """What it says of its origin."""
    ...

  def read(self, path: tuple[str, ...]) -> np.ndarray:
    """One parameter."""
    ...


def named(base: Stored) -> dict[str, str]:
  """Returns what an adapter's checkpoint says of its base; reads all of it once."""
  return {
    'directory': str(base.directory),
    'files': _files(base),
    'weights': weights_digest(base),
  }


def weights_digest(base: Stored) -> str:
  """Returns the SHA-256 of the backbone: of every path, dtype, shape and content."""
  total = hashlib.sha256()
  leaves = jax.tree_util.tree_leaves_with_path({'backbone': base.params['backbone']})
  for path in sorted(tuple(key.key for key in keys) for keys, _ in leaves):
    value = np.ascontiguousarray(base.read(path))
    total.update(f'{"/".join(path)} {value.dtype} {list(value.shape)}\n'.encode())
    total.update(value.reshape(-1).view(np.uint8).data)
  return total.hexdigest()


def _files(base: Stored) -> str:
  """The SHA-256 of the list of the digests of its files."""
  return hashlib.sha256((base.directory / digests.MANIFEST).read_bytes()).hexdigest()


Model = TypeVar('Model', bound=Stored)


def opened(adapter: Stored, open_at: Callable[[pathlib.Path], Model]) -> Model:
  """Returns the base of an adapter's checkpoint, opened.

  Args:
    adapter: its checkpoint.
    open_at: opens what lies at a path.

  Raises:
    BadInput: the base is not where it was, or another model is there.
    DamagedData: the checkpoint does not name its base.
  """
  wanted = adapter.extra.get('frozen')
  if not isinstance(wanted, dict) or not {'directory', 'files', 'weights'} <= {*wanted}:
    raise DamagedData(f'{adapter.directory}: an adapter that does not name its base')
  beside = adapter.directory.parent / BESIDE
  places = [pathlib.Path(wanted['directory']), beside]
  found = next((p for p in places if p.is_dir()), None)
  if found is None:
    raise BadInput(
      f'{adapter.directory}: an adapter, whose base is not at {places[0]}; put the '
      f'checkpoint of its base, or a link to it, at {beside}'
    )
  base = open_at(found)
  # Reading the weights waits for all processes: they do so together or not at all.
  if apart.everywhere('the base of an adapter', _files(base) == wanted['files']):
    return base
  logging.warning('%s: written again; its weights are compared', found)
  digest = weights_digest(base)
  if digest != wanted['weights']:
    raise BadInput(
      f'{adapter.directory}: an adapter of the base with weights '
      f'{wanted["weights"][:12]}, found {digest[:12]} at {found}; put that base, or a '
      f'link to it, at {beside}'
    )
  return base
