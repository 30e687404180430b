"""Curves as inline SVG strings: same input, same bytes; readable light or dark.

Text stays text (`svg.fonttype` none), axes take the page's text colour, and names
from outside pass through `visible` and are never read as mathematics.
"""

import dataclasses
import io
import math
import re
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from scmdm_jax.report import text

# Stands for the page's text colour until the SVG is written.
_INK = '#010203'
# Okabe and Ito's colour-blind-safe set without yellow, black as the page's ink;
# marker and dash differ too, so nothing depends on colour alone.
_PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P')
_DASHES = ('-', '-', '-', '-.', ':', '-.')
_MAX_BINS = 60

_STYLE: dict[Any, Any] = {
  'axes.edgecolor': _INK,
  'axes.facecolor': 'none',
  'axes.grid': True,
  'axes.labelcolor': _INK,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.facecolor': 'none',
  'font.family': 'DejaVu Sans',
  'font.size': 9,
  'grid.alpha': 0.15,
  'grid.color': _INK,
  'legend.frameon': False,
  'svg.fonttype': 'none',
  'text.color': _INK,
  'text.parse_math': False,
  'xtick.color': _INK,
  'ytick.color': _INK,
}


@dataclasses.dataclass(frozen=True)
class ArmStyle:
  """Colour, marker and line style of one arm, the same in every figure."""

  color: str
  marker: str
  dash: str


# {arm: [(x, mean, standard error or None)]}
Series = Mapping[str, Sequence[tuple[float, float, float | None]]]
# {arm: {seed: [(x, y)]}}
Curves = Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]
Styles = Mapping[str, ArmStyle]


def arm_styles(arms: Sequence[str], control: str) -> dict[str, ArmStyle]:
  """The control in the page's ink and dashed, the others in palette order."""
  styles = {control: ArmStyle(_INK, 'x', '--')}
  for i, arm in enumerate(a for a in arms if a != control):
    j = i % len(_PALETTE)
    styles[arm] = ArmStyle(_PALETTE[j], _MARKERS[j], _DASHES[j])
  return styles


def steps_figure(series: Series, ylabel: str, styles: Styles, name: str) -> str:
  """A measure against the number of sampling steps, error bars per arm.

  Args:
    series: `{arm: [(steps, mean, standard error or None)]}`.
    ylabel: what is measured.
    styles: of `arm_styles`.
    name: unique on the page; salts the SVG's ids.

  Returns:
    An `<svg>` element.
  """
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure()
    steps = sorted({x for points in series.values() for x, _, _ in points})
    for i, (arm, points) in enumerate(series.items()):
      # On a logarithmic axis: arms side by side, so error bars don't hide another.
      shift = 1.025 ** (i - (len(series) - 1) / 2)
      style = styles[arm]
      axes.errorbar(
        [x * shift for x, _, _ in points],
        [y for _, y, _ in points],
        yerr=[math.nan if error is None else error for _, _, error in points],
        **_line(style),
        capsize=2.5,
      )
    axes.set_xscale('log', base=2)
    axes.set_xticks(steps, [str(x) for x in steps])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel('sampling steps T')
    axes.set_ylabel(ylabel)
    return _finish(figure, axes, list(series), styles, f'{ylabel} against steps', name)


def entropy_figure(
  curves: Curves, marked: Curves, labels: tuple[str, str], styles: Styles, name: str
) -> str:
  """A measure of quality against entropy: every seed thin, the mean bold.

  Args:
    curves: `{arm: {seed: [(entropy, quality)]}}`, the points of a sweep in order.
    marked: the same for the points to ring (temperature 1).
    labels: which entropy it is, and what is measured.
    styles: of `arm_styles`.
    name: unique on the page; salts the SVG's ids.

  Returns:
    An `<svg>` element.
  """
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure()
    for arm, seeds in curves.items():
      style = styles[arm]
      for points in seeds.values():
        axes.plot(*_columns(points), style.dash, color=style.color, lw=0.7, alpha=0.4)
      if len({len(points) for points in seeds.values()}) == 1:
        means = [
          (
            statistics.fmean(x for x, _ in column),
            statistics.fmean(y for _, y in column),
          )
          for column in zip(*seeds.values(), strict=True)
        ]
        axes.plot(*_columns(means), **_line(style))
    for arm, seeds in marked.items():
      for points in seeds.values():
        axes.plot(*_columns(points), 'o', mfc='none', mec=styles[arm].color, ms=9)
    axes.set_xlabel(f'{labels[0]} of the samples')
    axes.set_ylabel(labels[1])
    return _finish(
      figure, axes, list(curves), styles, f'{labels[1]} against entropy', name
    )


