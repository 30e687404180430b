"""A directory on this disk and a folder of a bucket that hold the same files.

`pull` brings the bucket here, `push` brings there what has changed here since. A
directory of many files (a model, a step, prepared data) counts only with its manifest,
which is written last and deleted first: that is its commit marker, as a bucket has no
rename. What is in a bucket without it is what a kill has left, and is deleted.
"""

import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Collection

from scmdm_jax.buckets import lock
from scmdm_jax.buckets.objects import Objects

_MANIFEST = re.compile(
  r'(?P<inside>(.*/)?)(digests|dataset_info)\.json|(?P<beside>.+)\.digests\.json'
)
_STEP = re.compile(r'((?:.*/)?checkpoints/\d+)/.*')
# A model, or prepared data.
_FOLDER = re.compile(r'((?:.*/)?)model\.json|((?:.*/)?\d+\.\d+\.\d+/).*')
# Being written under these names; and the lock of a workdir on this disk.
_PASSING = re.compile(r'.*\.tmp(-.*)?|\..*\.old-.*|\.try-.*|\.lock|.*checkpoint-tmp.*')


class Mirror:
  """The local side of the folder at a URL; nothing else may write to either.

  Where processes have a disk each, every one has a local side: the first pulls and
  pushes, the others pull, bring their parts of what all write, and drop them.
  """

  def __init__(
    self, objects: Objects, root: pathlib.Path, check: Callable[[], None] = lambda: None
  ):
    """Takes both sides, and what raises once the folder is another's."""
    self.root = root
    self._objects = objects
    self._check = check
    # What is on both sides: the size and the time of the file here.
    self._same: dict[str, tuple[int, int]] = {}
    self._mutex = threading.Lock()

  def pull(self) -> None:
    """Copies all that is complete from the bucket; errors as `Objects`."""
    with self._mutex:
      names = self.copy()
      here = self._here()
      # The others are deleted at the next push.
      self._same = {name: here.get(name, (-1, -1)) for name in names}

  def copy(self) -> list[str]:
    """Copies as `pull`, and counts nothing as brought from here; all names there."""
    listed = self._objects.list()
    names = [n for n in listed if n and not n.startswith(f'{lock.FOLDER}/')]
    self._objects.download(sorted(complete(names)), self.root)
    return names

  def push(self) -> None:
    """Makes the bucket as the directory is; errors as `Objects`.

    Raises:
      BadInput: another run has taken the workdir over; or see `Objects`.
    """
    with self._mutex:
      self._check()
      here = self._here()
      here = {name: here[name] for name in complete(here)}
      changed = [name for name in here if here[name] != self._same.get(name)]
      gone = [name for name in self._same if name not in here]
      markers = [name for name in changed if _MANIFEST.fullmatch(name)]
      self._delete([n for n in (*gone, *markers) if _MANIFEST.fullmatch(n)])
      self._upload([name for name in changed if name not in markers], here)
      self._upload(markers, here)
      self._delete([name for name in gone if name in self._same])

  def bring(self, directory: pathlib.Path, names: Collection[str]) -> None:
    """Copies files of a directory here to the bucket; errors as `push`."""
    with self._mutex:
      self._check()
      here = self._here()
      prefix = directory.relative_to(self.root).as_posix()
      self._upload([f'{prefix}/{name}' for name in sorted(names)], here)

  def fetch(self, directory: pathlib.Path) -> None:
    """Copies a directory from the bucket; errors as `Objects`."""
    shutil.rmtree(directory, ignore_errors=True)
    found = Objects(
      f'{self._objects.url}/{directory.relative_to(self.root).as_posix()}'
    )
    found.download(sorted(found.list()), directory)

  def drop(self) -> None:
    """Deletes from the bucket what was brought there and is here no more."""
    with self._mutex:
      here = self._here()
      self._delete([name for name in self._same if name not in here])

  def written(self, path: pathlib.Path) -> None:
    """Pushes, if `path` lies here."""
    if path.is_relative_to(self.root):
      self.push()

  def _upload(self, names: list[str], here: dict[str, tuple[int, int]]) -> None:
    self._objects.upload(self.root, names)
    self._same |= {name: here[name] for name in names}

  def _delete(self, names: list[str]) -> None:
    there = [name for name in names if name in self._same]
    self._objects.delete(there)
    for name in there:
      del self._same[name]

  def _here(self) -> dict[str, tuple[int, int]]:
    """Size and time of every file that is not just being written, by name."""
    found = {}
    for folder, folders, names in os.walk(self.root):
      folders[:] = [name for name in folders if not _PASSING.fullmatch(name)]
      for name in names:
        if not _PASSING.fullmatch(name):
          path = pathlib.Path(folder, name)
          status = path.stat()
          key = path.relative_to(self.root).as_posix()
          found[key] = (status.st_size, status.st_mtime_ns)
    return found


def complete(names: Collection[str]) -> set[str]:
  """Returns the names without those in steps, models, ... that have no manifest."""
  steps, whole = set(), set()
  for name in names:
    if (found := _MANIFEST.fullmatch(name)) is not None:
      steps.add(found['beside'])
      whole.add(found['inside'])
  found = [_FOLDER.fullmatch(name) for name in names]
  folders = {match[1] or match[2] or '' for match in found if match}
  unfinished = tuple(folders - whole)
  return {
    name
    for name in names
    if not ((step := _STEP.fullmatch(name)) and step[1] not in steps)
    and not name.startswith(unfinished)
  }
