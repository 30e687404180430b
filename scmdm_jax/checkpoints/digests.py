"""A manifest of a directory's files: their sizes and SHA-256 sums.

Orbax and TensorStore check no array data: a flipped bit is loaded as a weight. The
manifest finds it, and every file that was cut, lost or added.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
from typing import Any

from scmdm_jax import files
from scmdm_jax.checkpoints import disk
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.regular_files import open_regular

MANIFEST = 'digests.json'
FORMAT = 1
# What is read through and compared unless a caller says otherwise: some seconds' worth.
VERIFY_BELOW = 2 << 30

_SHOWN = 8


def record(directory: pathlib.Path, manifest: pathlib.Path) -> None:
  """Writes the manifest of all files below `directory`, by one rename."""
  write(manifest, entries(directory, manifest))


def entries(directory: pathlib.Path, manifest: pathlib.Path) -> dict[str, Any]:
  """Returns size and digest of every file below `directory` by its name.

  The manifest itself, if it lies there, is left out.
  """
  names = _files(directory, manifest)
  return {
    name: {'bytes': (directory / name).stat().st_size, 'sha256': digest}
    for name, digest in _digests(directory, names).items()
  }


def write(manifest: pathlib.Path, entries: dict[str, Any]) -> None:
  """Writes a manifest of `entries` by one rename."""
  files.write_json(manifest, {'format': FORMAT, 'files': entries})


def check(
  directory: pathlib.Path, manifest: pathlib.Path, verify_below: int
) -> dict[str, Any]:
  """Compares the files below `directory` with their manifest.

  Names and sizes are always compared. Contents are, unless the files together have
  `verify_below` bytes or more; that is logged, never silent.

  Returns:
    Figures: 'files', 'bytes', and 'contents', whether these were compared.

  Raises:
    BadInput: a manifest of another version.
    DamagedData: one message with every file that is missing, foreign, of another size,
      or altered; or the manifest cannot be read.
  """
  data = disk.read_json(manifest)
  if data.get('format') != FORMAT:
    raise BadInput(
      f'{manifest}: format is {data.get("format")!r}; this version reads {FORMAT}'
    )
  try:
    wanted = {
      str(name): (int(entry['bytes']), str(entry['sha256']))
      for name, entry in data['files'].items()
    }
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    raise DamagedData(f'{manifest}: not a manifest ({e!r}); use another copy') from e
  found = _files(directory, manifest)
  problems = [f'missing {name}' for name in wanted if name not in found]
  problems += [f'foreign {name}' for name in found if name not in wanted]
  both = [name for name in wanted if name in found]
  for name in both:
    size = (directory / name).stat().st_size
    if size != wanted[name][0]:
      problems.append(f'{name}: {size} bytes, wanted {wanted[name][0]}')
  total = sum(size for size, _ in wanted.values())
  contents = total < verify_below
  if not problems and contents:
    digests = _digests(directory, both)
    problems += [f'altered {name}' for name in both if digests[name] != wanted[name][1]]
  if problems:
    more = f' and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
    raise DamagedData(
      f'{directory}: not what was written: {"; ".join(problems[:_SHOWN])}{more}; use '
      'another copy'
    )
  if verify_below and not contents:  # Who gives 0 has asked for it.
    logging.warning(
      '%s: contents not verified: %d bytes, and verify_below is %d',
      directory,
      total,
      verify_below,
    )
  return {'files': len(wanted), 'bytes': total, 'contents': contents}


def _files(directory: pathlib.Path, manifest: pathlib.Path) -> list[str]:
  found = []
  for folder, folders, names in os.walk(directory):
    # A link to a directory is not followed: nothing of ours is one.
    links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
    paths = (pathlib.Path(folder, name) for name in (*names, *links))
    found += [str(p.relative_to(directory)) for p in paths if p != manifest]
  return sorted(found)


def _digests(directory: pathlib.Path, names: list[str]) -> dict[str, str]:
  """SHA-256 (hex) of every file; hashing leaves the interpreter to other threads."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return dict(
      zip(names, pool.map(lambda n: of_file(directory / n), names), strict=True)
    )


def of_file(path: pathlib.Path) -> str:
  """Returns the SHA-256 (hex) of a file; DamagedData if it cannot be read."""
  try:
    with open_regular(path) as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as e:
    raise DamagedData(f'{path}: cannot be read ({e.strerror}); use another copy') from e
