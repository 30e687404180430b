"""The workdir of a run, on this disk or in a bucket."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from scmdm_jax import files
from scmdm_jax.buckets import lock, paths
from scmdm_jax.buckets.mirror import Mirror
from scmdm_jax.buckets.objects import Objects
from scmdm_jax.buckets.urls import is_bucket
from scmdm_jax.checkpoints import apart
from scmdm_jax.processes import multihost


@contextlib.contextmanager
def staged(path: str, *, locked: bool = True) -> Iterator[pathlib.Path]:
  """Yields the directory on this disk to work in for `path`; at the end all is there.

  Of several processes the first copies. Where another does not see its copy, every
  process has its own, and brings what it has of a training's steps.

  Args:
    path: of a directory; one on this disk is yielded as it is.
    locked: whether no other run may work in it.

  Raises:
    BadInput: another run is using it; or see `local_path`.
    DamagedData: see `local_path`.
  """
  if not is_bucket(path):
    yield pathlib.Path(os.path.expanduser(path)).absolute()
    return
  url = path.rstrip('/')
  with contextlib.ExitStack() as stack:
    begun = multihost.first_does('workdir', lambda: _begin(url, locked, stack))
    root = pathlib.Path(multihost.from_first(str(begun.root) if begun else ''))
    if not all(map(int, multihost.exchanged(f'sees/{url}', f'{root.is_dir():d}'))):
      own = begun or _copied(url, stack)
      multihost.exchanged(f'copied/{url}', '')  # Nothing is deleted meanwhile.
      stack.enter_context(apart.disks(own))
      root = own.root
    paths.copies[url] = root
    try:
      yield root
    finally:
      if begun is not None:
        begun.push()


def _copied(url: str, stack: contextlib.ExitStack) -> Mirror:
  """The copy of another process than the first."""
  mirror = _mirror(url, stack, lambda: None)
  mirror.copy()
  return mirror


def _mirror(url: str, stack: contextlib.ExitStack, check: Callable[[], None]) -> Mirror:
  root = paths.place('workdir', url)
  root.mkdir(parents=True)
  stack.callback(shutil.rmtree, root, ignore_errors=True)
  return Mirror(Objects(url), root, check)


def _begin(url: str, locked: bool, stack: contextlib.ExitStack) -> Mirror:
  owner = None
  if locked:
    owner = lock.Lock(Objects(url))
    stack.callback(owner.release)
  mirror = _mirror(url, stack, owner.check if owner else lambda: None)
  mirror.pull()
  files.listeners.append(mirror.written)
  stack.callback(files.listeners.remove, mirror.written)
  return mirror
