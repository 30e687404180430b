"""`python tests/faults/table.py`: runs the fault suite, writes the table of the page.

Every line of the table in docs/reliability.md is what a test of tests/faults noted as
it passed; a fault whose test fails has no line, and the command fails.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'reliability.md'
BEGIN, END = '<!-- table: begin -->', '<!-- table: end -->'


def notes(report: pathlib.Path) -> list[list]:
  """What the tests noted: fault, times injected, expected, observed."""
  # Written by our own pytest just now.
  tree = xml.etree.ElementTree.parse(report)
  return [
    json.loads(node.attrib['value'])
    for case in tree.iter('testcase')
    if case.find('failure') is None
    for node in case.iter('property')
    if node.attrib['name'] == 'fault'
  ]


def rendered(lines: list[list]) -> str:
  """The table in Markdown, one line per fault."""

  def cell(value: object) -> str:
    return str(value).replace('|', '\\|')

  head = ['| Fault | Times | Expected | Observed |', '| --- | ---: | --- | --- |']
  rows = [f'| {" | ".join(map(cell, line))} |' for line in lines]
  times = sum(line[1] for line in lines)
  return '\n'.join([*head, *rows, '', f'{len(lines)} faults, {times} injected.'])


def main() -> int:
  """Returns pytest's exit code."""
  with tempfile.TemporaryDirectory() as folder:
    report = pathlib.Path(folder, 'report.xml')
    command = [sys.executable, '-m', 'pytest', '-q', 'tests/faults', '-m', '']
    code = subprocess.run(
      [*command, f'--junitxml={report}', *sys.argv[1:]], cwd=ROOT, check=False
    ).returncode
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f'{before}{BEGIN}\n{rendered(notes(report))}\n{END}{after}')
  return code


if __name__ == '__main__':
  sys.exit(main())
