"""DNA sequences out of files: FASTA and parquet tables, packed or not.

Letters are taken in upper case (lower case marks repeats in some files). `N` and the
other letters of IUPAC for "one of several bases" become `N`, and so do `X` and the gaps
`-` and `.`. U, RNA's T, is refused: it says that the file is another than it seems.
"""

import pathlib
from collections.abc import Iterator

from scmdm_jax.data import journal, reading
from scmdm_jax.data.tables import PARQUET, parquet_rows
from scmdm_jax.errors import BadInput

# .ffn has genes, .fas and .mfa are other spellings.
_FASTA = (
  '.fa',
  '.fna',
  '.fasta',
  '.fas',
  '.ffn',
  '.fsa',
  '.frn',
  '.mfa',
  '.dna',
  '.seq',
)
_WANTED = f'{" ".join(_FASTA)}, each also packed as {" ".join(reading.PACKED)}'
_CODES = b'ACGTRYKMSWBDHVNX-.'  # IUPAC's.
_TO_BASE = bytes(
  (c if c in b'ACGT' else ord('N')) if c in _CODES else 0
  for c in bytes(range(256)).upper()
)
_BLANK = ' \t\ufeff'  # Around a line; files put together have marks inside.
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
  others: list[str] = []
  for path in sorted(source.rglob('*')):
    parts = path.relative_to(source).parts
    if not path.is_file() or any(part.startswith('.') for part in parts):
      continue
    if reading.suffix(path) not in _FASTA:
      others.append(str(path.relative_to(source)))
      continue
    species = parts[0] if len(parts) > 1 else reading.stem(path)
    if found.get(species) and (len(parts) == 1 or found[species][0].parent == source):
      raise BadInput(
        f'data.source {source}: species {species} is there twice, as '
        f'{found[species][0].name} and {path.name}; wanted one file or one folder'
      )
    found.setdefault(species, []).append(path)
  if not found:
    raise BadInput(
      f'data.source {source}: no FASTA file in it; wanted {_WANTED}; '
      'docs/genome_data.md says how to make it of packages'
    )
  if others:
    journal.note(
      'left_out',
      others[:20],
      f'genomes: not read: {", ".join(others[:5])}'
      + (f' and {len(others) - 5} more' if len(others) > 5 else ''),
    )
  return dict(sorted(found.items()))


def tables(source: pathlib.Path) -> list[pathlib.Path]:
  """The parquet files at a path: itself, or a folder's; none if there are none."""
  files = sorted(source.rglob('*')) if source.is_dir() else [source]
  return [p for p in files if reading.suffix(p) in PARQUET and p.is_file()]


def read_fasta(path: pathlib.Path) -> Iterator[bytes]:
  """The sequences of a FASTA file, `ACGTN` only, one at a time in memory.

  Raises:
    BadInput: a letter that no nucleotide has, such as those of proteins, or a sequence
      before the first header.
    DamagedData: the file cannot be read or unpacked.
  """
  lines: list[bytes] | None = None
  # Headers may be in any encoding: they are not read.
  for number, line in enumerate(reading.lines(path, errors='replace'), 1):
    line = line.strip(_BLANK)
    if line.startswith('>'):
      if lines:
        yield b''.join(lines)
      lines = []
    elif line and not line.startswith(';'):
      if lines is None:
        raise BadInput(
          f'{path}: line {number} stands before any header; wanted FASTA, where a '
          "line that begins with '>' names a sequence"
        )
      lines.append(_bases(line, f'{path}: line {number}'))
  if lines:
    yield b''.join(lines)


def read_table(path: pathlib.Path) -> Iterator[tuple[int | str, bytes]]:
  """Species (number or name) and sequence of the rows of a parquet file.

  Raises:
    BadInput: no such columns, or a row that is not of them.
    DamagedData: the file cannot be parsed.
  """
  for place, (label, text) in parquet_rows(path, [(LABEL,), (SEQUENCE,)], 100):
    if not isinstance(label, int | str) or not isinstance(text, str):
      raise BadInput(
        f'{path}: {place} has {LABEL} {label!r} and a {SEQUENCE} of type '
        f'{type(text).__name__}; wanted a number or a name, and a text'
      )
    yield label, _bases(text.strip(_BLANK), f'{path}: {place}')


def _bases(letters: str, where: str) -> bytes:
  """Upper case, `N` for what is not one base."""
  bases = letters.encode('ascii', 'replace').translate(_TO_BASE)
  at = bases.find(0)
  if at >= 0:
    found = letters[at]
    hint = 'is this RNA? write T for U' if found in 'uU' else 'is this a protein?'
    raise BadInput(
      f'{where}: {found!a} is no nucleotide; wanted A, C, G, T, N or another '
      f'code of IUPAC; {hint}'
    )
  return bases
