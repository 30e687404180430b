"""The network of a sampler, or under guidance two of them, side by side.

Legend: `M` networks, 1 or 2; `R` positions; `D`, `V` as elsewhere.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.network import Network, null_signal


@dataclasses.dataclass(frozen=True)
class Guidance:
  """Classifier-free guidance: scores u + (1 + w) (c - u) of two evaluations.

  c is the network's, u the unconditional one's (LLaDA; Ho and Salimans,
  arXiv 2207.12598). Each evaluation has a signal of its own: its own prediction, as in
  training, or with `shared_signal` the guided one for both.
  """

  weight: float
  shared_signal: bool = False

  def __post_init__(self):
    # Beyond 1e6 float32 would let banned tokens win.
    check(-1 <= self.weight <= 1e6, 'weight', self.weight, 'a number from -1 to 1e+06')


class Predictor(NamedTuple):
  """What a sampler evaluates: states of its networks lie side by side, [..., M D]."""

  networks: tuple[Network, ...]  # The sampler's, then the unconditional one.
  guidance: Guidance | None = None

  def null_signal(self, x_t: jax.Array) -> jax.Array:
    """Returns the null signal of every network at `x_t` int32 [B, L], [B, L, M D]."""
    nulls = [null_signal(self.networks[0], x_t)] * len(self.networks)
    return jnp.concatenate(nulls, axis=-1)

  def encode(self, x_t: jax.Array, signal: jax.Array, sigma: jax.Array) -> jax.Array:
    """Evaluates every network on `x_t` int32 [B, L]; hidden states [B, L, M D]."""
    signals = jnp.split(signal, len(self.networks), axis=-1)
    hidden = [
      n.encode(x_t, s, sigma) for n, s in zip(self.networks, signals, strict=True)
    ]
    return jnp.concatenate(hidden, axis=-1)

  def guided(self, scores: list[jax.Array]) -> jax.Array:
    """Returns the scores [R, V] to draw from, of those of every network."""
    if self.guidance is None:
      return scores[0]
    return scores[1] + (1 + self.guidance.weight) * (scores[0] - scores[1])

  def predictions(self, scores: list[jax.Array], guided: jax.Array) -> list[jax.Array]:
    """Returns the scores [R, V] that the next signal of every network is made of."""
    shared = self.guidance is not None and self.guidance.shared_signal
    return [guided] * len(self.networks) if shared else scores
