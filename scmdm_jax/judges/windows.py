"""How surprised a causal model is by texts longer than it reads: scores by windows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Window(NamedTuple):
  """A stretch of a text that a model can read at once.

  tokens: int32 [n + 1]; the first is given, every other one is a target.
  scored: bool [n]: which targets are this window's to score.
  """

  tokens: np.ndarray
  scored: np.ndarray


def windows(tokens: np.ndarray, length: int, stride: int) -> Iterator[Window]:
  """Cuts a text into windows that together score every token but the first once.

  The first window scores all its targets. Each later one begins `stride` tokens after
  the one before and scores the targets that one did not reach, so that a token beyond
  the first window is predicted from at least `length + 1 - stride` tokens before it.

  Args:
    tokens: int32 [N]; the first is given.
    length: most tokens a model reads, at least 1.
    stride: from 1 to `length`; smaller is slower and closer to the whole context.

  Yields:
    Windows of at most `length + 1` tokens; none for a text of fewer than two tokens.

  Raises:
    ValueError: a stride that would leave tokens out, or stand still.
  """
  if not 1 <= stride <= length:
    raise ValueError(f'stride is {stride}; wanted 1 to the length, {length}')
  reached = 1  # The first token that is not scored yet.
  start = 0
  while reached < len(tokens):
    part = tokens[start : start + length + 1]
    targets = np.arange(start + 1, start + len(part))
    yield Window(part, targets >= reached)
    reached = start + len(part)
    start += stride


class Score(NamedTuple):
  """What a judge thinks of texts.

  nll: -log p of all scored tokens together, in nats.
  tokens: how many were scored; every token weighs the same, whichever its text.
  """

  nll: float
  tokens: int

  @property
  def perplexity(self) -> float:
    """exp(nll / tokens); nan without tokens."""
    return float(np.exp(self.nll / self.tokens)) if self.tokens else float('nan')


def score(
  compute: Callable[[np.ndarray], jax.Array],
  texts: Sequence[np.ndarray],
  *,
  length: int,
  stride: int,
  batch_size: int,
  counted: Sequence[np.ndarray] | None = None,
  mapped: Callable[..., Iterable[Any]] = map,
) -> Score:
  """Total -log p of `texts` under a causal model, by `windows`.

  Args:
    compute: `causal_nll` of a model: int32 [B, L + 1] -> nats [B, L].
    texts: int32 [N] each; the first token of each is given, not scored.
    length: most tokens the model reads.
    stride: see `windows`.
    batch_size: most windows at a time. All batches have one shape, its length in whole
      64s, so that `compute` rarely compiles again.
    counted: which targets count, bool [N - 1] per text; None for all.
    mapped: calls a function of every batch's number, as `map` does.
  """
  todo = []
  for i, text in enumerate(texts):
    for number, window in enumerate(windows(text, length, stride)):
      if counted is not None:
        own = counted[i][number * stride :][: len(window.scored)]
        window = window._replace(scored=window.scored & own)
      todo.append(window)
  longest = max((len(window.scored) for window in todo), default=0)
  width = min(-(-longest // 64) * 64, length)
  batch_size = min(batch_size, len(todo))

  def nll_of(first: int) -> Any:
    tokens = np.zeros((batch_size, width + 1), np.int32)
    for row, window in enumerate(todo[first : first + batch_size]):
      tokens[row, : len(window.tokens)] = window.tokens
    return compute(tokens)

  nll, count = 0.0, 0
  starts = range(0, len(todo), batch_size or 1)
  for first, values in zip(starts, mapped(nll_of, starts), strict=True):
    kept = np.zeros((batch_size, width), bool)
    for row, window in enumerate(todo[first : first + batch_size]):
      kept[row, : len(window.scored)] = window.scored
    nll += float(np.asarray(values, np.float64)[kept].sum())
    count += int(kept.sum())
  return Score(nll, count)
