"""Rotary positions (RoFormer, arXiv 2104.09864), half-split convention."""

import jax
import jax.numpy as jnp


def rotate(x: jax.Array, base: float) -> jax.Array:
  """Rotates queries or keys `x` [B, L, H, K] by their position.

  The two halves of K form the pairs (`rotate_half`, not interleaved), as in MDLM and
  in the Llama family. Computed in float32 and returned in the dtype of `x`.
  """
  length, size = x.shape[1], x.shape[-1]
  inv_freq = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  angles = jnp.arange(length, dtype=jnp.float32)[:, None] * inv_freq[None]  # [L, K/2]
  cos = jnp.cos(angles)[None, :, None]
  sin = jnp.sin(angles)[None, :, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)
