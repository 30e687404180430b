"""Every fault of the list has a test that exists, or a reason; the page is complete."""

import pathlib
import re

from tests.faults import beyond, elsewhere

ROOT = pathlib.Path(__file__).parents[2]


def exists(place: str) -> bool:
  path, _, function = place.partition('::')
  file = ROOT / path
  return file.is_file() and (not function or f'def {function}(' in file.read_text())


def test_every_fault_has_a_place_or_a_reason():
  assert {*elsewhere.FIFTY} | {*elsewhere.NOT_HERE} == {*range(1, 51)}
  assert not {*elsewhere.FIFTY} & {*elsewhere.NOT_HERE}


def test_every_named_test_exists():
  faults = [*elsewhere.FIFTY.values(), *beyond.FURTHER]
  places = [place for fault in faults for place in fault.tests]
  assert [place for place in places if not exists(place)] == []


def test_every_promise_names_tests_that_exist():
  page = (ROOT / 'docs' / 'reliability.md').read_text()
  promises = page.partition('## What we promise')[2].partition('## What we do not')[0]
  lines = [line for line in promises.splitlines() if line.startswith('| ')][2:]
  assert len(lines) >= 10
  for line in lines:
    named = re.findall(r'`(tests/[^`]+)`', line)
    assert named and all(map(exists, named)), line
