"""The chart of a benchmark: speed beside the straightforward sampler, and scaling."""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure


def chart(results: Mapping[str, Any]) -> str:
  """SVG of the samplers' speeds and of the measured curves.

  Args:
    results: what `--mode=benchmark` writes: `samplers` with `rows`, and `sweeps`.
  """
  rows = results['samplers']['rows']
  sweeps = results['sweeps']
  figure = Figure(figsize=(8, 1.5 + 0.3 * len(rows) + (2.5 if sweeps else 0)))
  grid = figure.add_gridspec(2 if sweeps else 1, max(len(sweeps), 1))
  axes = figure.add_subplot(grid[0, :])
  names = list(rows)[::-1]
  middle = [1 / rows[name]['ratio']['median'] for name in names]
  low = [m - 1 / rows[n]['ratio']['high'] for n, m in zip(names, middle, strict=True)]
  high = [1 / rows[n]['ratio']['low'] - m for n, m in zip(names, middle, strict=True)]
  axes.barh(names, middle, xerr=[low, high], color='#0072b2', height=0.6)
  axes.axvline(1, color='#777777', linewidth=0.8)
  axes.set_xlabel('speed over the straightforward scan (median, lowest to highest)')
  for i, (name, curve) in enumerate(sweeps.items()):
    axes = figure.add_subplot(grid[1, i])
    axes.loglog(curve['sizes'], curve['seconds'], 'o-', color='#d55e00')
    axes.set_xlabel(f'{name}: time ^ {curve["exponent"]:.2f}')
    axes.minorticks_off()
    axes.set_xticks(curve['sizes'], [str(size) for size in curve['sizes']])
    if i == 0:
      axes.set_ylabel('seconds')
  figure.tight_layout()
  buffer = io.StringIO()
  # Without a date and random identifiers equal results give equal bytes.
  figure.savefig(buffer, format='svg', metadata={'Date': None})
  return buffer.getvalue()
