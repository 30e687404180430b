"""The objects below a URL `gs://BUCKET/PREFIX` or `s3://BUCKET/PREFIX`, through fsspec.

Endpoint and credentials are those of the libraries: `AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, ... of s3fs, `GOOGLE_APPLICATION_CREDENTIALS`,
`STORAGE_EMULATOR_HOST`, ... of gcsfs.
"""

import concurrent.futures
import contextlib
import errno
import logging
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from scmdm_jax.errors import BadInput, DamagedData, first_line

_AT_ONCE = 16  # Transfers.
# Of the server, not of what was asked: the same command may work later.
_SERVER = (errno.EIO, errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET)


class Content(NamedTuple):
  """Size in bytes of an object, and what changes whenever it is written."""

  size: int
  tag: str


class Objects:
  """Those whose names begin with a prefix; names below are relative to it.

  Every function raises BadInput where the bucket, or the right to it, is missing, and
  DamagedData where the server fails; each in one line with the URL.
  """

  def __init__(self, url: str):
    """Takes the URL of a folder, or of an object; asks the server for nothing."""
    self.url = url.rstrip('/')
    self._root = self.url.partition('://')[2]
    with _reaching(self.url):
      self._files = _file_system(self.url.partition('://')[0])

  def list(self) -> dict[str, Content]:
    """Returns all objects below the prefix by name; '' is the URL itself."""
    with _reaching(self.url):
      # Asked of the folder above, which says it where there is no bucket.
      self._files.ls(self._root.split('/')[0], detail=False)
      found = self._files.find(self._root, detail=True)
    contents = {}
    for path, info in found.items():
      name = path.removeprefix(f'{self._root}/')
      if path == self._root:
        name = ''
      if not name.endswith('/'):
        tag = info.get('ETag') or info.get('generation') or info.get('etag')
        contents[name] = Content(int(info['size']), str(tag))
    return contents

  def read(self, name: str) -> bytes | None:
    """Returns what an object holds; None where there is none."""
    try:
      with _reaching(self._named(name)):
        return self._files.cat_file(self._path(name))
    except Missing:
      return None

  def write(self, name: str, content: bytes) -> None:
    """Replaces an object, by one request."""
    with _reaching(self._named(name)):
      self._files.pipe_file(self._path(name), content)

  def create(self, name: str, content: bytes) -> bool:
    """Writes an object unless there is one; returns whether it did."""
    try:
      with _reaching(self._named(name)):
        self._files.pipe_file(self._path(name), content, mode='create')
    except FileExistsError:
      return False
    return True

  def download(self, names: Iterable[str], directory: pathlib.Path) -> None:
    """Copies objects to files of the same names; '' is the URL itself."""

    def copy(name: str) -> None:
      target = directory / name if name else directory
      target.parent.mkdir(parents=True, exist_ok=True)
      with _reaching(self._named(name)):
        self._files.get_file(self._path(name), str(target))

    _each(copy, names)

  def upload(self, directory: pathlib.Path, names: Iterable[str]) -> None:
    """Copies files to objects of the same names, each of which appears whole."""

    def copy(name: str) -> None:
      with _reaching(self._named(name)):
        self._files.put_file(str(directory / name), self._path(name))

    _each(copy, names)

  def delete(self, names: Collection[str]) -> None:
    """Deletes objects; those that are gone already count as deleted."""
    if names:
      with contextlib.suppress(Missing), _reaching(self.url):
        self._files.rm([self._path(name) for name in names])

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}' if name else self._root

  def _named(self, name: str) -> str:
    return f'{self.url}/{name}' if name else self.url


class Missing(BadInput):
  """No such bucket or object."""


def _each(do: Callable[[str], None], names: Iterable[str]) -> None:
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    for _ in pool.map(do, names):
      pass


def _file_system(scheme: str) -> Any:
  import fsspec

  # It logs, with a traceback, what it also raises.
  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)
  # A listing that is remembered would hide what another process has written.
  return fsspec.filesystem(scheme, use_listings_cache=False)


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
  """Turns what the libraries raise, a dozen types, into one line with the URL."""
  try:
    yield
  except (BadInput, FileExistsError):
    raise
  except ImportError as e:
    raise BadInput(f"{url}: {first_line(e)}; run pip install 'scmdm_jax[cloud]'") from e
  except FileNotFoundError as e:
    raise Missing(f'{url}: no such bucket or object ({first_line(e)})') from e
  except Exception as e:
    code = re.search(r'\b5\d\d\b', f'{getattr(e, "code", "")} {first_line(e)}')
    if code or getattr(e, 'errno', None) in _SERVER:
      raise DamagedData(
        f'{url}: the server failed ({first_line(e)}); run the same command again later'
      ) from e
    raise BadInput(
      f'{url}: cannot be reached ({type(e).__name__}: {first_line(e)}); wanted an '
      'existing bucket, credentials for it and, but for the usual one, its endpoint'
    ) from e
