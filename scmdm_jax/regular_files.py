"""Opens regular files and nothing else.

Opening a named pipe waits for whoever is at its other end, and a device may never end.
"""

import errno
import os
import pathlib
import stat
from typing import Any

_FLAGS = {'r': os.O_RDONLY, 'a': os.O_WRONLY | os.O_CREAT | os.O_APPEND}
_KINDS = {
  stat.S_IFIFO: 'a named pipe',
  stat.S_IFCHR: 'a character device',
  stat.S_IFBLK: 'a block device',
  stat.S_IFSOCK: 'a socket',
}


def open_regular(
  path: str | pathlib.Path, mode: str = 'rb', buffering: int = -1
) -> Any:
  """Returns the file at `path`, opened without waiting for anybody.

  Args:
    path: a regular file, or a link to one.
    mode: 'rb' or 'r' to read, 'a' to write behind what is there.
    buffering: as `open` takes it.

  Raises:
    OSError: it is no regular file, or cannot be opened; `strerror` says why.
  """
  # Without O_NONBLOCK, opening a pipe would hang before it can be looked at.
  flags = _FLAGS[mode[0]] | os.O_NONBLOCK | os.O_CLOEXEC
  descriptor = os.open(path, flags, 0o666)
  try:
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFDIR:
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
      what = _KINDS.get(kind, 'a special file')
      raise OSError(errno.EINVAL, f'{what}, not a regular file', str(path))
    return os.fdopen(descriptor, mode, buffering)
  except BaseException:
    os.close(descriptor)
    raise


def read_regular(path: str | pathlib.Path) -> bytes:
  """Returns what the regular file at `path` holds; errors as `open_regular`."""
  with open_regular(path) as file:
    return file.read()


def special_files(directory: pathlib.Path) -> list[str]:
  """Returns the names below `directory` that are neither files nor directories.

  A link counts as what it leads to; one that leads nowhere is left out.
  """
  found = []
  for folder, _, names in os.walk(directory):
    for name in names:
      path = pathlib.Path(folder, name)
      if path.exists() and not path.is_file():
        found.append(str(path.relative_to(directory)))
  return sorted(found)
