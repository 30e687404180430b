"""Work at wanted positions only, a chunk of them at a time.

Legend: `B` batch, `L` length, `G` groups of positions, one to a device (the S shards of
a batch times the P of a sequence), `N` positions of a group, `C` chunks of a group.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.network import Placement


def keep(wanted: jax.Array, values: jax.Array) -> jax.Array:
  """Returns `values` [B, L, ...] where `wanted` bool [B, L], zeros elsewhere."""
  return jnp.where(wanted.reshape(*wanted.shape, *[1] * (values.ndim - 2)), values, 0)


def over_wanted(
  read: Callable[..., Any],
  wanted: jax.Array,
  inputs: Any,
  placement: Placement,
  chunk: int,
  first: jax.Array | None = None,
) -> Any:
  """Applies `read` at wanted positions, `chunk` of them at a time; zeros elsewhere.

  Wanted positions are gathered to the front; a chunk without any is skipped, so the
  work is proportional to their number, and the result does not depend on `chunk`.
  Differentiable: chunks are recomputed backward. If all fit one chunk, all are read.
  A position never leaves its device; a chunk is skipped where no device wants it.

  Args:
    read: maps a tree of [R, ...] to a tree of [R, ...], row by row.
    wanted: bool [B, L].
    inputs: tree of [B, L, ...].
    placement: see `network.Placement`.
    chunk: positions of a device at a time; R is G times that.
    first: bool [B, L]; wanted positions that are read before the others, so that
      `read` may find chunks of one kind. None: in their own order.

  Returns:
    What `read` returns, as a tree of [B, L, ...].
  """
  groups = _Groups(placement, *wanted.shape)
  if chunk >= groups.size:
    rows = jax.tree.map(lambda x: _merged(groups.split(x)), inputs)
    results = jax.tree.map(
      lambda x: x.reshape(groups.number, groups.size, *x.shape[1:]), read(rows)
    )
  else:
    order = _wanted_first(groups, wanted, first)
    results = _read_in_chunks(read, groups, groups.split(wanted), order, inputs, chunk)
  return jax.tree.map(lambda x: keep(wanted, groups.join(x)), results)


class _Groups(NamedTuple):
  """How positions [B, L] are split into groups, one to a device."""

  placement: Placement
  batch: int
  length: int

  @property
  def number(self) -> int:
    """G."""
    return self.placement.batch_shards * self.placement.sequence_shards

  @property
  def size(self) -> int:
    """N."""
    return self.batch * self.length // self.number

  def split(self, x: jax.Array) -> jax.Array:
    """Returns `x` [B, L, ...] as [G, N, ...]."""
    x = jnp.asarray(x)
    shards, runs = self.placement.batch_shards, self.placement.sequence_shards
    if runs > 1:
      examples, positions = self.batch // shards, self.length // runs
      x = x.reshape(shards, examples, runs, positions, *x.shape[2:])
      x = jnp.swapaxes(x, 1, 2).reshape(self.number, self.size, *x.shape[4:])
    else:
      x = x.reshape(shards, self.size, *x.shape[2:])
    return self.placement.constrain_groups(x)

  def join(self, x: jax.Array) -> jax.Array:
    """Returns `x` [G, N, ...] as [B, L, ...]."""
    shards, runs = self.placement.batch_shards, self.placement.sequence_shards
    if runs > 1:
      examples, positions = self.batch // shards, self.length // runs
      x = x.reshape(shards, runs, examples, positions, *x.shape[2:])
      x = jnp.swapaxes(x, 1, 2).reshape(self.batch, self.length, *x.shape[4:])
    else:
      x = x.reshape(self.batch, self.length, *x.shape[2:])
    return self.placement.constrain(x)


def _merged(x: jax.Array) -> jax.Array:
  """Merges the first two axes."""
  return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _wanted_first(
  groups: _Groups, wanted: jax.Array, first: jax.Array | None
) -> jax.Array:
  """Returns the positions of every group, those wanted in front, int32 [G, N].

  The order is stable, so that equal inputs meet in equal chunks.
  """
  rank = (~groups.split(wanted)).astype(jnp.int8) * 2
  if first is not None:
    rank += ~groups.split(first)
  return jnp.argsort(rank, axis=-1)


def _read_in_chunks(
  read: Callable[..., Any],
  groups: _Groups,
  wanted: jax.Array,
  order: jax.Array,
  inputs: Any,
  chunk: int,
) -> Any:
  """Applies `read` to `inputs` in `order` [G, N], skipping chunks without any wanted.

  Returns what `read` returns, as a tree of [G, N, ...] in the order of the positions.
  """
  most = wanted.sum(-1).max()
  padded = jnp.pad(order, ((0, 0), (0, -groups.size % chunk)))
  starts = jnp.arange(0, groups.size, chunk)
  constrain = groups.placement.constrain_groups

  def gather(x: jax.Array) -> jax.Array:
    """Returns `x` [B, L, ...] in chunks, [C, G chunk, ...]."""
    rows = jax.vmap(lambda x, i: x[i])(groups.split(x), padded)
    rows = rows.reshape(groups.number, len(starts), chunk, *rows.shape[2:])
    if groups.number > 1:  # To `jax_debug_key_reuse` this is a use of keys.
      rows = jnp.swapaxes(rows, 0, 1)
    return rows.reshape(len(starts), groups.number * chunk, *rows.shape[3:])

  def scatter(values: jax.Array) -> jax.Array:
    """Returns `values` [C, G chunk, ...] in their places, [G, N, ...]."""
    values = values.reshape(len(starts), groups.number, chunk, *values.shape[2:])
    values = jnp.swapaxes(values, 0, 1)
    values = constrain(_rows_of_groups(values))[:, : groups.size]
    return jax.vmap(lambda v, i: jnp.zeros_like(v).at[i].set(v))(values, order)

  rows = jax.tree.map(gather, inputs)
  read = jax.checkpoint(read, prevent_cse=False)
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
  empty = zeros_like_result(read, one)

  # Around the branch, too: else backward keeps what `read` closes over, such as the
  # kernel of the head, once per chunk.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def step(_, chunk_rows):
    start, rows = chunk_rows
    rows = jax.tree.map(constrain, rows)
    return None, jax.lax.cond(start < most, read, lambda _: empty, rows)

  _, results = jax.lax.scan(step, None, (starts, rows))
  return jax.tree.map(scatter, results)


def _rows_of_groups(x: jax.Array) -> jax.Array:
  """Returns `x` [G, C, chunk, ...] as [G, C chunk, ...]."""
  return x.reshape(len(x), x.shape[1] * x.shape[2], *x.shape[3:])


def zeros_like_result(function: Callable[..., Any], *arguments: Any) -> Any:
  """Returns zeros of the shapes and dtypes that `function` returns, without work."""
  shapes = jax.eval_shape(function, *arguments)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def where_any(wanted: jax.Array, function: Callable[..., Any], *arguments: Any) -> Any:
  """Returns `function(*arguments)` if any of `wanted` [R] is, else zeros, unworked."""
  empty = zeros_like_result(function, *arguments)
  return jax.lax.cond(wanted.any(), function, lambda *_: empty, *arguments)
