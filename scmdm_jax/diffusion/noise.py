"""The noise of training examples: a function of which example it is, and of the epoch.

The times, masks and passes of an example follow from the root key, the epoch, the
example's number in its data set, and its place in the order of the epoch, which the
seed decides; not from the step, the row of a batch it lies in, how a batch is cut into
micro-batches, or the mesh.

Neighbouring places share out the times: that of place `i` is the offset of the epoch
plus `i` golden sections, so that those of any run of examples are spread almost as
evenly as slices would be (Weyl's sequence; three-distance theorem).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# 2^32 over the golden ratio: the fraction whose multiples are spread most evenly.
_GOLDEN = 2654435769
_HALF = 16  # Bits.


class Batch(NamedTuple):
  """Examples of a training step; on their way there, arrays of NumPy.

  Attributes:
    tokens: int32 [B, L].
    number: int32 [B]; which example of the data set each is.
    epoch: int32 [B].
    place: int32 [B]; which one of the epoch it is, from 0.
    target: bool [B, L], the positions that may be masked and are scored; all others are
      visible at every time. None: all may.
    mask: who attends to whom, a tree of [B, ...] that `encode` is given; None: it is
      not.
    padding: int32 [B], positions of padding, attended to or not; None: not counted.
  """

  tokens: jax.Array
  number: jax.Array
  epoch: jax.Array
  place: jax.Array
  target: jax.Array | None = None
  mask: Any = None
  padding: jax.Array | None = None


def batch_of(tokens: jax.Array, epoch: int = 0) -> Batch:
  """Returns `tokens` int32 [B, L] as the examples 0, 1, ... of an epoch."""
  number = jnp.arange(len(tokens), dtype=jnp.int32)
  return Batch(tokens, number, jnp.full_like(number, epoch), number)


def example_keys(key: jax.Array, batch: Batch) -> jax.Array:
  """Returns a key for each example, [B], of its epoch and number."""
  fold = jax.random.fold_in
  return jax.vmap(lambda e, n: fold(fold(key, e), n))(batch.epoch, batch.number)


def thresholds(key: jax.Array, batch: Batch) -> jax.Array:
  """Draws a number from [0, 1) for every position, float32 [B, L].

  A token is visible at time t where its number is below alpha(t).
  """
  length = batch.tokens.shape[1]
  draw = jax.vmap(lambda key: jax.random.uniform(key, (length,)))
  return draw(example_keys(key, batch))


def epoch_bits(key: jax.Array, batch: Batch) -> jax.Array:
  """Draws 32 bits for each epoch, uint32 [B]."""
  draw = jax.vmap(lambda e: jax.random.bits(jax.random.fold_in(key, e)))
  return draw(batch.epoch)


def times(key: jax.Array, batch: Batch, t_min: float, blocks: int = 1) -> jax.Array:
  """Draws a time in [t_min, 1] for each example, float32 [B]; see the module.

  Of K > 1 `blocks` one for each, [B, K]: the K of an example have neighbouring places.
  """
  place = batch.place.astype(jnp.uint32)
  start = epoch_bits(key, batch)
  if blocks > 1:
    within = jnp.arange(blocks, dtype=jnp.uint32)[None]
    place, start = place[:, None] * jnp.uint32(blocks) + within, start[:, None]
  phase = place * jnp.uint32(_GOLDEN) + start
  # 24 bits are what a float32 below 1 can hold.
  t = ((phase >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
  return t_min + (1 - t_min) * t


def shared_out(
  key: jax.Array, batch: Batch, rate: float
) -> tuple[jax.Array, jax.Array]:
  """Chooses a share `rate` of the examples, evenly along their places.

  Returns (chosen bool [B], rank int32 [B]): of n examples in a row n times `rate`,
  rounded up or down, are chosen, and the rank of a chosen one says how many were
  chosen before it, counted from a random start.

  Args:
    key: consumed.
    batch: see `Batch`.
    rate: in (0, 1]; static.
  """
  key_start, key_rank = jax.random.split(key)
  place = batch.place.astype(jnp.uint32)
  first = (epoch_bits(key_rank, batch) >> _HALF).astype(jnp.int32)
  if rate == 1:
    return jnp.ones(place.shape, bool), first + place.astype(jnp.int32)
  # Rounded down, so that n in a row never have more than n times `rate`, rounded up.
  step = int(rate * 2**32)
  whole, rest = _product(place, step)
  shifted = rest + epoch_bits(key_start, batch)
  whole += (shifted < rest).astype(jnp.uint32)
  # The place where the sum of `rate`s passes a whole number is chosen.
  chosen = shifted >= jnp.uint32(2**32 - step) if step else jnp.zeros(place.shape, bool)
  return chosen, first + whole.astype(jnp.int32)


def _product(a: jax.Array, b: int) -> tuple[jax.Array, jax.Array]:
  """Returns the high and the low 32 bits of `a` uint32 times `b`."""
  low_mask = jnp.uint32(0xFFFF)
  a_low, a_high = a & low_mask, a >> _HALF
  b_low, b_high = jnp.uint32(b & 0xFFFF), jnp.uint32(b >> _HALF)
  low, one, two = a_low * b_low, a_low * b_high, a_high * b_low
  middle = (low >> _HALF) + (one & low_mask) + (two & low_mask)
  high = a_high * b_high + (one >> _HALF) + (two >> _HALF) + (middle >> _HALF)
  return high, (middle << _HALF) | (low & low_mask)
