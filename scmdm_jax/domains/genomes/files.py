"""DNA sequences out of files: FASTA, plain or compressed, and parquet tables.

Letters are taken in upper case (lower case marks repeats in some files). `N` and the
other letters of IUPAC for "one of several bases" become `N`.
"""

import gzip
import lzma
import pathlib
import re
import zlib
from collections.abc import Iterator

from scmdm_jax.errors import BadInput, DamagedData

_FASTA = re.compile(r'\.(?:fa|fna|fasta|dna)(?:\.gz|\.xz)?$', re.IGNORECASE)
_PARQUET = re.compile(r'\.parquet$', re.IGNORECASE)
# IUPAC's codes; U is RNA's T, which is not guessed here.
_CODES = b'ACGTURYKMSWBDHVNX-'
_TO_BASE = bytes(
  (c if c in b'ACGT' else ord('N')) if c in _CODES else 0
  for c in bytes(range(256)).upper()
)
SEQUENCE, LABEL = 'sequence', 'species_label'  # Columns of a table.


def species_files(source: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """FASTA files by species, in the order of the names of the species.

  A folder in `source` with FASTA files in it, at any depth, is a species; so is such a
  file beside it, without its endings: `E_coli.fna.gz`.

  Raises:
    BadInput: no folder there, or no such file in it, or a species twice.
  """
  if not source.is_dir():
    raise BadInput(
      f'data.source {source}: no folder; wanted one with a folder or a FASTA file per '
      'species; docs/genome_data.md says how to make it of packages'
    )
  found: dict[str, list[pathlib.Path]] = {}
  for path in sorted(source.rglob('*')):
    parts = path.relative_to(source).parts
    if not _FASTA.search(path.name) or not path.is_file():
      continue
    if any(part.startswith('.') for part in parts):
      continue
    species = parts[0] if len(parts) > 1 else _FASTA.sub('', path.name)
    if found.get(species) and (len(parts) == 1 or found[species][0].parent == source):
      raise BadInput(
        f'data.source {source}: species {species} is there twice, as '
        f'{found[species][0].name} and {path.name}; wanted one file or one folder'
      )
    found.setdefault(species, []).append(path)
  if not found:
    raise BadInput(
      f'data.source {source}: no FASTA file in it; wanted .fa, .fna, .fasta or .dna, '
      'perhaps with .gz or .xz; docs/genome_data.md says how to make it of packages'
    )
  return dict(sorted(found.items()))


def tables(source: pathlib.Path) -> list[pathlib.Path]:
  """The parquet files at a path: itself, or a folder's; none if there are none."""
  files = sorted(source.rglob('*.parquet')) if source.is_dir() else [source]
  return [path for path in files if _PARQUET.search(path.name) and path.is_file()]


def read_fasta(path: pathlib.Path) -> Iterator[bytes]:
  """The sequences of a FASTA file, `ACGTN` only, one at a time in memory.

  Raises:
    BadInput: a letter that no nucleotide has, such as those of proteins, or a sequence
      before the first header.
    DamagedData: the file cannot be read or unpacked.
  """
  opener = {'.gz': gzip.open, '.xz': lzma.open}.get(path.suffix.lower(), open)
  lines: list[bytes] | None = None
  try:
    with opener(path, 'rb') as file:
      for number, line in enumerate(file, 1):
        line = line.strip()
        if line.startswith(b'>'):
          if lines:
            yield b''.join(lines)
          lines = []
        elif line and not line.startswith(b';'):
          if lines is None:
            raise BadInput(
              f'{path}: line {number} stands before any header; wanted FASTA, where a '
              "line that begins with '>' names a sequence"
            )
          lines.append(_bases(line, f'{path}: line {number}'))
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    raise DamagedData(f'{path}: cannot be read ({error}); fetch it again') from error
  if lines:
    yield b''.join(lines)


def read_table(path: pathlib.Path) -> Iterator[tuple[int | str, bytes]]:
  """Species (number or name) and sequence of the rows of a parquet file.

  Raises:
    BadInput: no such columns, or a row that is not of them.
    DamagedData: the file cannot be parsed.
  """
  import pyarrow as pa
  from pyarrow import parquet

  row = 0
  try:
    with parquet.ParquetFile(path) as file:
      missing = {SEQUENCE, LABEL} - {*file.schema_arrow.names}
      if missing:
        raise BadInput(
          f'{path}: no column {min(missing)}; found {file.schema_arrow.names}'
        )
      for batch in file.iter_batches(batch_size=100, columns=[LABEL, SEQUENCE]):
        for label, text in zip(*(c.to_pylist() for c in batch.columns), strict=True):
          if not isinstance(label, int | str) or not isinstance(text, str):
            raise BadInput(
              f'{path}: row {row} has {LABEL} {label!r} and a {SEQUENCE} of type '
              f'{type(text).__name__}; wanted a number or a name, and a text'
            )
          yield label, _bases(text.encode(), f'{path}: row {row}')
          row += 1
  except (pa.ArrowException, OSError) as error:
    reason = str(error).splitlines()[0]
    raise DamagedData(f'{path}: cannot be parsed ({reason}); fetch it again') from error


def _bases(letters: bytes, where: str) -> bytes:
  """Upper case, `N` for what is not one base."""
  bases = letters.translate(_TO_BASE)
  at = bases.find(0)
  if at >= 0:
    raise BadInput(
      f'{where}: {chr(letters[at])!r} is no nucleotide; wanted A, C, G, T, N or '
      'another code of IUPAC; is this a protein?'
    )
  return bases
