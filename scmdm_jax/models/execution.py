"""How a network is run; but for rounding, what it computes does not depend on it."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from scmdm_jax.models.attention import AttentionMask
from scmdm_jax.models.kernels import attend_on
from scmdm_jax.parallel.placement import Placement

_ONE_DEVICE = Placement()

REMATS = ('none', 'dots', 'full')


@dataclasses.dataclass(frozen=True)
class Execution:
  """Where arrays stay, what is recomputed backward, and how precise products are.

  placement: keeps arrays on their devices, and says what they are; see `Placement`.
  remat: of every block, backward recomputes 'none', all but the matrix products
    ('dots'), or everything ('full').
  dtype: parameters are rounded to it, and products follow; '' leaves them as they are.
  scan: blocks are one loop over their stacked parameters instead of being written out.
  """

  placement: Placement = _ONE_DEVICE
  remat: str = 'none'
  dtype: str = ''
  scan: bool = False

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
    return attend_on(self.placement, q, k, v, mask)

  def through(
    self, blocks: Sequence[nn.Module], x: jax.Array, *inputs: Any
  ) -> jax.Array:
    """Returns `x` [B, L, D] after `blocks`, each of which is given (x, *inputs).

    The parameters keep their places in the tree: they are stacked inside the program.
    Blocks that have other parameters, such as adapters, are a loop of their own.
    """
    constrain = self.placement.constrain
    if not self.scan or blocks[0].is_initializing():
      for block in blocks:
        x = constrain(cast(Any, block)(x, *inputs))
      return x

    def apply(block: nn.Module, x: jax.Array, weights: Any) -> tuple[jax.Array, None]:
      return constrain(cast(Any, block.apply({'params': weights}, x, *inputs))), None

    weights = [block.variables['params'] for block in blocks]
    for _, alike in itertools.groupby(weights, jax.tree.structure):
      stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike)
      block = blocks[0].clone(parent=None, name=None)
      x, _ = jax.lax.scan(functools.partial(apply, block), x, stacked)
    return x

  def with_remat(self, cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Returns `cls`, a module class, with the chosen rematerialisation."""
    if self.remat == 'none':
      return cls
    policy = None
    if self.remat == 'dots':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # A loop's body is not merged with what is recomputed of it.
    wrapped: Any = nn.remat(cls, policy=policy, prevent_cse=not self.scan)
    return wrapped


def training_on(mesh: Mesh, remat: str, dtype: str) -> Execution:
  """Returns how a training step runs on `mesh`.

  Off CPUs blocks that are rematerialised run as a loop: written out, compilers move
  together what is recomputed of several blocks, and a peak holds it three times.
  A sampler would hold its weights twice.
  """
  placement = Placement(mesh)
  scan = remat != 'none' and placement.platform != 'cpu'
  return Execution(placement, remat, dtype, scan)
