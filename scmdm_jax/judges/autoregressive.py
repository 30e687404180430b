"""An independent judge: how surprised a causal language model is by the samples."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

# Whose scores of the whole vocabulary are in memory together: 200 MB for 49152 tokens.
_POSITIONS = 1024


class CausalNetwork(Protocol):
  """Tokens to next-token scores, parameters bound."""

  @property
  def signal_dim(self) -> int:
    """Width of the signal, which a causal model is given as zeros."""
    ...

  @property
  def encode(self) -> Callable[..., jax.Array]:
    """(tokens int32 [B, L], signal [B, L, D], sigma [B]) -> hidden [B, L, D]."""
    ...

  @property
  def logits(self) -> Callable[..., jax.Array]:
    """Hidden [..., D] -> scores of the next token [..., V]."""
    ...


def causal_nll(network: CausalNetwork, tokens: jax.Array) -> jax.Array:
  """-log p(tokens[:, i + 1] | tokens[:, :i + 1]) in nats, float32 [B, L - 1].

  Args:
    network: a causal model with its parameters bound.
    tokens: int32 [B, L]; the first token is given, not scored.
  """
  batch, length = tokens.shape
  nothing = jnp.zeros((batch, length - 1, network.signal_dim), jnp.float32)
  hidden = network.encode(tokens[:, :-1], nothing, jnp.zeros((batch,)))

  def one(position: tuple[jax.Array, jax.Array]) -> jax.Array:
    state, target = position
    return -jax.nn.log_softmax(network.logits(state).astype(jnp.float32))[target]

  states = hidden.reshape(-1, hidden.shape[-1])
  nll = jax.lax.map(one, (states, tokens[:, 1:].ravel()), batch_size=_POSITIONS)
  return nll.reshape(batch, length - 1)


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
) -> Score:
  """Total -log p of `texts` under a causal model, by `windows`.

  Args:
    compute: `causal_nll` of a model: int32 [B, L + 1] -> nats [B, L].
    texts: int32 [N] each; the first token of each is given, not scored.
    length: most tokens the model reads.
    stride: see `windows`.
    batch_size: most windows at a time. All batches have one shape, its length in whole
      64s, so that `compute` rarely compiles anew.
    counted: which targets count, bool [N - 1] per text; None for all.
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
  nll, count = 0.0, 0
  for first in range(0, len(todo), batch_size or 1):
    batch = todo[first : first + batch_size]
    tokens = np.zeros((batch_size, width + 1), np.int32)
    kept = np.zeros((batch_size, width), bool)
    for row, window in enumerate(batch):
      tokens[row, : len(window.tokens)] = window.tokens
      kept[row, : len(window.scored)] = window.scored
    values = np.asarray(compute(tokens), np.float64)
    nll += float(values[kept].sum())
    count += int(kept.sum())
  return Score(nll, count)
