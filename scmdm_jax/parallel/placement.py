"""Where the arrays of a run live, as the method and the networks ask for it.

Every function is the identity in value. On more than one device it constrains the
sharding of an array, so that a compiled program moves nothing that it need not.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scmdm_jax.parallel.mesh import BATCH_AXES, batch_shards


@dataclasses.dataclass(frozen=True)
class Placement:
  """The placement on `mesh`; without one, or with one of one device, it does nothing.

  It is hashable, so that it can be part of a compilation key.
  """

  mesh: Mesh | None = None

  @property
  def _is_trivial(self) -> bool:
    return self.mesh is None or self.mesh.size == 1

  @property
  def platform(self) -> str:
    """What the devices are: 'cpu', 'tpu', 'gpu'; 'cuda' of GPUs that are not there."""
    return 'cpu' if self.mesh is None else self.mesh.devices.flat[0].platform

  @property
  def batch_shards(self) -> int:
    """S: a batch is S equal runs of examples, each on devices of its own."""
    return 1 if self.mesh is None else batch_shards(self.mesh)

  @property
  def sequence_shards(self) -> int:
    """P: the positions of an example are P equal runs, each on devices of its own."""
    return 1 if self.mesh is None else self.mesh.shape['sequence']

  @property
  def vocabulary_shards(self) -> int:
    """The scores of a position are so many equal runs, each on devices of its own."""
    return 1 if self.mesh is None else self.mesh.shape['tensor']

  def _constrain(self, x: jax.Array, *axes: Any) -> jax.Array:
    if self.mesh is None or self._is_trivial:
      return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(*axes)))

  def constrain(self, x: jax.Array) -> jax.Array:
    """Keeps examples and positions of `x` [B, L, ...] on their devices."""
    return self._constrain(x, BATCH_AXES, 'sequence')

  def constrain_batch(self, x: jax.Array) -> jax.Array:
    """Keeps the S runs of examples along the first axis of `x` on their devices."""
    return self._constrain(x, BATCH_AXES)

  def constrain_groups(self, x: jax.Array) -> jax.Array:
    """Keeps the S times P groups along the first axis of `x` on their devices."""
    return self._constrain(x, (*BATCH_AXES, 'sequence'))

  def kept_sharding(self, shape: tuple[int, ...]) -> NamedSharding | None:
    """Returns where kept arrays [B, L, ...] lie; None: on the only device.

    Keys and values [B, L, N, K] lie as heads do, where `tensor` divides N.
    """
    if self.mesh is None or self._is_trivial:
      return None
    by_heads = len(shape) == 4 and not shape[2] % self.mesh.shape['tensor']
    heads = ('tensor',) if by_heads else ()
    return NamedSharding(self.mesh, P(BATCH_AXES, None, *heads))

  def constrain_kept(self, x: jax.Array) -> jax.Array:
    """Keeps `x` [B, L, ...] where `kept_sharding` says."""
    where = self.kept_sharding(x.shape)
    return x if where is None else jax.lax.with_sharding_constraint(x, where)

  def apart(
    self, function: Callable[..., Any], shared: Any, split: Any, whole: Any
  ) -> Any:
    """Returns `function(placement, shared, split, whole)`, each group for itself.

    Backward the gradients of `shared` are summed over the groups in float32, and once;
    left to the compiler, that is done in every round of a loop inside. What `tensor`
    splits stays split.

    Args:
      function: is given where it is: a placement on the devices of one group.
      shared: a tree of float arrays that all groups need.
      split: a tree of [B, L, ...], of which a group has its own part; so of the result.
      whole: a tree of arrays that are the same for all.
    """
    if self.mesh is None:
      return function(self, shared, split, whole)
    dtypes = jax.tree.map(lambda x: x.dtype, shared)

    def own(shared: Any, split: Any, whole: Any) -> Any:
      narrow = jax.tree.map(lambda x, dtype: x.astype(dtype), shared, dtypes)
      return function(Placement(), narrow, split, whole)

    part = P(BATCH_AXES, 'sequence')
    mapped = jax.shard_map(
      own,
      mesh=self.mesh,
      in_specs=(P(), part, P()),
      out_specs=part,
      axis_names={*BATCH_AXES, 'sequence'},
      check_vma=False,
    )
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), shared)
    return mapped(wide, split, whole)

  def gather_keys(
    self, q: jax.Array, k: jax.Array, v: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Makes keys and values [B, L, H, K] whole along L; queries stay where they are.

    Heads and their width are left as `tensor` has them.
    """
    if self.sequence_shards == 1:
      return q, k, v
    free = P.UNCONSTRAINED
    k, v = (self._constrain(x, BATCH_AXES, None, free, free) for x in (k, v))
    return self._constrain(q, BATCH_AXES, 'sequence', free, free), k, v
