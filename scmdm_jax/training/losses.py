"""Losses of judges: of the next token, and of the class that began a row."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

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


def class_nll(
  logits: Callable[[jax.Array], jax.Array], rows: jax.Array, first_class: int
) -> jax.Array:
  """-log p(class | content) in nats, float32 [B].

  Args:
    logits: rows int32 [B, L] -> class scores [B, C].
    rows: int32 [B, L], each beginning with its class.
    first_class: id of class 0.
  """
  scores = jax.nn.log_softmax(logits(rows).astype(jnp.float32))
  return -jnp.take_along_axis(scores, rows[:, :1] - first_class, axis=1)[:, 0]
