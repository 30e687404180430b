"""The one way a file is written: whole and on the disk under its name, or not at all.

Readers see the old file or the new one. A directory that appears whole is
`checkpoints.disk.new_directory`. A file of lines that grows has whole lines, see
`appending`.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from scmdm_jax.regular_files import open_regular, read_regular

# Told of every path that was written: a workdir in a bucket has a copy to bring there.
listeners: list[Callable[[pathlib.Path], None]] = []


def written(path: pathlib.Path) -> None:
  """Tells the listeners of a file or directory that is there now, whole."""
  for listener in listeners:
    listener(path)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a hidden name beside `path` to write to, which takes its place afterwards.

  Where the block raises, `path` stays as it was and nothing is left beside it. One
  process writes a path at a time.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    yield temporary
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
      os.fsync(descriptor)  # A rename may reach the disk before what it names.
    finally:
      os.close(descriptor)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  written(path)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces `path` by `content`."""
  with replacing(path) as temporary:
    temporary.write_bytes(content)


def write_text(path: pathlib.Path, content: str) -> None:
  """Replaces `path` by `content`, in UTF-8 with line feeds."""
  write_bytes(path, content.encode('utf-8'))


def write_json(path: pathlib.Path, value: Any, *, allow_nan: bool = True) -> None:
  """Replaces `path` by `value` as JSON, for people to read.

  Raises:
    ValueError: NaN or infinity where `allow_nan` is False; strict readers refuse them.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=allow_nan) + '\n')


def whole_lines(path: pathlib.Path) -> bytes:
  """Returns the lines of a file, without a last one that a kill has torn; b'': none.

  Raises:
    OSError: it is no regular file, or cannot be read.
  """
  try:
    content = read_regular(path)
  except FileNotFoundError:
    return b''
  return content[: content.rfind(b'\n') + 1]


@contextlib.contextmanager
def appending(path: pathlib.Path) -> Iterator[Callable[[str], None]]:
  """Yields what puts lines behind those of `path`, each on the disk when it returns.

  A last line that a kill has torn is cut off first.
  """
  kept = whole_lines(path)
  if path.exists() and len(kept) < path.stat().st_size:
    write_bytes(path, kept)
  with open_regular(path, 'a') as file:

    def append(lines: str) -> None:
      file.write(lines)
      file.flush()
      os.fsync(file.fileno())

    yield append
