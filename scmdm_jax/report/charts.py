"""Points with error bars as a small SVG file: same input, same bytes, no library.

For pages that a test writes again. The curves of reports are matplotlib's (`figures`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scmdm_jax.report import text

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 560, 260, 64, 12, 42, 12  # Pixels.
_LEGEND, _COLUMNS = 18, 2
# Okabe and Ito's colours without yellow; what is first is the control and has the ink.
_STYLE = """
svg{--page:#fff;--ink:#1f2328;--soft:#59636e;--faint:#d1d9e0}
@media (prefers-color-scheme:dark){svg{--page:#0d1117;--ink:#f0f6fc;--soft:#9198a1;
--faint:#3d444d}}
text{font:11px 'DejaVu Sans',Verdana,sans-serif;fill:var(--ink)}
.s{fill:var(--soft)}.m{text-anchor:middle}.e{text-anchor:end}
.f{stroke:var(--faint);fill:none}.z{stroke:var(--soft);fill:none}
.c0{--c:var(--ink)}.c1{--c:#0072b2}.c2{--c:#d55e00}.c3{--c:#009e73}.c4{--c:#cc79a7}
.c5{--c:#e69f00}.c6{--c:#56b4e9}.c7{--c:#8b5a2b}.l{fill:none;stroke:var(--c);stroke-width:1.5}.p{fill:var(--c)}
.b{stroke:var(--c)}.c0 .l{stroke-dasharray:4 3}
"""
_COLOURS = 7  # Without the ink.
_MARKERS = (  # Around 0, 0.
  'M-3.5-3.5h7v7h-7z',
  'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z',
  'M0-4.5L4.5 3.5h-9z',
  'M0-5L5 0L0 5L-5 0z',
  'M0 4.5L4.5-3.5h-9z',
  'M-2-5h4v10h-4z',
  'M-5-2h10v4h-10z',
  'M-5-1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z',
)


# From a value to pixels.
Place = Callable[[float], float]


class Point(NamedTuple):
  """A mean with its standard error in both directions, 0 where there is none."""

  x: float
  y: float
  error: float = 0.0
  x_error: float = 0.0


class Axis(NamedTuple):
  """What stands along an axis.

  name: the measure, with its unit.
  ticks: {value: label}; {}: round numbers.
  """

  name: str
  ticks: Mapping[float, str] = {}


def chart(
  series: Mapping[str, Sequence[Point]], x: Axis, y: Axis, *, lines: bool = True
) -> str:
  """Returns an SVG file, readable on a light and on a dark page.

  Args:
    series: points by name; the first is the control. From the ninth on the markers come
      again, in other colours.
    x: the axis from left to right.
    y: the axis upwards; where it has 0 inside, a line marks it.
    lines: whether the points of a series are joined.
  """
  points = [p for of_one in series.values() for p in of_one]
  to_x, x_ticks = _scale([(p.x, p.x_error) for p in points], x, _LEFT, _WIDTH - _RIGHT)
  to_y, y_ticks = _scale([(p.y, p.error) for p in points], y, _HEIGHT - _BOTTOM, _TOP)
  height = _HEIGHT + _LEGEND * math.ceil(len(series) / _COLUMNS) + 8
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
    f'width="{_WIDTH}" height="{height}" role="img">',
    f'<title>{text.escape(f"{y.name} against {x.name}")}</title>',
    f'<style>{_STYLE}</style>',
    f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="var(--page)"/>',
  ]
  parts += _axes(x, y, {to_x(v): label for v, label in x_ticks.items()}, y_ticks, to_y)
  for i, (name, of_one) in enumerate(series.items()):
    left = _LEFT + i % _COLUMNS * (_WIDTH - _LEFT) / _COLUMNS
    top = _HEIGHT + 8 + i // _COLUMNS * _LEGEND
    legend = _marker(i, left, top - 4), _text(name, left + 12, top)
    colour = i and 1 + (i - 1) % _COLOURS
    parts += [f'<g class="c{colour}">', *_drawn(i, of_one, to_x, to_y, lines), *legend]
    parts.append('</g>')
  return '\n'.join([*parts, '</svg>\n'])


def _axes(
  x: Axis,
  y: Axis,
  x_ticks: Mapping[float, str],
  y_ticks: Mapping[float, str],
  to_y: Place,
) -> list[str]:
  """Ticks, of `x` by pixel, and the names of the axes."""
  bottom, parts = _HEIGHT - _BOTTOM, []
  for value, label in y_ticks.items():
    at, kind = to_y(value), 'f' if value else 'z'
    parts.append(f'<path class="{kind}" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
    parts.append(_text(label, _LEFT - 6, at + 4, 'e'))
  for at, label in x_ticks.items():
    parts.append(f'<path class="f" d="M{at:.1f} {bottom}v4"/>')
    parts.append(_text(label, at, bottom + 17, 'm'))
  parts.append(_text(x.name, (_LEFT + _WIDTH - _RIGHT) / 2, bottom + 34, 's m'))
  parts.append(
    f'<text class="s m" transform="translate(14 {(_TOP + bottom) / 2:g}) rotate(-90)">'
    f'{text.escape(y.name)}</text>'
  )
  return parts


def _drawn(
  number: int, points: Sequence[Point], to_x: Place, to_y: Place, lines: bool
) -> list[str]:
  """A series: its line, error bars and markers."""
  places = [(to_x(p.x), to_y(p.y)) for p in points]
  parts = []
  if lines and len(places) > 1:
    line = 'L'.join(f'{a:.1f} {b:.1f}' for a, b in places)
    parts.append(f'<path class="l" d="M{line}"/>')
  for p, (a, b) in zip(points, places, strict=True):
    bars = ''
    if p.error:
      bars += f'M{a:.1f} {to_y(p.y - p.error):.1f}V{to_y(p.y + p.error):.1f}'
    if p.x_error:
      bars += f'M{to_x(p.x - p.x_error):.1f} {b:.1f}H{to_x(p.x + p.x_error):.1f}'
    if bars:
      parts.append(f'<path class="b" d="{bars}"/>')
    parts.append(_marker(number, a, b))
  return parts


def _text(label: str, x: float, y: float, kind: str = '') -> str:
  attribute = f' class="{kind}"' if kind else ''
  return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{text.escape(label)}</text>'


def _marker(number: int, x: float, y: float) -> str:
  shape = _MARKERS[number % len(_MARKERS)]
  return f'<path class="p" transform="translate({x:.1f} {y:.1f})" d="{shape}"/>'


def _scale(
  values: Sequence[tuple[float, float]], axis: Axis, start: int, end: int
) -> tuple[Place, dict[float, str]]:
  """From a value to pixels, and the ticks; a margin of a twentieth on both sides."""
  low = min([v - e for v, e in values] + list(axis.ticks))
  high = max([v + e for v, e in values] + list(axis.ticks))
  margin = (high - low) / 20 or 1.0
  low, high = low - margin, high + margin

  def place(value: float) -> float:
    return start + (end - start) * (value - low) / (high - low)

  return place, dict(axis.ticks) or _round_ticks(low, high)


def _round_ticks(low: float, high: float) -> dict[float, str]:
  """Multiples of 1, 2 or 5 times a power of ten between two numbers, three to eight."""
  rough = (high - low) / 5
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
  digits = max(0, -math.floor(math.log10(step) + 1e-9))
  numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
  return {n * step: f'{n * step:.{digits}f}' for n in numbers}
