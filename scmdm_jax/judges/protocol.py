"""Judges that are models, as plain functions on the host."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.judges.windows import Score


class Scoring(Protocol):
  """-log p of texts under a causal judge."""

  def __call__(
    self,
    texts: Sequence[np.ndarray],
    *,
    length: int,
    stride: int,
    counted: Sequence[np.ndarray] | None = None,
  ) -> Score:
    """The score of texts int32 [N] each; arguments as of `windows.score`."""
    ...


class CausalJudge(NamedTuple):
  """A causal model that reads any number of texts, in batches.

  Attributes:
    tokenizer: what it reads with.
    length: most tokens it reads at once.
    score: see `Scoring`.
    features: (texts int32 [N] each, int [B]: the position of each text to look at) ->
      the last hidden states there, float32 [B, D].
  """

  tokenizer: Tokenizer
  length: int
  score: Scoring
  features: Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]


class ClassJudge(NamedTuple):
  """A classifier that reads any number of rows, in batches.

  Attributes:
    features: rows int32 [N, L] -> float32 [N, D].
    logits: rows int32 [N, L] -> class scores float32 [N, C].
    first_class: id of class 0.
  """

  features: Callable[[np.ndarray], np.ndarray]
  logits: Callable[[np.ndarray], np.ndarray]
  first_class: int

  def classes(self, rows: np.ndarray) -> np.ndarray:
    """The likeliest class of every row, int32 [N]."""
    return self.logits(rows).argmax(-1).astype(np.int32)


def start_of(tokenizer: Tokenizer) -> list[int]:
  """The token before a text, if any: start, or the end of what came before."""
  start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
  return [] if start is None else [start]


def frame_of(tokenizer: Tokenizer) -> list[int]:
  """The ids that begin or end a text, as far as there are any."""
  return [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None]
