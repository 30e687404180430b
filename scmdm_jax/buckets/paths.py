"""Where a path that the user gave lies on this disk.

One in a bucket is copied to a temporary directory first, once for a process; the
directory goes when the process ends, and that of a killed one when the next begins.
A message names the URL, not the copy: see `named`.
"""

import atexit
import contextlib
import os
import pathlib
import secrets
import shutil
import tempfile
import zlib

from scmdm_jax import files
from scmdm_jax.buckets.mirror import Mirror
from scmdm_jax.buckets.objects import Objects
from scmdm_jax.buckets.urls import is_bucket
from scmdm_jax.checkpoints import disk

copies: dict[str, pathlib.Path] = {}  # By URL, where what it names is here.
_fetched: set[tuple[str, bool]] = set()
_staging: list[tuple[pathlib.Path, contextlib.ExitStack]] = []


def local_path(path: str, *, everything: bool = False) -> pathlib.Path:
  """Returns where `path` lies on this disk; a bucket's is copied before.

  Args:
    path: as the user gave it, or a URL that `accepted` has seen.
    everything: also the steps of a training workdir, not its model alone.

  Raises:
    BadInput: the bucket, or the right to it, is missing. Whether there is anything at
      the path is for the caller to see.
    DamagedData: its server fails.
  """
  if not is_bucket(path):
    return pathlib.Path(os.path.expanduser(path))
  url = path.rstrip('/')
  if (url, everything) not in _fetched:
    _fetch(url, everything)
    _fetched.add((url, everything))
  return copies[url]


def _fetch(url: str, everything: bool) -> None:
  objects = Objects(url)
  target = copies.setdefault(url, place('read', url))
  names = objects.list()
  wanted = set(names)
  if not everything and 'model/model.json' in wanted and 'model.json' not in wanted:
    wanted = {n for n in wanted if '/' not in n or n.startswith('model/')}
  missing = [n for n in wanted if not (target / n).is_file()]
  objects.download(sorted(missing), target)
  for name in missing:
    # Prepared data are known by the times of their sources.
    time = zlib.crc32(names[name].tag.encode())
    os.utime(target / name, (time, time))


def local_directory(path: str) -> pathlib.Path:
  """Returns `path` on this disk, for files that are kept there from run to run.

  What is written there and announced to `files.written` goes to the bucket, too.
  """
  if not is_bucket(path):
    return pathlib.Path(path).expanduser()
  url = path.rstrip('/')
  if url not in copies:
    root = place('kept', url)
    root.mkdir(parents=True)
    mirror = Mirror(Objects(url), root)
    mirror.pull()
    files.listeners.append(mirror.written)
    copies[url] = root
  return copies[url]


def named(text: str) -> str:
  """Returns `text` with the URL wherever it has the place of a copy."""
  for url, place in sorted(copies.items(), key=lambda item: -len(str(item[1]))):
    text = text.replace(str(place), url)
  return text


def forget() -> None:
  """Deletes all copies."""
  copies.clear()
  _fetched.clear()
  for folder, stack in _staging:
    stack.close()
    shutil.rmtree(folder, ignore_errors=True)
  _staging.clear()


def place(kind: str, url: str) -> pathlib.Path:
  """Where a copy of `url` goes, below a directory of this process."""
  if not _staging:
    # Removed with others that nobody holds by the next process.
    family = pathlib.Path(tempfile.gettempdir(), f'scmdm_jax-{os.getuid()}').absolute()
    disk.remove_abandoned(family)
    folder = family.with_name(f'.{family.name}.tmp-{secrets.token_hex(8)}')
    folder.mkdir(mode=0o700)
    stack = contextlib.ExitStack()
    stack.callback(os.close, disk.held(folder))
    _staging.append((folder, stack))
    atexit.register(forget)
  scheme, _, rest = url.partition('://')
  return _staging[0][0] / kind / scheme / rest