def training_figure(curves: Curves, styles: Styles, name: str) -> str:
  """Training loss against step: every seed thin, the mean over seeds bold.

  Long curves are averaged in at most 60 groups of consecutive points.

  Args:
    curves: `{arm: {seed: [(step, loss)]}}`.
    styles: of `arm_styles`.
    name: unique on the page; salts the SVG's ids.

  Returns:
    An `<svg>` element.
  """
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure()
    for arm, seeds in curves.items():
      style = styles[arm]
      binned = [binned_means(points) for points in seeds.values()]
      for points in binned:
        axes.plot(*_columns(points), style.dash, color=style.color, lw=0.5, alpha=0.3)
      if len(binned) > 1 and len({tuple(x for x, _ in p) for p in binned}) == 1:
        means = [
          (column[0][0], statistics.fmean(y for _, y in column))
          for column in zip(*binned, strict=True)
        ]
        axes.plot(*_columns(means), style.dash, color=style.color, lw=1.4)
    axes.set_xlabel('training step')
    axes.set_ylabel('training loss (nats per token)')
    return _finish(figure, axes, list(curves), styles, 'training loss', name)


def binned_means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """`points` unchanged up to 60 of them, else means of consecutive groups."""
  size = -(-len(points) // _MAX_BINS)
  groups = [points[i : i + size] for i in range(0, len(points), max(1, size))]
  return [
    (statistics.fmean(x for x, _ in g), statistics.fmean(y for _, y in g))
    for g in groups
  ]


def series_of(rows: Sequence[Mapping], metric: str) -> dict[str, list]:
  """Picks `metric` from summary rows as `Series`, steps rising."""
  series: dict[str, list] = {}
  for row in rows:
    if row['metric'] == metric and row['num_steps'] is not None:
      point = (row['num_steps'], row['mean'], row['standard_error'])
      series.setdefault(row['arm'], []).append(point)
  return {arm: sorted(points) for arm, points in series.items()}


def _figure() -> tuple[Figure, Axes]:
  # No pyplot: no backend, no display, no figure kept alive.
  figure = Figure(figsize=(4.8, 3.7), layout='constrained')
  return figure, figure.subplots()


def _line(style: ArmStyle) -> dict:
  return {
    'color': style.color,
    'marker': style.marker,
    'linestyle': style.dash,
    'markersize': 4.5,
    'linewidth': 1.4,
  }


def _columns(points):
  return [x for x, _ in points], [y for _, y in points]


def _finish(
  figure: Figure,
  axes: Axes,
  arms: Sequence[str],
  styles: Styles,
  description: str,
  name: str,
) -> str:
  """Adds the legend and writes the SVG without date, ids of groups or prologue."""
  handles = [axes.plot([], [], **_line(styles[arm]))[0] for arm in arms]
  figure.legend(
    handles, [text.visible(arm) for arm in arms], loc='outside lower center', ncols=2
  )
  buffer = io.StringIO()
  nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
  with warnings.catch_warnings(), matplotlib.rc_context({'svg.hashsalt': name}):
    # The reader's browser has the glyph; here only the width is estimated.
    warnings.filterwarnings('ignore', message=r'Glyph .* missing from')
    figure.savefig(buffer, format='svg', metadata=nothing)
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :].strip()
  svg = re.sub(r'<defs>\s*<style.*?</style>\s*</defs>', '', svg, flags=re.DOTALL)
  svg = re.sub(r'<g id="[^"]*"', '<g', svg)
  svg = svg.replace(f': {_INK}', ': currentColor')
  label = text.escape(description)
  return re.sub(
    r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"',
    lambda match: f'<svg role="img" aria-label="{label}" {match.group(1)}',
    svg,
  )
