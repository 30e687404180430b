"""How a network is run; but for rounding, what it computes does not depend on it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

REMATS = ('none', 'dots', 'full')


def leave(x: Any) -> Any:
  """`x` itself: what `Execution`'s functions are on one device."""
  return x


def leave_all(*arrays: Any) -> tuple[Any, ...]:
  """The same for several."""
  return arrays


@dataclasses.dataclass(frozen=True)
class Execution:
  """Where arrays stay, what is recomputed backward, and how precise products are.

  shards: a batch is so many equal runs of examples, each on devices of its own.
  parts: the positions of an example are so many equal runs, likewise.
  columns: the scores over the vocabulary are so many equal runs, likewise.
  pin: keeps those runs, along the first axis of an array, where they belong.
  pin_parts: keeps shards times parts, along the first axis, where they belong.
  spread: keeps examples and positions of an array [B, L, ...] where they belong.
  meet: of queries, keys and values [B, L, H, K], makes keys and values whole along L,
    while queries stay where they are.
  gather: makes parameters of the vocabulary whole but for its own split, once, rather
    than at every chunk of positions that meets them.
  remat: of every block, backward recomputes 'none', all but the matrix products
    ('dots'), or everything ('full').
  dtype: parameters are rounded to it, and products follow; '' leaves them as they are.
  """

  shards: int = 1
  parts: int = 1
  columns: int = 1
  pin: Callable[[jax.Array], jax.Array] = leave
  pin_parts: Callable[[jax.Array], jax.Array] = leave
  spread: Callable[[jax.Array], jax.Array] = leave
  meet: Callable[..., tuple[jax.Array, ...]] = leave_all
  gather: Callable[[Any], Any] = leave
  remat: str = 'none'
  dtype: str = ''

  def flat(self, x: jax.Array) -> jax.Array:
    """[B, L, D] as [B L, D], of which products go backward faster on CPU.

    Positions that are spread over devices would have to move for it: they stay.
    """
    return x if self.parts > 1 else x.reshape(-1, x.shape[-1])

  def block(self, cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`cls`, a module class, with the chosen rematerialisation."""
    if self.remat == 'none':
      return cls
    policy = None
    if self.remat == 'dots':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    wrapped: Any = nn.remat(cls, policy=policy)
    return wrapped
