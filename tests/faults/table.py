"""`python tests/faults/table.py`: runs the fault suite, writes the table of the page.

A line of the table in docs/reliability.md is what a test of tests/faults noted as it
passed, or a fault of `elsewhere` and `beyond` with how many cases of its tests passed.
A case that fails is told there, and the command fails. It takes half an hour of a core;
with `--reports=DIRECTORY` a run that was stopped goes on where it was.
"""

import argparse
import collections
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import beyond, elsewhere  # noqa: E402

PAGE = ROOT / 'docs' / 'reliability.md'
OWN = f'{elsewhere.HERE}*_test.py'
BEGIN, END = '<!-- table: begin -->', '<!-- table: end -->'
Cases = dict[str, list[xml.etree.ElementTree.Element]]


def cases_of(report: pathlib.Path) -> Cases:
  """The cases that ran and were not skipped, by file::function."""
  found: Cases = collections.defaultdict(list)
  # Written by our own pytest just now.
  for case in xml.etree.ElementTree.parse(report).iter('testcase'):
    if case.find('skipped') is None:
      file = case.attrib['classname'].replace('.', '/') + '.py'
      function = re.match(r'\w+', case.attrib['name'])
      found[f'{file}::{function[0] if function else ""}'].append(case)
  return found


def passed(case: xml.etree.ElementTree.Element) -> bool:
  return case.find('failure') is None and case.find('error') is None


def notes(cases: Cases, name: str) -> list[list]:
  """What passing cases noted under `name`, in their order."""
  return [
    json.loads(node.attrib['value'])
    for case in (case for group in cases.values() for case in group)
    if passed(case)
    for node in case.iter('property')
    if node.attrib['name'] == name
  ]


def linked(cases: Cases, faults: Iterable[elsewhere.Fault]) -> list[list]:
  """A line for each fault with tests outside of this folder, each test once."""
  lines, seen = [], set()
  for fault in faults:
    places = [
      place
      for place in fault.tests
      if not place.startswith(elsewhere.HERE) and place not in seen
    ]
    seen.update(places)
    ran = [case for place in places for case in cases.get(place, [])]
    if ran:
      well = sum(map(passed, ran))
      observed = 'as expected' if well == len(ran) else f'{len(ran) - well} FAILED'
      what = fault.what[0].upper() + fault.what[1:]
      lines.append([what, len(ran), fault.expected, observed])
  return lines


def summary(lines: list[list], cases: Cases) -> str:
  """The line below the table."""
  figures: dict[str, list[int]] = {}
  for what, times, well in notes(cases, 'count'):
    sums = figures.setdefault(what, [0, 0])
    sums[0] += well
    sums[1] += times
  failures = [
    f'{node.attrib.get("message", "")} {node.text}'
    for group in cases.values()
    for case in group
    for node in (*case.iter('failure'), *case.iter('error'))
  ]
  hangs = sum('Timeout' in text for text in failures)
  said = [f'{well} of {times} {what}' for what, (well, times) in figures.items()]
  return '; '.join(
    [
      f'{len(lines)} kinds of fault, {sum(line[1] for line in lines)} injected',
      *said,
      f'{hangs} hangs beyond the limit of a test',
      f'{len(failures)} tests failed (each asserts one line and no traceback)',
    ]
  )


def rendered(lines: list[list], last: str) -> str:
  """The table in Markdown, one line per fault."""

  def cell(value: object) -> str:
    return str(value).replace('|', '\\|')

  head = ['| Fault | Times | Expected | Observed |', '| --- | ---: | --- | --- |']
  rows = [f'| {" | ".join(map(cell, line))} |' for line in lines]
  return '\n'.join([*head, *rows, '', f'{last}.'])


def groups(faults: Iterable[elsewhere.Fault]) -> dict[str, list[str]]:
  """What one pytest runs: long files and those here alone, others by folder."""
  found: dict[str, list[str]] = {}
  own = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(OWN))
  others = dict.fromkeys(place for f in faults for place in f.tests)
  for place in (*own, *(p for p in others if not p.startswith(elsewhere.HERE))):
    path = pathlib.Path(place.partition('::')[0])
    long = 'mark.long' in (ROOT / path).read_text()
    here = place.startswith(elsewhere.HERE)
    alone = long or here or len(path.parts) == 2
    found.setdefault(path.stem if alone else path.parts[1], []).append(place)
  return found


def ran(folder: pathlib.Path, name: str, places: list[str]) -> pathlib.Path:
  """Runs a group, unless its report is there; returns where that is."""
  report = folder / f'{name}.xml'
  if not report.exists():
    written = report.with_suffix('.part')
    # The newer family of reports has no properties of a case.
    options = ('-q', '-m', '', '-o', 'junit_family=xunit1', f'--junitxml={written}')
    command = [sys.executable, '-m', 'pytest', *options, *places]
    subprocess.run(command, cwd=ROOT, check=False)
    written.rename(report)
  return report


def main() -> int:
  """Returns 0, or 1 where a test failed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--reports', type=pathlib.Path, help='kept there, and gone on with'
  )
  options = parser.parse_args()
  faults = [*elsewhere.FIFTY.values(), *beyond.FURTHER]
  cases: Cases = {}
  with tempfile.TemporaryDirectory() as temporary:
    folder = options.reports or pathlib.Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      for report in pool.map(
        functools.partial(ran, folder), *zip(*groups(faults).items(), strict=True)
      ):
        cases |= cases_of(report)
  lines = [*notes(cases, 'fault'), *linked(cases, faults)]
  text = PAGE.read_text()
  before, _, rest = text.partition(BEGIN)
  after = rest.partition(END)[2]
  table = rendered(lines, summary(lines, cases))
  PAGE.write_text(f'{before}{BEGIN}\n{table}\n{END}{after}')
  return int(not all(passed(case) for group in cases.values() for case in group))


if __name__ == '__main__':
  sys.exit(main())
