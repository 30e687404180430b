"""Two samples side by side, step by step: what every position believed, as one SVG."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from scmdm_jax.report import text

CELL, ROW, GUTTER, TOP, CHART = 12, 16, 32, 46, 96  # Pixels.
LEVELS = 8  # Of opacity.

_STYLE = """
svg{--page:#fff;--ink:#1f2328;--soft:#59636e;--faint:#d1d9e0;--a:#0969da;--b:#bc4c00}
@media (prefers-color-scheme:dark){svg{--page:#0d1117;--ink:#f0f6fc;--soft:#9198a1;
--faint:#3d444d;--a:#4493f8;--b:#f0883e}}
text{font:11px 'DejaVu Sans',Verdana,sans-serif;fill:var(--ink)}
.t text{font:12px 'DejaVu Sans Mono',Menlo,Consolas,monospace;text-anchor:middle}
.h{font-weight:bold;font-size:13px}.s{fill:var(--soft)}.n{text-anchor:end}
.a{--c:var(--a)}.b{--c:var(--b)}.a .h,.b .h,.t .g{fill:var(--c)}
.t .w,.t .d{font-weight:bold}.t .d{fill:var(--c)}.k{fill:var(--c);fill-opacity:.2}
.l{fill:none;stroke:var(--c);stroke-width:2}.b .l{stroke-dasharray:5 3}
.x{stroke:var(--faint);fill:none}
"""


@dataclasses.dataclass(frozen=True)
class Written:
  """How one sample of L tokens was written in T steps.

  Attributes:
    shown: T rows of L tokens: what stood there, what this step wrote, or what was
      believed likeliest where the mask stayed.
    state: T rows of L letters: 'f' fixed before, 'w' written in this step, 'g' open.
    probability: float [T, L], of the likeliest token where open, else 1.
    entropy: float [T], nats, of the predictions that step saw open, summed.
  """

  shown: Sequence[Sequence[str]]
  state: Sequence[str]
  probability: np.ndarray
  entropy: np.ndarray


def written(
  states: np.ndarray, log_probs: np.ndarray, mask_id: int, names: Sequence[str]
) -> Written:
  """Picks what is shown of one sample.

  Args:
    states: int32 [T + 1, L], tokens at the start and after every step.
    log_probs: float32 [T, L, V], the prediction of every step.
    mask_id: the mask token.
    names: a name of every token, as the picture shows it.
  """
  before, after = states[:-1] == mask_id, states[1:] == mask_id
  tokens = np.where(after, log_probs.argmax(-1), states[1:])
  letters = np.where(after, 'g', np.where(before, 'w', 'f'))
  terms = np.exp(log_probs) * np.maximum(log_probs, -1e9)
  return Written(
    shown=[[names[int(token)] for token in row] for row in tokens],
    state=[''.join(row) for row in letters],
    probability=np.where(after, np.exp(log_probs.max(-1)), 1.0),
    entropy=-(terms.sum(-1) * before).sum(-1),
  )


def picture(
  samples: Mapping[str, Written], results: Sequence[str], notes: Sequence[str]
) -> str:
  """Draws two samples that were written in the same number of steps.

  Args:
    samples: two, by their title.
    results: a line below each of them.
    notes: lines at the foot.

  Returns:
    An SVG file, readable on a light and on a dark page.
  """
  steps, length = np.shape(next(iter(samples.values())).probability)
  panel = GUTTER + CELL * length
  width, foot = 2 * panel + 16, TOP + ROW * (steps + 2) + 12
  height = foot + CHART + 30 + 16 * len(notes)
  first, second = samples.values()
  differs = [x != y for x, y in zip(first.shown[-1], second.shown[-1], strict=True)]
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    f'width="{width}" height="{height}" role="img">',
    f'<title>{text.escape(" / ".join(samples))}</title><style>{_STYLE}</style>',
    f'<rect width="{width}" height="{height}" rx="6" fill="var(--page)"/>',
  ]
  most = max(first.entropy.max(), second.entropy.max())
  for i, (title, sample) in enumerate(samples.items()):
    parts += [
      f'<g class="{"ab"[i]}"><g transform="translate({i * panel} {TOP})">',
      f'<text class="h" x="{GUTTER}" y="-26">{text.escape(title)}</text>',
      f'<text class="s" x="{GUTTER}" y="-9">{text.escape(results[i])}</text>',
      *_rows(sample, differs),
      f'</g>{_curve(sample.entropy, most, width, foot)}</g>',
    ]
  parts += _axes(steps, most, width, foot)
  for i, note in enumerate(notes):
    y = foot + CHART + 32 + 16 * i
    parts.append(f'<text class="s" x="{GUTTER}" y="{y}">{text.escape(note)}</text>')
  return '\n'.join([*parts, '</svg>\n'])


def _rows(sample: Written, differs: Sequence[bool]) -> list[str]:
  """One row per step, then the sample, with what the other has otherwise in colour."""
  rows = []
  for i, (tokens, state) in enumerate(zip(sample.shown, sample.state, strict=True)):
    levels = np.ceil(sample.probability[i] * LEVELS).astype(int)
    kinds = [
      (s, level if s == 'g' else LEVELS) for s, level in zip(state, levels, strict=True)
    ]
    rows.append(_row(i, str(i + 1), tokens, kinds))
  last = [('d' if d else 'f', LEVELS) for d in differs]
  return [*rows, _row(len(rows) + 0.5, 'end', sample.shown[-1], last)]


def _row(at: float, name: str, tokens: Sequence[str], kinds: Sequence[tuple]) -> str:
  """A row of tokens: those of one kind and opacity in one element."""
  parts = [f'<text class="s n" x="{GUTTER - 8}" y="{at * ROW + 12:g}">{name}</text>']
  boxes = ''.join(
    f'M{GUTTER + CELL * i} {at * ROW:g}h{CELL}v{ROW - 1}h-{CELL}z'
    for i, (state, _) in enumerate(kinds)
    if state == 'w'
  )
  if boxes:
    parts.append(f'<path class="k" d="{boxes}"/>')
  cells = []
  for kind in sorted(set(kinds)):
    state, level = kind
    opacity = f' opacity="{level / LEVELS:g}"' if level < LEVELS else ''
    start = f'<text class="{state}"{opacity} y="{at * ROW + 12:g}"'
    places = [
      (GUTTER + CELL * i + CELL // 2, token)
      for i, (token, found) in enumerate(zip(tokens, kinds, strict=True))
      if found == kind
    ]
    short = [(x, token) for x, token in places if len(token) == 1]
    if short:
      xs = ' '.join(str(x) for x, _ in short)
      cells.append(f'{start} x="{xs}">{text.escape("".join(t for _, t in short))}')
    cells += [
      f'{start} x="{x}" textLength="{CELL - 1}" lengthAdjust="spacingAndGlyphs">'
      f'{text.escape(token)}'
      for x, token in places
      if len(token) > 1
    ]
  return ''.join([*parts, '<g class="t">', *(f'{c}</text>' for c in cells), '</g>'])


def _curve(entropy: np.ndarray, most: float, width: int, top: int) -> str:
  """The entropy of every step as a line."""
  xs = _places(len(entropy), width)
  ys = top + CHART - CHART * entropy / most
  points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in zip(xs, ys, strict=True))
  return f'<polyline class="l" points="{points}"/>'


def _axes(steps: int, most: float, width: int, top: int) -> list[str]:
  left, bottom = GUTTER, top + CHART
  names = ''.join(
    f'<text class="s" text-anchor="middle" x="{x:.1f}" y="{bottom + 14}">{i + 1}</text>'
    for i, x in enumerate(_places(steps, width))
  )
  return [
    f'<path class="x" d="M{left} {top}V{bottom}H{width - 16}"/>',
    f'<text class="s n" x="{left - 4}" y="{top + 9}">{most:.0f}</text>',
    f'<text class="s n" x="{left - 4}" y="{bottom}">0</text>',
    f'<text class="s n" x="{width - 16}" y="{top + 9}">entropy of the predictions for '
    'all masked positions together, in nats, by step</text>',
    names,
  ]


def _places(steps: int, width: int) -> np.ndarray:
  """Where steps lie along the curve."""
  return np.linspace(GUTTER + 8, width - 24, steps)
