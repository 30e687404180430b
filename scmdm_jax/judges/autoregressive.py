"""An independent judge: how surprised a causal language model is by the samples."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp


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
  log_probs = jax.nn.log_softmax(network.logits(hidden).astype(jnp.float32), axis=-1)
  return -jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]


def scored(tokens: jax.Array, eos_id: int) -> jax.Array:
  """True for targets up to and with the first end token, bool [B, L - 1].

  Padding behind the end is not part of a sample's text, so it is not scored.
  """
  ends = (tokens[:, 1:] == eos_id).astype(jnp.int32)
  return jnp.cumsum(ends, axis=-1) - ends == 0
