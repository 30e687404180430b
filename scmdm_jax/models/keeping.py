"""Keys and values that a backbone keeps between evaluations, in its collection `cache`.

Every array there is [B, L, ...], whatever part of the L positions is evaluated, so that
one program does for all. Legend: `B` batch, `L` length.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.attention import AttentionMask, column

CACHE = 'cache'


def kept(
  module: nn.Module, new: Mapping[str, jax.Array], mask: AttentionMask
) -> list[jax.Array]:
  """Returns arrays of all positions, those of `mask.span` put in and kept.

  Args:
    module: whose cache they are kept in.
    new: of the positions of the span, [B, M, ...], by their names in the cache.
    mask: without a span nothing is kept, and `new` is returned.
  """
  span = mask.span
  if span is None:
    return list(new.values())
  found = []
  for name, values in new.items():
    shape = (len(values), span.length, *values.shape[2:])
    nothing = jnp.zeros(shape, values.dtype)
    cache, count = module.get_variable(CACHE, name, nothing), values.shape[1]
    is_fresh = mask.queries(count) >= column(span.fresh)
    is_fresh = is_fresh.reshape(*is_fresh.shape, *[1] * (values.ndim - 2))
    values = jnp.where(is_fresh, values, span.cut(cache, count))
    cache = span.put(cache, values)
    module.put_variable(CACHE, name, cache)
    found.append(cache)
  return found


def shifted(module: Any, x: jax.Array, mask: AttentionMask) -> jax.Array:
  """Returns at every position what was computed at the one before it, as `x` [B, M, D].

  Position 0 has its own. With `mask.beside` a noised block is read off the clean one
  before it, as it is in sampling; `module` has the block length in its `config`.
  """
  count = x.shape[1]
  (x,) = kept(module, {'hidden': x}, mask)
  before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
  if mask.span is not None:
    return mask.span.cut(before, count)
  if not mask.beside:
    return before
  first, place = mask.beside, jnp.arange(count)
  begins = (place > first) & (place % module.config.block_length == 0)
  clean = jnp.roll(before, first, axis=1)
  before = jnp.where(begins[None, :, None], clean, before)
  # Not by `.at[:, first].set`, as in `attention`.
  return jnp.where((place == first)[None, :, None], x, before)
