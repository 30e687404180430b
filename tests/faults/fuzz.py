"""`python tests/faults/fuzz.py READER [--minutes N]`: a coverage-guided fuzzer.

Needs `pip install atheris` (libFuzzer for Python; wheels for Linux). Inputs that reach
new code of the package are kept in tests/faults/corpus/READER if they are small; an
input whose reading raises anything but `BadInput`, takes 10 s or 2 GB ends the fuzzer
and is left in the current directory as crash-*, timeout-* or oom-*.
"""

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile

import atheris

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

# Their branches are what leads the fuzzer.
with atheris.instrument_imports(include=['scmdm_jax', 'json']):
  from tests.faults.readers import READERS, attempt

CORPUS = ROOT / 'tests' / 'faults' / 'corpus'
MOST_BYTES, MOST_FILES = 2000, 40  # Of the corpus of a reader: tens of kB in all.


def keep(found: pathlib.Path, kept: pathlib.Path) -> None:
  """Copies the smallest inputs, as many as fit, into the corpus that is committed."""
  kept.mkdir(parents=True, exist_ok=True)
  small = sorted(
    (path.stat().st_size, path.name, path) for path in found.iterdir() if path.is_file()
  )
  for size, name, path in small[:: max(len(small) // MOST_FILES, 1)]:
    if 0 < size <= MOST_BYTES:
      shutil.copyfile(path, kept / name[:16])


def main() -> int:
  """Returns the exit code of the fuzzer."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('reader', choices=READERS)
  parser.add_argument('--minutes', type=float, default=60)
  options = parser.parse_args()
  reader = READERS[options.reader]
  work = pathlib.Path(tempfile.mkdtemp(prefix='fuzz-'))
  for n, content in enumerate(reader.seeds()):
    (work / f'seed-{n}').write_bytes(content)
  # The words of sound files, so that whole fields are moved about.
  words = {
    w for content in reader.seeds() for w in re.findall(rb'"[\w ]{1,40}"', content)
  }
  dictionary = work.with_suffix('.dict')
  dictionary.write_bytes(b''.join(b'"\\"%b\\""\n' % w[1:-1] for w in sorted(words)))
  kept = CORPUS / options.reader
  kept.mkdir(parents=True, exist_ok=True)

  def one(content: bytes) -> None:
    attempt(reader, content)

  child = os.fork()
  if not child:  # libFuzzer ends its process.
    limits = ['-timeout=10', '-rss_limit_mb=2048', '-max_len=32768']
    limits += [f'-dict={dictionary}'] if words else []
    limits.append(f'-max_total_time={int(options.minutes * 60)}')
    atheris.Setup([sys.argv[0], *limits, str(work), str(kept)], one)
    atheris.Fuzz()
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  keep(work, kept)
  dictionary.unlink()
  shutil.rmtree(work)
  return code


if __name__ == '__main__':
  sys.exit(main())
