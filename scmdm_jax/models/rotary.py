"""Rotary positions (RoFormer, arXiv 2104.09864), half-split convention.

In an image they are axial: some pairs of a head's dimensions turn with the row, as many
with the column, and, where there are several channels, the rest with the channel. Rows
and columns are as in RoPE-ViT (arXiv 2403.13298); the channel is ours. A learned vector
for each channel would do as well, but no file of MDLM's layout has one.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Slowest turn of a coordinate: an image has tens of rows, a text thousands of tokens.
_GRID_BASE = 100.0


def rotate(x: jax.Array, base: float) -> jax.Array:
  """Rotates queries or keys `x` [B, L, H, K] by their position.

  The two halves of K form the pairs (`rotate_half`, not interleaved), as in MDLM and
  in the Llama family. Computed in float32 and returned in the dtype of `x`.
  """
  length, size = x.shape[1], x.shape[-1]
  inv_freq = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  return turn(x, jnp.arange(length, dtype=jnp.float32)[:, None] * inv_freq[None])


def turn(x: jax.Array, angles: jax.Array | np.ndarray) -> jax.Array:
  """Rotates the pairs of `x` [B, L, H, K] by `angles` float32 [L, K / 2]."""
  cos = jnp.cos(angles)[None, :, None]
  sin = jnp.sin(angles)[None, :, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def grid_angles(grid: tuple[int, ...], size: int) -> np.ndarray:
  """Angles of a token and the image behind it, float32 [1 + C H W, K / 2].

  The token stands at (row, column, channel) = (0, 0, 0), a value at (row + 1, column +
  1, channel). With one channel half of the pairs turn with the row and half with the
  column; with more, three eighths each, and the rest with the channel. The j-th of n
  pairs of a coordinate turns by coordinate / 100^(j / n).

  Args:
    grid: `C`, `H` and `W`; values are ordered channel, row, column.
    size: `K`.
  """
  channel, row, column = np.indices(grid).reshape(3, -1)
  places = np.zeros((1 + channel.size, 3))
  places[1:] = np.stack([row + 1, column + 1, channel], axis=1)
  pairs = size // 2
  each = pairs // 2 if grid[0] == 1 else 3 * pairs // 8
  counts = (each, each, pairs - 2 * each)
  angles = [
    place[:, None] * _GRID_BASE ** (-np.arange(count) / max(count, 1))
    for place, count in zip(places.T, counts, strict=True)
  ]
  return np.concatenate(angles, axis=1).astype(np.float32)
