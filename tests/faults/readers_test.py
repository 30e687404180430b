"""Any bytes in the place of a file of others: read, or refused in one line.

`fuzz.py` looks further, led by coverage; what it found is kept in `corpus/`.
"""

import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.readers import READERS, attempt

CORPUS = pathlib.Path(__file__).parent / 'corpus'
LONG = bool(os.environ.get('SCMDM_LONG'))
EXAMPLES = settings(
  max_examples=5000 if LONG else 40, deadline=None, derandomize=True, database=None
)
# What JSON says otherwise than its readers may expect.
WORDS = [
  b'null',
  b'-1',
  b'1e999',
  b'{}',
  b'[]',
  b'""',
  b'true',
  b'"\\ud800"',
  b'9' * 5000,
]


@pytest.mark.parametrize('name', READERS)
def test_sound_files_are_read(name):
  for content in READERS[name].seeds():
    assert attempt(READERS[name], content) is None


@pytest.mark.timeout(3600)
@pytest.mark.parametrize('name', READERS)
def test_altered_files_are_read_or_refused(name, fault):
  reader = READERS[name]
  seeds = reader.seeds()
  seen = [0, 0]

  @EXAMPLES
  @given(st.data())
  def alter(data):
    content = data.draw(st.sampled_from(seeds))
    for _ in range(data.draw(st.integers(1, 3))):
      start = data.draw(st.integers(0, len(content)))
      cut = data.draw(st.sampled_from([0, 1, 2, 8, 40, len(content)]))
      noise = data.draw(st.binary(max_size=12) | st.sampled_from(WORDS))
      content = content[:start] + noise + content[start + cut :]
    seen[attempt(reader, content) is not None] += 1

  alter()
  count = sum(seen)
  assert count >= 40
  fault(
    f'Altered bytes in {reader.name}',
    count,
    'read, or one line',
    f'{seen[0]} read, {seen[1]} refused',
  )


@pytest.mark.parametrize('name', sorted(path.name for path in CORPUS.iterdir()))
def test_what_the_fuzzer_kept(name, fault):
  contents = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
  refused = sum(attempt(READERS[name], content) is not None for content in contents)
  fault(
    f'{READERS[name].name} as the fuzzer left it',
    len(contents),
    'read, or one line',
    f'{len(contents) - refused} read, {refused} refused',
  )
