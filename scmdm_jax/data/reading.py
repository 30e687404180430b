r"""Files of text as text: unpacked, decoded, with one kind of line end.

Every text file that a user hands over is read here, whatever is in it (prose, JSON,
tables, FASTA, merges): compressed by gzip, bgzip, bzip2, xz or Zstandard; in UTF-8, or
in UTF-16 or UTF-32 with a byte order mark; with line ends of Unix, Windows or old Macs,
which all become `\n`. Compression is known by a file's first bytes, not by its name.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import IO

from scmdm_jax.errors import BadInput, DamagedData, first_line
from scmdm_jax.regular_files import open_regular

# Endings of a name that say how a file is packed.
PACKED = ('.gz', '.bgz', '.bz2', '.xz', '.lzma', '.zst')
_CHUNK = 1 << 20  # Bytes decoded at a time.
# UTF-32 before UTF-16, whose little-endian mark begins the other's.
_MARKS = (
  (codecs.BOM_UTF8, 'utf-8'),
  (codecs.BOM_UTF32_LE, 'utf-32-le'),
  (codecs.BOM_UTF32_BE, 'utf-32-be'),
  (codecs.BOM_UTF16_LE, 'utf-16-le'),
  (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_BZIP2 = re.compile(rb'BZh[1-9](?:1AY&SY|\x17rE8P\x90)')
_POINTER = b'version https://git-lfs.github.com/spec/'


class NotText(BadInput):
  """A file has bytes that are no text."""


def suffix(path: pathlib.Path) -> str:
  """The ending that names a file's format, in lower case: `.csv` of `A.CSV.gz`."""
  name = pathlib.PurePath(path.name.lower())
  return (name.with_suffix('') if name.suffix in PACKED else name).suffix


def stem(path: pathlib.Path) -> str:
  """The name without the endings of its format and packing: `A` of `A.csv.gz`."""
  name = pathlib.PurePath(path.name)
  return (name.with_suffix('') if name.suffix.lower() in PACKED else name).stem


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """The unpacked content of a file, as a stream of bytes.

  Raises:
    BadInput: it cannot be opened, or is a pointer of Git LFS instead of the file.
    DamagedData: it is not packed as its name says, or cannot be unpacked; while it is
      read, too.
  """
  try:
    with contextlib.ExitStack() as stack:
      plain = stack.enter_context(open_regular(path))
      yield stack.enter_context(_unpacked(plain, path))
  except (EOFError, lzma.LZMAError, zlib.error) as error:
    raise DamagedData(
      f'{path}: cannot be read ({first_line(error)}); fetch it again'
    ) from error
  except OSError as error:
    if error.errno is not None:
      raise BadInput(
        f'{path}: {error.strerror or first_line(error)}; wanted a readable file'
      ) from error
    raise DamagedData(
      f'{path}: cannot be read ({first_line(error)}); fetch it again'
    ) from error


def _unpacked(file: IO[bytes], path: pathlib.Path) -> contextlib.AbstractContextManager:
  """A stream of what `file` holds, by its first bytes."""
  head = file.read(len(_POINTER))
  file.seek(0)
  if head.startswith(b'\x1f\x8b'):
    return gzip.open(file)
  if _BZIP2.match(head):
    return bz2.open(file)
  if head.startswith((b'\xfd7zXZ\0', b'\x5d\0\0')):
    return lzma.open(file)
  if head.startswith(b'\x28\xb5\x2f\xfd'):
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file), 'zstd'))
  if head == _POINTER:
    raise BadInput(
      f'{path}: a pointer of Git LFS, not the file itself; run git lfs pull there'
    )
  if head and path.suffix.lower() in PACKED:
    raise DamagedData(
      f'{path}: cannot be read (not packed as its name says: begins with '
      f'{head[:8]!r}); take {path.suffix} off its name if it is unpacked already'
    )
  return contextlib.nullcontext(file)


def chunks(path: pathlib.Path, errors: str = 'strict') -> Iterator[str]:
  r"""The text of a file in pieces, line ends `\n`, without its byte order mark.

  Args:
    path: the file.
    errors: what becomes of bytes that are no text, as in `bytes.decode`.

  Raises:
    BadInput: as `opened`; `NotText`: content that is no text.
    DamagedData: as `opened`.
  """
  with opened(path) as file:
    yield from _decoded(file, str(path), errors)


def text(path: pathlib.Path) -> str:
  """All of a file's text; see `chunks`."""
  return ''.join(chunks(path))


def lines(path: pathlib.Path, errors: str = 'strict') -> Iterator[str]:
  """The lines of a file without their ends; see `chunks`."""
  begun: list[str] = []
  for chunk in chunks(path, errors):
    *ended, rest = chunk.split('\n')
    for line in ended:
      yield ''.join([*begun, line])
      begun = []
    begun.append(rest)
  if last := ''.join(begun):
    yield last


def decode(data: bytes, where: str) -> str:
  """The text of bytes that were read already, for messages from `where`.

  Raises:
    NotText: they are no text.
  """
  return ''.join(_decoded(io.BytesIO(data), where, 'strict'))


def _decoded(file: IO[bytes], where: str, errors: str) -> Iterator[str]:
  """The text of a stream, by its byte order mark or else as UTF-8."""
  data = file.read(_CHUNK)
  mark, encoding = next((m for m in _MARKS if data.startswith(m[0])), (b'', 'utf-8'))
  decoder = codecs.getincrementaldecoder(encoding)(errors)
  unified = io.IncrementalNewlineDecoder(decoder, translate=True)
  fed, data, line = len(mark), data[len(mark) :], 1
  while True:
    fed += len(data)
    try:
      chunk = unified.decode(data, final=not data)
    except UnicodeDecodeError as error:
      at = fed - len(error.object) + error.start
      line += error.object[: error.start].count(b'\n')
      raise NotText(
        f'{where}: not {encoding.upper()} at byte {at} '
        f'(0x{error.object[error.start]:02x}) in line {line}; convert the file to UTF-8'
      ) from error
    line += chunk.count('\n')
    if '\0' in chunk:
      raise NotText(
        f'{where}: has a character 0, which no text has; wanted UTF-8; convert the '
        'file if it is UTF-16 without a byte order mark'
      )
    if chunk:
      yield chunk
    if not data:
      return
    data = file.read(_CHUNK)
