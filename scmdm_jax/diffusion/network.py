"""What the method asks of a network. Nothing here knows how it is made."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Placement(Protocol):
  """Keeps arrays on their devices. Every function returns the values it is given.

  A batch may be split three ways; on one device all three counts are 1.
  """

  @property
  def batch_shards(self) -> int:
    """S: a batch is S equal runs of examples, each on devices of its own."""
    ...

  @property
  def sequence_shards(self) -> int:
    """P: the positions of an example are P equal runs, each on devices of its own."""
    ...

  @property
  def vocabulary_shards(self) -> int:
    """The scores of a position are so many equal runs, each on devices of its own."""
    ...

  def constrain(self, x: jax.Array) -> jax.Array:
    """Keeps examples and positions of `x` [B, L, ...] on their devices."""
    ...

  def constrain_batch(self, x: jax.Array) -> jax.Array:
    """Keeps the S runs of examples along the first axis of `x` on their devices."""
    ...

  def constrain_groups(self, x: jax.Array) -> jax.Array:
    """Keeps the S times P groups along the first axis of `x` on their devices."""
    ...

  def apart(
    self, function: Callable[..., Any], shared: Any, split: Any, whole: Any
  ) -> Any:
    """Returns `function(placement, shared, split, whole)`, each group for itself.

    `split` are [B, L, ...]. Gradients of `shared` are summed over the groups once.
    """
    ...


class Network(Protocol):
  """A denoiser with its parameters bound, and where its arrays live.

  `logits` and `signal` are pytrees (`jax.tree_util.Partial`) whose leaves are the
  parameters they read, if gradients are to reach those.
  """

  @property
  def signal_dim(self) -> int:
    """D."""
    ...

  @property
  def encode(self) -> Callable[..., jax.Array]:
    """(x_t int32 [B, L], signal [B, L, D], sigma [B][, mask]) -> hidden [B, L, D].

    The signal of a visible position must not matter: nothing is predicted there. The
    mask says who attends to whom, a tree of [B, ...]; without it everybody to all.
    """
    ...

  @property
  def logits(self) -> Callable[..., jax.Array]:
    """Hidden [..., D] -> raw scores [..., V], the mask column among them."""
    ...

  @property
  def signal(self) -> Callable[..., jax.Array]:
    """Probabilities [..., V] -> what the next evaluation sees of them, [..., D].

    Linear, so that it may be given weights which sum to something else than one.
    """
    ...

  @property
  def placement(self) -> Placement:
    """Keeps arrays on their devices; see `Placement`."""
    ...


def null_signal(network: Network, x_t: jax.Array) -> jax.Array:
  """Returns the signal of "nothing predicted yet": zeros, float32 [B, L, D].

  Injections are linear or bias-free in the signal, so zero stays an exact zero behind
  them. Zero *logits* would not do: their softmax is the mean embedding.
  """
  return jnp.zeros((*x_t.shape, network.signal_dim), jnp.float32)


def encode(
  network: Network, x_t: jax.Array, signal: jax.Array, sigma: jax.Array, mask: Any
) -> jax.Array:
  """Returns `network.encode`'s hidden [B, L, D]; it is given a mask if there is one."""
  rest = () if mask is None else (mask,)
  return network.encode(x_t, signal, sigma, *rest)
