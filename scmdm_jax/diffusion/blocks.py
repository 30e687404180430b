"""Blocks of an example that are written from left to right, and the steps of each.

Legend: `B` batch, `L` length, `K` blocks, `T` steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.planning import Steps


def deal_steps(to_write: jax.Array, num_steps: int) -> jax.Array:
  """Deals T steps to blocks by what is left to write in each, int32 [B, K].

  A block with n > 0 positions to write gets one step and a share of the rest in
  proportion to n - 1, the most that it could use; in equal shares if no block has more
  than one. A block without any gets none. The steps of an example add up to T, or to 0.

  Args:
    to_write: int32 [B, K], positions to write in each of K <= T blocks.
    num_steps: T; its product with the length is below 2^31.
  """
  some = (to_write > 0).astype(jnp.int32)
  more = jnp.maximum(to_write - 1, 0)
  weights = jnp.where(more.any(-1, keepdims=True), more, some)
  until = jnp.cumsum(weights, axis=-1)
  rest = num_steps - some.sum(-1, keepdims=True)
  shares = rest * until // jnp.maximum(until[:, -1:], 1)
  return some + jnp.diff(shares, prepend=0, axis=-1)


class Answers(NamedTuple):
  """Where what is written of every example begins, and what ends it.

  Once a finished block has one of its stops, nothing more of an example is written.
  """

  starts: jax.Array | None  # int32 [B], of first blocks; None: at 0.
  stops: jax.Array | None = None  # int32 [B, E], tokens, -1 for none; None: no stops.
  behind: jax.Array | None = None  # int32 [B], where stops begin to count.

  def of(self, order: jax.Array) -> 'Answers':
    """Returns those of the examples `order` int32 [N]."""
    return jax.tree.map(lambda x: x[order], self)

  def ended(self, x: jax.Array, writable: jax.Array) -> jax.Array:
    """Returns which examples of `x` int32 [B, L] have written a stop, bool [B].

    What is not `writable` bool [B, L], as padding, is none.
    """
    if self.stops is None or self.behind is None:
      return jnp.zeros(len(x), bool)
    counts = writable & (jnp.arange(x.shape[1])[None] >= self.behind[:, None])
    return ((x[:, :, None] == self.stops[:, None]).any(-1) & counts).any(-1)

  def filled(self, x: jax.Array, mask_id: int) -> jax.Array:
    """Returns `x` int32 [B, L] with the first stop where nothing was written."""
    if self.stops is None:
      return x
    return jnp.where(x == mask_id, self.stops[:, :1], x)


NO_ANSWERS = Answers(None)


class Blocks(NamedTuple):
  """The ways of examples through their blocks."""

  writable: jax.Array  # bool [B, L].
  places: jax.Array  # int32 [1, L] or [B, L], the block of every position.
  steps: jax.Array  # int32 [B, K], see `deal_steps`.
  num_steps: int  # T.

  @classmethod
  def of(
    cls, writable: jax.Array, size: int, num_steps: int, starts: jax.Array | None
  ) -> 'Blocks':
    """Returns K blocks with their steps dealt.

    Args:
      writable: bool [B, L]; no more than T blocks may have some of it.
      size: positions of a block; the last may have fewer.
      num_steps: T.
      starts: int32 [B], where the first block of an example begins; what stands before
        belongs to it, too. None: at 0.
    """
    length = writable.shape[1]
    at = jnp.arange(length, dtype=jnp.int32)[None]
    places = (at if starts is None else jnp.maximum(at - starts[:, None], 0)) // size
    inside = places[:, None] == jnp.arange(-(-length // size))[None, :, None]
    to_write = (writable[:, None] & inside).sum(-1, dtype=jnp.int32)
    return cls(writable, places, deal_steps(to_write, num_steps), num_steps)

  def of_examples(self, order: jax.Array) -> 'Blocks':
    """Returns those of the examples `order` int32 [N]."""
    places = self.places if len(self.places) == 1 else self.places[order]
    return Blocks(self.writable[order], places, self.steps[order], self.num_steps)

  def at(self, i: jax.Array) -> tuple[jax.Array, Steps, jax.Array, jax.Array]:
    """Returns where examples are that have taken `i` int32 [B] of their steps.

    That is, the block [B], its steps, how many of them are taken [B], and what may be
    written, bool [B, L]. An example without a step left stays at its last.
    """
    number = self.steps.shape[1]
    ends = jnp.cumsum(self.steps, axis=-1)
    b = jnp.minimum((ends <= i[:, None]).sum(-1, dtype=jnp.int32), number - 1)
    here = jnp.arange(number)[None] == b[:, None]
    own = jnp.where(here, self.steps, 0).sum(-1, dtype=jnp.int32)
    start = jnp.where(here, ends, 0).sum(-1, dtype=jnp.int32) - own
    own = jnp.maximum(own, 1)
    taken = jnp.minimum(i - start, own - 1)
    inside = self.places == b[:, None]
    steps = Steps(own, self.num_steps, self.num_steps // number)
    return b, steps, taken, self.writable & inside
