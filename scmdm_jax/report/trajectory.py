"""One denoising trajectory, step by step: how the sampler writes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from scmdm_jax.report import text

_FRAMES = 16  # Of a film, at most.


class Cell(NamedTuple):
  """A position after a step."""

  kind: Literal['masked', 'new', 'old']
  text: str


class Step(NamedTuple):
  """The whole sequence after a step, and what the evaluation behind it saw."""

  cells: list[Cell]
  masked: int
  signal: str


class Frame(NamedTuple):
  """A picture of the sequence after a step.

  step: from 0, before any step.
  image: a data URI.
  caption: what the picture is of.
  masked: positions that are.
  """

  step: int
  image: str
  caption: str
  masked: int


def revealed(masked: Sequence[Sequence[bool]]) -> list[list[bool]]:
  """Marks the positions that were masked one row above and no longer are."""
  return [
    [was and not now for was, now in zip(before, row, strict=True)]
    for before, row in zip([masked[0], *masked[:-1]], masked, strict=True)
  ]


def steps_of(trajectory: Mapping[str, Any], *, conditioned: bool) -> list[Step]:
  """The rows of the table, the start first.

  Args:
    trajectory: `{arm, num_steps, tokens, masked}`; `tokens` and `masked` are lists
      of rows of L entries: the start (before any step), then one row per step.
    conditioned: whether the arm carries a signal from step to step.

  Raises:
    ValueError: if rows of tokens and masks don't match in number or length.
  """
  tokens, masked = trajectory['tokens'], trajectory['masked']
  shapes = [[len(row) for row in rows] for rows in (tokens, masked)]
  if shapes[0] != shapes[1] or len(set(shapes[0])) != 1:
    raise ValueError(
      f'trajectory: rows of tokens have lengths {shapes[0]}, of masked {shapes[1]}; '
      'both must be the same number of equally long rows'
    )
  return [
    Step(list(map(_cell, row, hidden, new)), sum(hidden), _signal(i, conditioned))
    for i, (row, hidden, new) in enumerate(
      zip(tokens, masked, revealed(masked), strict=True)
    )
  ]


def frames_of(trajectory: Mapping[str, Any]) -> list[Frame]:
  """Some of the pictures of a film, the first and the last among them; [] without."""
  shown = trajectory.get('frames') or []
  last = len(shown) - 1
  chosen = {round(i * last / (_FRAMES - 1)) for i in range(_FRAMES)} if shown else ()
  return [
    Frame(
      step,
      shown[step]['image'],
      shown[last]['caption'],
      sum(trajectory['masked'][step]),
    )
    for step in sorted(chosen)
  ]


def _cell(token: str, hidden: bool, new: bool) -> Cell:
  if hidden:
    return Cell('masked', '')
  shown = text.visible(token).replace(' ', '␣') or '∅'
  return Cell('new' if new else 'old', shown)


def _signal(step: int, conditioned: bool) -> str:
  """What the evaluation behind row `step` saw; row 0 has no evaluation."""
  if step == 0:
    return text.ABSENT
  if not conditioned:
    return 'none'
  return 'null (zero)' if step == 1 else f'prediction of step {step - 1}'
