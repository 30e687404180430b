"""Rotary positions (RoFormer, arXiv 2104.09864), half-split convention.

In an image they are axial: some pairs of a head's dimensions turn with the row, as many
with the column, and, where there are several channels, the rest with the channel. Rows
and columns are as in RoPE-ViT (arXiv 2403.13298); the channel is ours. A learned vector
for each channel would do as well, but no file of MDLM's layout has one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.models.attention import EVERYBODY, AttentionMask
from scmdm_jax.models.family import Buffer

# Slowest turn of a coordinate: an image has tens of rows, a text thousands of tokens.
_GRID_BASE = 100.0


def rotate(x: jax.Array, base: float, mask: AttentionMask = EVERYBODY) -> jax.Array:
  """Rotates queries or keys `x` [B, L, H, K] by their position, as `mask` has it.

  The two halves of K form the pairs (`rotate_half`, not interleaved), as in MDLM and
  in the Llama family. Computed in float32 and returned in the dtype of `x`.
  """
  length = _rows(x, mask)
  return _turn(x, _line_turns(length, x.shape[-1], base), mask)


def rotate_in_grid(
  x: jax.Array, grid: tuple[int, ...], mask: AttentionMask = EVERYBODY
) -> jax.Array:
  """Rotates `x` [B, L, H, K], the first L positions of a token and the image behind it.

  The token stands at (row, column, channel) = (0, 0, 0), a value at (row + 1, column +
  1, channel). With one channel half of the pairs turn with the row and half with the
  column; with more, three eighths each, and the rest with the channel. The j-th of n
  pairs of a coordinate turns by coordinate / 100^(j / n).

  Args:
    x: as in `rotate`.
    grid: `C`, `H` and `W`; values are ordered channel, row, column.
    mask: says which positions `x` has.
  """
  return _turn(x, _grid_turns(grid, _rows(x, mask), x.shape[-1]), mask)


def _rows(x: jax.Array, mask: AttentionMask) -> int:
  """Returns how many positions an example has of which `x` has some, or copies."""
  return mask.beside or (mask.span.length if mask.span else x.shape[1])


def rotary_buffer(size: int, base: float) -> Buffer:
  """Returns the tensor `inv_freq` of files, float32 [size / 2].

  Pair j of a head of `size` turns by base^(-2j / size) with each position.
  """

  def value() -> np.ndarray:
    exponents = -np.arange(0, size, 2, dtype=np.float64) / size
    return (base**exponents).astype(np.float32)

  return Buffer((size // 2,), value, f'base {base:g} in heads of {size}')


class _Turns(NamedTuple):
  """Cosines and sines of the angles of pairs, float32 [1, L, 1, K / 2].

  Constants, since a compiler that fuses a cosine into what it is multiplied by works it
  out for every example and head (XLA on CPU: more than half of the time of attention at
  B=4, L=128), and the same arrays at every use, so that a program holds them once.
  """

  cos: np.ndarray
  sin: np.ndarray


@functools.cache
def _line_turns(length: int, size: int, base: float) -> _Turns:
  inv_freq = np.float32(base) ** (-np.arange(0, size, 2, dtype=np.float32) / size)
  return _turns(np.arange(length, dtype=np.float32)[:, None] * inv_freq)


@functools.cache
def _grid_turns(grid: tuple[int, ...], length: int, size: int) -> _Turns:
  channel, row, column = np.indices(grid).reshape(3, -1)
  places = np.zeros((1 + channel.size, 3))
  places[1:] = np.stack([row + 1, column + 1, channel], axis=1)
  pairs = size // 2
  each = pairs // 2 if grid[0] == 1 else 3 * pairs // 8
  counts = (each, each, pairs - 2 * each)
  angles = [
    place[:, None] * _GRID_BASE ** (-np.arange(count) / max(count, 1))
    for place, count in zip(places[:length].T, counts, strict=True)
  ]
  return _turns(np.concatenate(angles, axis=1).astype(np.float32))


def _turns(angles: np.ndarray) -> _Turns:
  """Of angles float32 [L, K / 2]."""
  return _Turns(np.cos(angles)[None, :, None], np.sin(angles)[None, :, None])


def _turn(x: jax.Array, turns: _Turns, mask: AttentionMask) -> jax.Array:
  cos, sin = (_of_queries(table, x.shape[1], mask) for table in turns)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _of_queries(
  table: np.ndarray, count: int, mask: AttentionMask
) -> np.ndarray | jax.Array:
  """Returns those of `table` [1, L, 1, K / 2] that `count` rows turn by."""
  if mask.beside:
    return np.tile(table, (1, 2, 1, 1))
  if mask.span is None:
    return table
  return jax.lax.dynamic_slice_in_dim(table, mask.span.start, count, axis=1)
