"""Directories that appear whole or not at all, and JSON that cannot do harm."""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from scmdm_jax import files
from scmdm_jax.data.reading import NotText, decode
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular

# Configurations are a few kB; the index of a 70B model is under 200 kB.
MAX_JSON_BYTES = 8 << 20


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in `path`.

  Raises:
    BadInput: no such file, or one beyond `MAX_JSON_BYTES`.
    DamagedData: not UTF-8, not JSON, nested too deep, or not an object.
  """
  try:
    # Reads one byte beyond the cap instead of asking for the size: the file may grow.
    with open_regular(path) as file:
      data = file.read(MAX_JSON_BYTES + 1)
  except OSError as e:
    raise BadInput(f'{path}: {e.strerror}; wanted a readable JSON file') from e
  if len(data) > MAX_JSON_BYTES:
    raise BadInput(
      f'{path}: more than {MAX_JSON_BYTES} bytes; wanted a small JSON file'
    )
  try:
    text = decode(data, path.name)
    value = json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError, NotText) as e:
    raise DamagedData(f'{path}: not JSON ({e}); get the file again') from e
  if not isinstance(value, dict):
    raise DamagedData(f'{path}: a JSON {type(value).__name__}; wanted an object')
  return value


def _refuse_constant(name: str) -> None:
  raise ValueError(f'{name} is not a JSON number')


def refuse_occupied(path: pathlib.Path) -> None:
  """Raises BadInput unless `path` is free: absent, or an empty directory."""
  if path.is_dir():
    names = sorted(p.name for p in path.iterdir())
    if names:
      raise BadInput(
        f'{path}: not empty (holds {", ".join(names[:3])}); give a new directory'
      )
  elif path.exists() or path.is_symlink():
    raise BadInput(f'{path}: a file; give a new directory')


@contextlib.contextmanager
def new_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary sibling of `path` that is renamed to `path` on success.

  Everything in it reaches the disk before the rename. On an exception the temporary
  directory is removed and `path` stays as it was; that of a killed process is removed
  by the next one. A directory already at `path` is
  moved aside, then deleted: whether it may be replaced is the caller's decision, and
  a kill between the two renames leaves it beside `path`, complete.

  Raises:
    BadInput: the parent cannot be written to.
    DamagedData: the disk is full or failing.
  """
  path = path.resolve()  # Through a link, the directory that it names is renamed.
  token = f'{os.getpid()}-{secrets.token_hex(4)}'
  temporary = path.parent / f'.{path.name}.tmp-{token}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    temporary.mkdir()
    lock = held(temporary)
  except OSError as e:
    raise BadInput(f'{path}: cannot create it ({e.strerror}); give another path') from e
  try:
    yield temporary
    for folder, _, names in os.walk(temporary):
      for name in names:
        _sync(pathlib.Path(folder, name))
      _sync(pathlib.Path(folder))
    if path.is_dir():
      aside = path.parent / f'.{path.name}.old-{token}'
      path.rename(aside)
      temporary.rename(path)
      shutil.rmtree(aside)
    else:
      temporary.rename(path)
    _sync(path.parent)
  except OSError as e:
    free = shutil.disk_usage(path.parent).free
    raise DamagedData(
      f'{path}: writing failed ({e.strerror or e}), {free} bytes are free; '
      'nothing was left behind'
    ) from e
  finally:
    os.close(lock)
    shutil.rmtree(temporary, ignore_errors=True)
  files.written(path)


def held(directory: pathlib.Path) -> int:
  """Returns a descriptor that keeps `remove_abandoned` off until it is closed."""
  lock = os.open(directory, os.O_RDONLY)
  with contextlib.suppress(OSError):  # A file system without locks.
    fcntl.flock(lock, fcntl.LOCK_EX)
  return lock


def remove_abandoned(path: pathlib.Path) -> None:
  """Deletes what killed processes were writing for `path`: nobody holds its lock."""
  for old in path.parent.glob(f'.{glob.escape(path.name)}.tmp-*'):
    with contextlib.suppress(OSError):
      lock = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(old)
      finally:
        os.close(lock)


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
  """Turns whatever goes wrong while an array store at `path` is read into DamagedData.

  Orbax and TensorStore report damage as any of a dozen types, by internal names.
  """
  try:
    yield
  except Exception as e:
    raise DamagedData(
      f'{path}: cannot be read ({_first_line(e)}); files are missing or altered: use '
      'another checkpoint'
    ) from e


@contextlib.contextmanager
def saving(
  path: pathlib.Path, complete_steps: Callable[[], list[int]] | None = None
) -> Iterator[None]:
  """Turns a failure to write to `path` into DamagedData, with the free space.

  Args:
    path: what is written, for the message.
    complete_steps: the steps that are safe, named in the message.
  """
  try:
    yield
  except (OSError, RuntimeError, ValueError) as e:
    intact = f'; complete steps {complete_steps()} are intact' if complete_steps else ''
    free = shutil.disk_usage(path if path.exists() else path.parent).free
    raise DamagedData(
      f'{path}: saving failed ({_first_line(e)}), {free} bytes are free{intact}; '
      'make room or mend the disk, then run the same command again'
    ) from e


def _first_line(error: BaseException) -> str:
  return (str(error).splitlines() or [''])[0] or type(error).__name__
