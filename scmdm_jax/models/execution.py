"""How a network is run; but for rounding, what it computes does not depend on it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

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

  def with_remat(self, cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Returns `cls`, a module class, with the chosen rematerialisation."""
    if self.remat == 'none':
      return cls
    policy = None
    if self.remat == 'dots':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    wrapped: Any = nn.remat(cls, policy=policy)
    return wrapped
