"""The workdir of a run, on this disk or in a bucket."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from scmdm_jax import files
from scmdm_jax.buckets import lock, paths
from scmdm_jax.buckets.mirror import Mirror
from scmdm_jax.buckets.objects import Objects
from scmdm_jax.buckets.urls import is_bucket
from scmdm_jax.errors import BadInput
from scmdm_jax.processes import multihost


@contextlib.contextmanager
def staged(path: str, *, locked: bool = True) -> Iterator[pathlib.Path]:
  """Yields the directory on this disk to work in for `path`; at the end all is there.

  Of several processes the first copies, to a directory that all have to see.

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
    if not root.is_dir():
      raise BadInput(
        f'{url}: {root} of the first process is not seen by another; wanted TMPDIR on '
        'a disk that all processes of the run share'
      )
    paths.copies[url] = root
    try:
      yield root
    finally:
      if begun is not None:
        begun.push()


def _begin(url: str, locked: bool, stack: contextlib.ExitStack) -> Mirror:
  objects = Objects(url)
  owner = None
  if locked:
    owner = lock.Lock(objects)
    stack.callback(owner.release)
  root = paths.place('workdir', url)
  root.mkdir(parents=True)
  stack.callback(shutil.rmtree, root, ignore_errors=True)
  mirror = Mirror(objects, root, owner.check if owner else lambda: None)
  mirror.pull()
  files.listeners.append(mirror.written)
  stack.callback(files.listeners.remove, mirror.written)
  return mirror
