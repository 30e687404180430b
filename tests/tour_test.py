"""The notebook docs/tour.ipynb runs as it stands, and shows what it printed."""

import pathlib
import re

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOUR = ROOT / 'docs' / 'tour.ipynb'


def read():
  return nbformat.read(TOUR, as_version=4)


def printed(notebook):
  """What every code cell wrote to standard output."""
  return [
    ''.join(o.get('text', '') for o in cell.outputs if o.get('name') == 'stdout')
    for cell in notebook.cells
    if cell.cell_type == 'code'
  ]


def test_it_is_small_and_was_run_in_order():
  notebook = read()
  assert TOUR.stat().st_size < 300_000
  cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert {(o.output_type, o.get('name')) for o in outputs} == {('stream', 'stdout')}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_runs_and_prints_what_it_shows():
  """Samples of the base are the same tokens; trained figures agree within rounding."""
  shown = read()
  again = read()
  nbclient.NotebookClient(
    again, timeout=1500, resources={'metadata': {'path': str(ROOT)}}
  ).execute()
  (first, *_, last), (first_again, *_, last_again) = printed(shown), printed(again)
  assert first == first_again and len(first.splitlines()) == 4
  found = [[float(x) for x in re.findall(r'\d\.\d{4}', t)] for t in (last, last_again)]
  assert len(found[0]) == 6
  for base, base_two, control, control_two, one, two in found:
    assert (base, control) == (base_two, control_two) and two < one
  # Two hundred steps of float32 sums in another order, on another processor.
  assert found[0] == pytest.approx(found[1], abs=0.01)
