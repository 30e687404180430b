"""One denoising trajectory, step by step: how the sampler writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from scmdm_jax.report import text


def revealed(masked: Sequence[Sequence[bool]]) -> list[list[bool]]:
  """Marks the positions that were masked one row above and no longer are."""
  return [
    [was and not now for was, now in zip(before, row, strict=True)]
    for before, row in zip([masked[0], *masked[:-1]], masked, strict=True)
  ]


def trajectory_html(trajectory: Mapping[str, Any], *, conditioned: bool) -> str:
  """A table with one row per step and one column per position.

  Args:
    trajectory: `{arm, num_steps, tokens, masked}`; `tokens` and `masked` are lists
      of rows of L entries: the start (before any step), then one row per step.
    conditioned: whether the arm carries a signal from step to step.

  Returns:
    A paragraph that says what is carried, and the table. Masked positions are grey
    dots, tokens written in this step are framed and bold, older ones plain.

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
  rows = []
  for i, (row, hidden, new) in enumerate(
    zip(tokens, masked, revealed(masked), strict=True)
  ):
    cells = ''.join(map(_cell, row, hidden, new))
    rows.append(
      f'<tr><th scope="row">{i}</th>{cells}'
      f'<td class="number">{sum(hidden)}</td>'
      f'<td class="signal">{_signal(i, conditioned)}</td></tr>\n'
    )
  positions = ''.join(f'<th>{i + 1}</th>' for i in range(shapes[0][0]))
  return (
    f'<p>{_explanation(trajectory, conditioned)}</p>\n'
    '<div class="scroll"><table class="trajectory">\n'
    f'<thead><tr><th scope="col">step</th>{positions}'
    '<th scope="col">masked</th><th scope="col">signal seen</th></tr></thead>\n'
    f'<tbody>{"".join(rows)}</tbody></table></div>'
  )


def _cell(token: str, hidden: bool, new: bool) -> str:
  if hidden:
    return '<td class="mask">·</td>'
  shown = text.escape(token).replace(' ', '␣') or '∅'
  return f'<td class="new"><b>{shown}</b></td>' if new else f'<td>{shown}</td>'


def _signal(step: int, conditioned: bool) -> str:
  """What the evaluation behind row `step` saw; row 0 has no evaluation."""
  if step == 0:
    return text.ABSENT
  if not conditioned:
    return 'none'
  return 'null (zero)' if step == 1 else f'prediction of step {step - 1}'


def _explanation(trajectory: Mapping[str, Any], conditioned: bool) -> str:
  arm = text.escape(trajectory['arm'])
  return (
    f'Arm <b>{arm}</b>, {text.escape(trajectory["num_steps"])} steps. Every row is the '
    'whole sequence after a step. <span class="mask">·</span> is a masked position, '
    '<span class="new"><b>framed</b></span> a token written in this step; a token '
    f'once written stays. {carried(conditioned)}'
  )


def carried(conditioned: bool) -> str:
  """What the sampler carries from step to step, for a caption."""
  return (
    'Carried from step to step is the previous prediction of the clean sequence, as '
    'one vector per position (the expectation of its token embedding), seen where the '
    'sequence is still masked; the first step sees an exact zero.'
    if conditioned
    else 'No signal is carried: each step sees the tokens only.'
  )
