"""Charts, read back from their SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from scmdm_jax.report.charts import Axis, Point, chart

SERIES = {
  'control <a>': [Point(3, 1.0, 0.25), Point(5, 0.5, 0.125, 0.5), Point(6, 0.0)],
  'other': [Point(3.5, -0.5)],
}


def drawn(**options):
  svg = chart(SERIES, Axis('T', {3: '8', 5: '32'}), Axis('bits'), **options)
  assert svg == chart(SERIES, Axis('T', {3: '8', 5: '32'}), Axis('bits'), **options)
  root = ElementTree.fromstring(svg)
  groups = [g for g in root.iter() if g.tag.endswith('}g')]
  assert [g.get('class') for g in groups] == ['c0', 'c1']
  return root, groups


def paths(group, kind):
  return [e.get('d') for e in group if e.get('class') == kind]


def places(group):
  """Pixels of the markers, the legend's not among them."""
  found = [
    tuple(map(float, re.findall(r'-?[\d.]+', e.get('transform'))))
    for e in group
    if e.get('class') == 'p'
  ]
  return np.array(found[:-1])


def test_points_and_bars_lie_where_their_values_are():
  root, groups = drawn()
  mine, other = map(places, groups)
  # Linear both ways, to a tenth of a pixel.
  x_unit = (mine[2, 0] - mine[0, 0]) / 3
  y_unit = mine[0, 1] - mine[2, 1]
  assert x_unit > 0 and y_unit < 0
  assert mine[1, 0] - mine[0, 0] == pytest.approx(2 * x_unit, abs=0.2)
  assert mine[1, 1] - mine[2, 1] == pytest.approx(0.5 * y_unit, abs=0.2)
  assert other[0, 0] - mine[0, 0] == pytest.approx(0.5 * x_unit, abs=0.2)
  assert other[0, 1] - mine[2, 1] == pytest.approx(-0.5 * y_unit, abs=0.2)
  first, second = paths(groups[0], 'b')
  low, high = map(float, re.fullmatch(r'M[\d.]+ ([\d.]+)V([\d.]+)', first).groups())
  assert high - low == pytest.approx(0.5 * y_unit, abs=0.2)
  assert (low + high) / 2 == pytest.approx(mine[0, 1], abs=0.1)
  left, right = map(
    float, re.search(r'V[\d.]+M([\d.]+) [\d.]+H([\d.]+)', second).groups()
  )
  assert right - left == pytest.approx(x_unit, abs=0.2)
  # Tick labels stand below their points, and zero has a line.
  labels = {e.text: e for e in root.iter() if e.tag.endswith('}text')}
  assert float(labels['8'].get('x')) == pytest.approx(mine[0, 0], abs=0.1)
  [zero] = [e.get('d') for e in root if e.get('class') == 'z']
  assert float(zero.split()[1].split('H')[0]) == pytest.approx(mine[2, 1], abs=0.1)
  assert {'control <a>', 'other', 'T', 'bits', '0.0', '1.0'} <= set(labels)
  width, height = float(root.get('width')), float(root.get('height'))
  for x, y in (*mine, *other):
    assert 0 < x < width and 0 < y < height


def test_lines_join_a_series():
  _, groups = drawn()
  assert [len(paths(g, 'l')) for g in groups] == [1, 0]
  assert paths(groups[0], 'l')[0].count('L') == 2
  assert not any(paths(g, 'l') for g in drawn(lines=False)[1])


@pytest.mark.parametrize('high', [0.0031, 0.7, 9.0, 250.0])
def test_ticks_are_round_and_few(high):
  svg = chart({'a': [Point(0, 0), Point(1, high)]}, Axis('x', {0: 'a'}), Axis('y'))
  root = ElementTree.fromstring(svg)
  ticks = [float(e.text) for e in root.iter() if e.get('class') == 'e']
  assert 3 <= len(ticks) <= 8
  steps = np.diff(ticks)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
  assert f'{steps[0]:.0e}'[0] in '125'
  assert ticks[0] <= 0.06 * high and ticks[-1] >= high - steps[0]


def test_many_series_are_told_apart():
  series = {str(i): [Point(0, i), Point(1, i)] for i in range(20)}
  root = ElementTree.fromstring(chart(series, Axis('x'), Axis('y')))
  groups = [e for e in root if e.tag.endswith('}g')]
  looks = {(g.get('class'), paths(g, 'p')[0]) for g in groups}
  assert len(looks) == 20
  assert [g.get('class') for g in groups].count('c0') == 1
  style = root.find('{*}style').text
  assert all(f'.{g.get("class")}{{--c:' in style for g in groups)
