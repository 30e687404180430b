"""Processes of one run that have a disk each, and one bucket for all of them.

Every process writes what its devices hold to its own disk and brings it to the bucket;
the first adds the manifest, which makes it count, once all is there.
"""

import contextlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from scmdm_jax.checkpoints import digests
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.processes import multihost

_rounds = itertools.count()
_store: list['Parts'] = []


class Parts(Protocol):
  """A process's way to the bucket."""

  def bring(self, directory: pathlib.Path, names: Collection[str]) -> None:
    """Copies files of a directory to where all parts of it are."""
    ...

  def fetch(self, directory: pathlib.Path) -> None:
    """Makes a directory as it is in the bucket."""
    ...

  def drop(self) -> None:
    """Deletes from the bucket what was brought there and is here no more."""
    ...


@contextlib.contextmanager
def disks(store: Parts) -> Iterator[None]:
  """Inside the block every process of the run has a disk of its own."""
  _store.append(store)
  try:
    yield
  finally:
    _store.remove(store)


def is_apart() -> bool:
  """Returns whether every process has a disk of its own."""
  return bool(_store)


def on_each_disk(name: str, do: Callable[[], None]) -> None:
  """Runs `do` in the process that the disk belongs to; its BadInput is everybody's."""
  if not _store:
    multihost.first_does(name, do)
    return
  problem = ''
  try:
    do()
  except BadInput as e:
    problem = json.dumps([str(e), e.exit_code])
  for found in filter(None, multihost.exchanged(f'{name}/{next(_rounds)}', problem)):
    raise multihost.CommonMistake(*json.loads(found))


def check_equal(name: str, value: str) -> None:
  """Refuses to go on where the disks of the processes differ.

  Args:
    name: of what is compared, for the message.
    value: what this process has of it.

  Raises:
    CommonMistake: they do, in every process.
  """
  found = multihost.exchanged(f'{name}/{next(_rounds)}', value) if _store else [value]
  if len(set(found)) > 1:
    raise multihost.CommonMistake(
      f'{name}: found {", ".join(found)} on the disks of the processes; wanted one '
      'everywhere; start again, which copies the bucket again',
      DamagedData.exit_code,
    )


def everywhere(name: str, value: bool) -> bool:
  """Returns whether `value` is true of the disks of all processes."""
  if not _store:
    return value
  return all(
    map(json.loads, multihost.exchanged(f'{name}/{next(_rounds)}', json.dumps(value)))
  )


def record(directory: pathlib.Path, manifest: pathlib.Path) -> None:
  """Writes the manifest of a directory that all processes have written together.

  In whichever thread, but by all of them in the same order. Of a file that several have
  (they differ in times alone) that of the first counts.
  """
  if not _store:
    if multihost.index() == 0:
      digests.record(directory, manifest)
    return
  store, is_first, turn = _store[-1], multihost.index() == 0, next(_rounds)
  own = digests.entries(directory, manifest)
  names = multihost.exchanged(f'names/{turn}', json.dumps([*own] if is_first else []))
  if not is_first:
    own = {name: own[name] for name in own.keys() - set(json.loads(names[0]))}
    store.bring(directory, own)
  parts = multihost.exchanged(f'digests/{turn}', json.dumps(own))
  if is_first:
    together = {
      name: entry for part in parts for name, entry in json.loads(part).items()
    }
    digests.write(manifest, dict(sorted(together.items())))
  multihost.exchanged(f'recorded/{turn}', '')
  if not is_first:
    store.drop()


@contextlib.contextmanager
def scratch(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields where another process than the first writes along; nothing of it stays."""
  directory = path.with_name(f'.{path.name}.tmp-{multihost.index()}')
  directory.mkdir(parents=True)
  try:
    yield directory
  finally:
    shutil.rmtree(directory, ignore_errors=True)


def fetch(directory: pathlib.Path) -> None:
  """Brings what the first has written to the disks of the others."""
  if _store and multihost.index() > 0:
    _store[-1].fetch(directory)
