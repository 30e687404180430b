"""The device mesh of a run: its axes, and how examples are spread over it.

Axes: `data` and `fsdp` split the examples, `fsdp` also the parameters, `tensor` the
widths of layers and the vocabulary (`rules`), and `sequence` the positions of each
example: activations [B, L, D] are split along L, and a layer of attention gathers keys
and values. What is drawn for an example does not depend on the mesh.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scmdm_jax.errors import BadInput

AXES = ('data', 'fsdp', 'sequence', 'tensor')
BATCH_AXES = ('data', 'fsdp')


def make_mesh(
  data: int,
  fsdp: int,
  tensor: int,
  sequence: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Returns the mesh of all `devices` (None: of the run); one size may be -1, the rest.

  Raises:
    BadInput: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [data, fsdp, sequence, tensor]
  known = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and len(devices) % known == 0:
    sizes[sizes.index(-1)] = len(devices) // known
  if math.prod(sizes) != len(devices) or min(sizes) < 1:
    raise BadInput(
      f'mesh: found data = {data}, fsdp = {fsdp}, sequence = {sequence}, tensor = '
      f'{tensor}; wanted sizes whose product is {len(devices)}, the number of devices; '
      '-1 for one is the rest'
    )
  axis_types = (AxisType.Auto,) * len(AXES)
  return jax.make_mesh(tuple(sizes), AXES, axis_types=axis_types, devices=devices)


def one_device() -> Mesh:
  """Returns the mesh of the first device of this process."""
  return make_mesh(1, 1, 1, devices=jax.local_devices()[:1])


def batch_shards(mesh: Mesh) -> int:
  """Returns into how many shards a batch is split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose first axis is the examples."""
  return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that are whole on every device."""
  return NamedSharding(mesh, P())


def check_batch(name: str, size: int, mesh: Mesh) -> None:
  """Refuses a batch, called `name` in the message, that does not split evenly.

  Raises:
    BadInput: see above.
  """
  if size % batch_shards(mesh):
    raise BadInput(
      f'{name}: found {size}; wanted a multiple of {batch_shards(mesh)}: mesh.data = '
      f'{mesh.shape["data"]} times mesh.fsdp = {mesh.shape["fsdp"]} split every batch'
    )


def check_length(length: int, mesh: Mesh) -> None:
  """Refuses a length that does not split evenly.

  Raises:
    BadInput: see above.
  """
  if length % mesh.shape['sequence']:
    raise BadInput(
      f'data.length: found {length}; wanted a multiple of mesh.sequence = '
      f'{mesh.shape["sequence"]}, which splits every example'
    )


def place_rows(mesh: Mesh, rows: Any) -> Any:
  """Shards a tree of [B, ...], which every process has as a whole, over the mesh."""

  def placed(x: np.ndarray) -> jax.Array:
    sharding = batch_sharding(mesh)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(placed, rows)


def place_own_rows(mesh: Mesh, rows: Any) -> Any:
  """Returns the tree of [B, ...] of which this process has `rows`; see `own_part`."""
  _, count = own_part(mesh)

  def placed(x: np.ndarray) -> jax.Array:
    shape = (len(x) * count, *x.shape[1:])
    return jax.make_array_from_process_local_data(batch_sharding(mesh), x, shape)

  return jax.tree.map(placed, rows)


def own_part(mesh: Mesh) -> tuple[int, int]:
  """Returns (index, count): which of how many parts of a batch this process feeds.

  Processes that share their examples, as `tensor` and `sequence` groups across
  processes do, feed the same part.
  """
  shards = batch_shards(mesh)
  owned = batch_sharding(mesh).addressable_devices_indices_map((shards,)).values()
  rows = sorted({range(shards)[index[0]].start for index in owned if index})
  if rows != list(range(rows[0], rows[0] + len(rows))) or rows[0] % len(rows):
    raise BadInput(
      'mesh: a process would feed scattered examples; wanted mesh.tensor, then '
      'mesh.sequence, then mesh.fsdp, to fill whole processes'
    )
  return rows[0] // len(rows), shards // len(rows)
