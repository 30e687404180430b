"""The table says of a report what is in it, failures too."""

from tests.faults import table
from tests.faults.elsewhere import fault

REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.faults.a_test" name="test_one"><properties>
  <property name="fault" value="[&quot;A|B&quot;, 7, &quot;x&quot;, &quot;y&quot;]" />
  <property name="count" value="[&quot;kills&quot;, 20, 19]" />
</properties></testcase>
<testcase classname="tests.runs.b_test" name="test_two[1]" />
<testcase classname="tests.runs.b_test" name="test_two[2]">
  <failure message="Failed: Timeout">...</failure></testcase>
<testcase classname="tests.runs.b_test" name="test_three"><skipped /></testcase>
<testcase classname="tests.runs.b_test" name="test_four" />
</testsuite></testsuites>
"""


def test_lines_and_the_summary(tmp_path):
  path = tmp_path / 'report.xml'
  path.write_text(REPORT)
  cases = table.cases_of(path)
  two, three, four = (
    f'tests/runs/b_test.py::test_{n}' for n in ('two', 'three', 'four')
  )
  faults = [
    fault('here', 'x', 'tests/faults/a_test.py::test_one'),
    fault('twice', 'named', two),
    fault('skipped', 'named', three),
    fault('again and once', 'one line', two, four),
  ]
  lines = [*table.notes(cases, 'fault'), *table.linked(cases, faults)]
  assert lines == [
    ['A|B', 7, 'x', 'y'],
    ['Twice', 2, 'named', '1 FAILED'],
    ['Again and once', 1, 'one line', 'as expected'],
  ]
  last = table.summary(lines, cases)
  assert last.startswith('3 kinds of fault, 10 injected; 19 of 20 kills; 1 hangs ')
  assert '; 1 tests failed' in last
  text = table.rendered(lines, last)
  assert '| A\\|B | 7 | x | y |' in text and text.endswith(f'\n{last}.')
