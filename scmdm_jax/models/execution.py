"""How a network is run; but for rounding, what it computes does not depend on it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from scmdm_jax.models.attention import AttentionMask, attend
from scmdm_jax.parallel.placement import Placement

_ONE_DEVICE = Placement()

REMATS = ('none', 'dots', 'full')


@dataclasses.dataclass(frozen=True)
class Execution:
  """Where arrays stay, what is recomputed backward, and how precise products are.

  placement: keeps arrays on their devices; see `Placement`.
  remat: of every block, backward recomputes 'none', all but the matrix products
    ('dots'), or everything ('full').
  dtype: parameters are rounded to it, and products follow; '' leaves them as they are.
  """

  placement: Placement = _ONE_DEVICE
  remat: str = 'none'
  dtype: str = ''

  def per_token(
    self, layer: Callable[[jax.Array], jax.Array], x: jax.Array
  ) -> jax.Array:
    """Applies a dense `layer` to `x` [B, L, D], as one [B L, D] product where it may.

    On CPU the backward pass of the product then takes half the time. Where positions
    are split over devices they would have to move for it.
    """
    if self.placement.sequence_shards > 1:
      return layer(x)
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

  def attend(
    self, q: jax.Array, k: jax.Array, v: jax.Array, mask: AttentionMask
  ) -> jax.Array:
    """Returns `attention.attend` of `q`, `k` and `v`, as their devices do it."""
    q, k, v = self.placement.gather_keys(q, k, v)
    return attend(q, k, v, mask)

  def with_remat(self, cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Returns `cls`, a module class, with the chosen rematerialisation."""
    if self.remat == 'none':
      return cls
    policy = None
    if self.remat == 'dots':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    wrapped: Any = nn.remat(cls, policy=policy)
    return wrapped
