"""The picture of two samples: its facts from a plain loop, and that all of it fits."""

import math
import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from scmdm_jax.report.beliefs import CELL, LEVELS, picture, written

DRAWING = pathlib.Path(__file__).parents[2] / 'docs' / 'trajectory.svg'
NAMES, MASK = ['C', '[NH3+]', '_', '<'], 2
STATES = np.array([[2, 2, 2, 0], [2, 1, 2, 0], [3, 1, 0, 0]], np.int32)
PROBS = np.array(
  [
    [[0.7, 0.2, 0, 0.1], [0.1, 0.8, 0, 0.1], [0.25, 0.25, 0, 0.5], [1, 0, 0, 0]],
    [[0.05, 0.05, 0, 0.9], [0.3, 0.4, 0, 0.3], [0.6, 0.2, 0, 0.2], [1, 0, 0, 0]],
  ]
)


def sample(states=STATES):
  with np.errstate(divide='ignore'):
    return written(states, np.log(PROBS), MASK, NAMES)


def test_facts_against_a_plain_loop():
  found = sample()
  assert found.state == ['gwgf', 'wfwf']
  assert found.shown == [['C', '[NH3+]', '<', 'C'], ['<', '[NH3+]', 'C', 'C']]
  np.testing.assert_array_equal(found.probability, [[0.7, 1, 0.5, 1], [1, 1, 1, 1]])
  for step, entropy in enumerate(found.entropy):
    wanted = sum(
      -p * math.log(p)
      for position, row in enumerate(PROBS[step])
      if STATES[step, position] == MASK
      for p in row
      if p > 0
    )
    assert entropy == pytest.approx(wanted, rel=1e-12)


def small():
  other = STATES.copy()
  other[2, 0] = 0
  samples = {'with <it>': sample(), 'without': sample(other)}
  return picture(samples, ['a', 'b'], ['x'])


def elements(svg, name):
  """(element, classes of those around it, x offset) of every element of that name."""

  def walk(node, offset):
    move = re.match(r'translate\((\S+) ', node.get('transform', ''))
    offset += float(move[1]) if move else 0
    if node.tag.endswith('}' + name):
      yield node, offset
    for child in node:
      yield from walk(child, offset)

  return list(walk(ElementTree.fromstring(svg), 0.0))


def test_the_picture_has_the_facts():
  svg = small()
  texts = [node for node, _ in elements(svg, 'text')]
  assert 'with <it>' in [node.text for node in texts]
  # Two open positions in the first step: 0.7 and 0.5, in eighths, rounded up.
  opacities = [float(n.get('opacity')) for n in texts if n.get('class') == 'g']
  assert opacities == 2 * [4 / LEVELS, 6 / LEVELS]
  # Only the first position differs in the end.
  assert [n.text for n in texts if n.get('class') == 'd'] == ['<', 'C']
  # Three tokens are written in each panel, one and two in the two steps.
  boxes = [
    n.get('d').count('z') for n, _ in elements(svg, 'path') if n.get('class') == 'k'
  ]
  assert boxes == [1, 2, 1, 2]
  first, second = (n.get('points').split() for n, _ in elements(svg, 'polyline'))
  assert first == second
  heights = [float(point.split(',')[1]) for point in first]
  bottom = max(float(n.get('y')) for n in texts if n.text == '0')
  ratio = (bottom - heights[1]) / (bottom - heights[0])
  # Points are written to a tenth of a pixel, of about a hundred.
  assert ratio == pytest.approx(sample().entropy[1] / sample().entropy[0], abs=2e-3)


def extent(node, offset):
  """Left and right end in pixels, for the wide font DejaVu Sans."""
  kind = (node.get('class') or '').split()
  xs = [float(x) + offset for x in node.get('x').split()]
  if len(xs) > 1 or (kind and kind[0] in 'wdgf'):
    assert len(xs) == len(node.text) or node.get('textLength') == str(CELL - 1)
    return min(xs) - CELL / 2, max(xs) + CELL / 2
  bold = FontProperties(
    family='DejaVu Sans', weight='bold' if 'h' in kind else 'normal'
  )
  width = TextPath((0, 0), node.text, 13 if 'h' in kind else 11, prop=bold)
  width = width.get_extents().x1
  shift = {'n': 1.0}.get(kind[-1] if kind else '', 0.0)
  shift = 0.5 if node.get('text-anchor') == 'middle' else shift
  return xs[0] - shift * width, xs[0] + (1 - shift) * width


def test_the_committed_picture_fits_and_is_small():
  svg = DRAWING.read_text()
  assert len(svg.encode()) < 100_000
  assert 'prefers-color-scheme:dark' in svg
  _, _, width, height = map(float, ElementTree.fromstring(svg).get('viewBox').split())
  found = elements(svg, 'text')
  assert len(found) > 100
  for node, offset in found:
    left, right = extent(node, offset)
    assert left >= 0 and right <= width, node.text
    assert float(node.get('y')) < height - 3, node.text
  titles = [extent(*pair) for pair in found if pair[0].get('class') == 'h']
  assert titles[0][1] < titles[1][0]
  for node, _ in elements(svg, 'polyline'):
    points = [tuple(map(float, p.split(','))) for p in node.get('points').split()]
    assert all(0 < x < width and 0 < y < height for x, y in points)
