import re
import xml.etree.ElementTree as ElementTree

import pytest

from scmdm_jax.report import figures

ARMS = ['control', 'rate 1']
STYLES = figures.arm_styles(ARMS, 'control')
SERIES = {'control': [(8, 0.4, 0.02), (32, 0.5, None)], 'rate 1': [(8, 0.3, 0.1)]}
CURVES = {'rate 1': {0: [(2.0, 5.0), (2.1, 6.0)], 1: [(2.0, 5.5), (2.2, 6.5)]}}


def _draw(kind, arm='rate 1', name='figure'):
  styles = figures.arm_styles(['control', arm], 'control')
  if kind == 'steps':
    return figures.steps_figure({arm: SERIES['control']}, 'valid rate', styles, name)
  if kind == 'entropy':
    curves = {arm: CURVES['rate 1']}
    return figures.entropy_figure(
      curves, curves, ('entropy', 'valid rate'), styles, name
    )
  return figures.training_figure({arm: CURVES['rate 1']}, styles, name)


@pytest.mark.parametrize('kind', ['steps', 'entropy', 'training'])
def test_same_input_gives_the_same_self_contained_svg(kind, parse):
  svg = _draw(kind)
  assert svg == _draw(kind)
  parse(svg)
  root = ElementTree.fromstring(svg)
  assert root.get('role') == 'img' and root.get('width') is None
  outside = re.findall(r'(\S+)="https?://', svg)
  assert set(outside) <= {'xmlns', 'xmlns:xlink'}
  assert 'currentColor' in svg and '<style' not in svg


def test_ids_differ_between_figures():
  ids = [set(re.findall(r' id="([^"]*)"', _draw('steps', name=n))) for n in 'ab']
  assert ids[0] and not ids[0] & ids[1]


@pytest.mark.parametrize(
  'arm', ['<script>alert(1)</script>', '$x_{', '_hidden', '分子', '\x1b[1m\u202e', '"']
)
def test_any_name_is_drawn_literally(arm):
  svg = _draw('steps', arm=arm)
  texts = [t.text for t in ElementTree.fromstring(svg).iter() if t.tag.endswith('text')]
  assert figures.text.visible(arm) in texts


def test_error_bars_have_the_length_of_the_errors():
  # Two points on one axis: bar lengths go as 1 to 3.
  styles = figures.arm_styles(['a'], 'a')
  svg = figures.steps_figure({'a': [(8, 0.5, 0.1), (32, 0.5, 0.3)]}, 'y', styles, 'f')
  bars = re.findall(
    r'd="M ([\d.]+) ([\d.]+) \nL \1 ([\d.]+) \n" clip-path="[^"]*" style="fill: none; '
    r'stroke: currentColor; stroke-width: 1\.4',
    svg,
  )
  lengths = [abs(float(low) - float(high)) for _, low, high in bars]
  assert len(lengths) == 2
  assert lengths[1] / lengths[0] == pytest.approx(3, rel=1e-4)


def test_steps_are_the_ticks():
  svg = figures.steps_figure(SERIES, 'valid rate', STYLES, 'f')
  texts = [t.text for t in ElementTree.fromstring(svg).iter() if t.tag.endswith('text')]
  assert texts[:3] == ['8', '32', 'sampling steps T']
  assert {'control', 'rate 1'} <= set(texts)


def test_styles_tell_arms_apart_without_colour():
  styles = figures.arm_styles([f'arm {i}' for i in range(6)] + ['control'], 'control')
  assert len({(s.marker, s.dash) for s in styles.values()}) == 7
  assert len({s.color for s in styles.values()}) == 7


def test_binned_means_against_hand_computation():
  short = [(float(i), 1.0) for i in range(60)]
  assert figures.binned_means(short) == short
  # 121 points go in groups of three; the last group holds one.
  binned = figures.binned_means([(float(i), float(i % 3)) for i in range(121)])
  assert len(binned) == 41
  assert binned[0] == (1.0, 1.0) and binned[-1] == (120.0, 0.0)
  assert figures.binned_means([]) == []


def test_series_of_sorts_steps_and_skips_likelihoods():
  rows = [
    {'arm': 'a', 'metric': m, 'num_steps': t, 'mean': 0.5, 'standard_error': None}
    for m, t in (('x', 32), ('x', 8), ('x', None), ('y', 8))
  ]
  assert figures.series_of(rows, 'x') == {'a': [(8, 0.5, None), (32, 0.5, None)]}
