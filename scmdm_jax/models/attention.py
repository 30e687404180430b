"""Scaled dot-product attention, the one that every architecture here uses.

Legend: `B` batch, `L` length, `H` query heads, `N` key heads, `K` head size.
"""

import jax
import jax.numpy as jnp


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  causal: bool = False,
  real: jax.Array | None = None,
  window: int = 0,
) -> jax.Array:
  """Mixes the values for every query, [B, L, H, K] in the dtype of `v`.

  Scores and softmax are float32 whatever the inputs are. A query with nothing to attend
  to gets the mean of all values: finite, and of no use to anybody.

  Args:
    q: [B, L, H, K].
    k: [B, L, N, K] with N a divisor of H: query head h reads key head h // (H / N).
    v: like `k`.
    causal: a query sees its own position and earlier ones only.
    real: bool [B, L], False at padding, which nobody attends to; None: no padding.
    window: above 0: a query sees `window` positions on either side; the first position
      is seen by all and sees all. Exact, and worked out in blocks: time and memory grow
      as L * window. A genome of 32,768 bases has 10^9 pairs per head and layer; within
      256 they are 25 million, and neighbouring blocks are all that devices which share
      a sequence would have to exchange. What lies further apart meets through the
      first position and layer by layer. 0: everybody sees everybody.
  """
  length, heads = q.shape[1:3]
  if causal and window:
    raise ValueError('a window sees both ways; wanted causal or a window, not both')
  group = heads // k.shape[2]
  if group > 1:
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
  # On CPU 0.6 to 0.8 times the time of jax.nn.dot_product_attention; with the heads
  # left behind the length, 1.0 to 1.3 times.
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  if 0 < window < length - 1:
    return jnp.swapaxes(_attend_within(q, k, v, real, window), 1, 2)
  return jnp.swapaxes(_attend_all(q, k, v, real, causal), 1, 2)


def _attend_all(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  real: jax.Array | None,
  causal: bool = False,
) -> jax.Array:
  """Queries [B, H, M, K] over keys and values [B, H, L, K], [B, H, M, K]."""
  scores = jnp.einsum('bhlk,bhmk->bhlm', q, k, preferred_element_type=jnp.float32)
  scores = scores * q.shape[-1] ** -0.5
  if causal:
    scores = _banned(scores, jnp.tril(jnp.ones((1, 1, *scores.shape[2:]), bool)))
  if real is not None:
    scores = _banned(scores, real[:, None, None, :])
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  return jnp.einsum('bhlm,bhmk->bhlk', weights, v)


def _banned(scores: jax.Array, allowed: jax.Array) -> jax.Array:
  # Finite: a row of minus infinities would be NaN.
  return jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)


def _attend_within(
  q: jax.Array, k: jax.Array, v: jax.Array, real: jax.Array | None, window: int
) -> jax.Array:
  """`attend` with a window, on [B, H, L, K].

  Blocks of `window` queries meet their own keys and those of both neighbours, and the
  first key as one more; the first query is worked out apart.
  """
  batch, heads, length, size = q.shape
  blocks = -(-length // window)
  behind = blocks * window - length

  def blocked(x: jax.Array, around: int) -> jax.Array:
    """[B, H, L, K] -> [B, H, N, window, K], with `around` blocks of zeros at the ends.

    N is the number of blocks.
    """
    pads = (around * window, around * window + behind)
    x = jnp.pad(x, ((0, 0), (0, 0), pads, (0, 0)))
    return x.reshape(*x.shape[:2], -1, window, x.shape[-1])

  def neighbourhoods(x: jax.Array) -> jax.Array:
    """[B, H, L, K] -> [B, H, N, 3 window, K]."""
    x = blocked(x, 1)
    return jnp.concatenate([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], axis=3)

  queries, keys, values = blocked(q, 0), neighbourhoods(k), neighbourhoods(v)
  near = jnp.einsum(
    'bhnik,bhnjk->bhnij', queries, keys, preferred_element_type=jnp.float32
  )
  first = jnp.einsum(
    'bhnik,bhk->bhni', queries, k[:, :, 0], preferred_element_type=jnp.float32
  )[..., None]
  at = jnp.arange(blocks)[:, None, None] * window  # Where blocks begin.
  i = at + jnp.arange(window)[None, :, None]
  j = at - window + jnp.arange(3 * window)[None, None]
  seen = (jnp.abs(i - j) <= window) & (j > 0) & (j < length)  # [N, window, 3 window]
  near = _banned(near * size**-0.5, seen[None, None])
  first = first * size**-0.5
  if real is not None:
    near = _banned(near, neighbourhoods(real[:, None, :, None])[:, :, :, None, :, 0])
    first = _banned(first, real[:, None, None, :1, None])
  scores = jnp.concatenate([near, first], axis=-1)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  mixed = jnp.einsum('bhnij,bhnjk->bhnik', weights[..., :-1], values)
  mixed = mixed + weights[..., -1:] * v[:, :, None, :1]
  mixed = mixed.reshape(batch, heads, -1, size)[:, :, :length]
  return mixed.at[:, :, :1].set(_attend_all(q[:, :, :1], k, v, real))
