"""Work at wanted positions only, a chunk of them at a time.

Legend: `B` batch, `L` length, `G` groups of positions, one to a device (the S shards of
a batch times the P of a sequence), `N` positions of a group, `C` chunks of a group.
"""

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
  shared: tuple[Any, ...] = (),
) -> Any:
  """Applies `read` at wanted positions, `chunk` of them at a time; zeros elsewhere.

  Wanted positions are gathered to the front; a chunk without any is skipped, so the
  work is proportional to their number, and the result does not depend on `chunk`.
  If all fit one chunk, all are read. A position never leaves its device; a chunk is
  skipped where no device wants it.

  Differentiable in `inputs` and `shared`: chunks are recomputed backward, but for those
  that were skipped, and gradients of `shared` are added up in float32, on each device
  for itself, and then over the devices, once.

  Args:
    read: maps `shared` and a tree of [R, ...] to a tree of [R, ...], row by row. What
      it closes over is constant.
    wanted: bool [B, L].
    inputs: tree of [B, L, ...].
    placement: see `network.Placement`.
    chunk: positions of a device at a time; R is G times that.
    first: bool [B, L]; wanted positions that are read before the others, so that
      `read` may find chunks of one kind. None: in their own order.
    shared: trees of float arrays, such as weights, that `read` needs at every position.

  Returns:
    What `read` returns, as a tree of [B, L, ...].
  """
  groups = _Groups(placement, *wanted.shape)
  if chunk >= groups.size:
    rows = jax.tree.map(lambda x: _merged(groups.split(x)), inputs)
    results = jax.tree.map(
      lambda x: x.reshape(groups.number, groups.size, *x.shape[1:]),
      read(*shared, rows),
    )
    return jax.tree.map(lambda x: keep(wanted, groups.join(x)), results)
  most = groups.split(wanted).sum(-1).max()

  def in_chunks(placement: Placement, shared: Any, split: Any, most: jax.Array) -> Any:
    wanted, inputs, first = split
    groups = _Groups(placement, *wanted.shape)
    order = _wanted_first(groups, wanted, first)
    results = _read_in_chunks(read, shared, groups, most, order, inputs, chunk)
    return jax.tree.map(groups.join, results)

  split = (wanted, inputs, first)
  if shared and groups.number > 1:
    results = placement.apart(in_chunks, shared, split, most)
  else:
    results = in_chunks(placement, shared, split, most)
  return jax.tree.map(lambda x: keep(wanted, x), results)


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
  shared: tuple[Any, ...],
  groups: _Groups,
  most: jax.Array,
  order: jax.Array,
  inputs: Any,
  chunk: int,
) -> Any:
  """Applies `read` to `inputs` in `order` [G, N], skipping chunks beyond `most`.

  Returns what `read` returns, as a tree of [G, N, ...] in the order of the positions.
  """
  padded = jnp.pad(order, ((0, 0), (0, -groups.size % chunk)))
  count = padded.shape[1] // chunk
  constrain = groups.placement.constrain_groups

  def gather(x: jax.Array) -> jax.Array:
    """Returns `x` [B, L, ...] in chunks, [C, G chunk, ...]."""
    rows = jax.vmap(lambda x, i: x[i])(groups.split(x), padded)
    rows = rows.reshape(groups.number, count, chunk, *rows.shape[2:])
    if groups.number > 1:  # To `jax_debug_key_reuse` this is a use of keys.
      rows = jnp.swapaxes(rows, 0, 1)
    return rows.reshape(count, groups.number * chunk, *rows.shape[3:])

  def scatter(values: jax.Array) -> jax.Array:
    """Returns `values` [C, G chunk, ...] in their places, [G, N, ...]."""
    values = values.reshape(count, groups.number, chunk, *values.shape[2:])
    values = jnp.swapaxes(values, 0, 1)
    values = constrain(_rows_of_groups(values))[:, : groups.size]
    return jax.vmap(lambda v, i: jnp.zeros_like(v).at[i].set(v))(values, order)

  def read_constrained(*arguments: Any) -> Any:
    *shared, rows = arguments
    return read(*shared, jax.tree.map(constrain, rows))

  filled = (most + chunk - 1) // chunk
  rows = jax.tree.map(gather, inputs)
  return jax.tree.map(scatter, _chunk_by_chunk(read_constrained, shared, rows, filled))


def _chunk_by_chunk(
  read: Callable[..., Any], shared: tuple[Any, ...], rows: Any, filled: jax.Array
) -> Any:
  """Applies `read` to `shared` and each of the first `filled` of `rows` [C, R, ...].

  Returns a tree of [C, R, ...], zeros in the other chunks. Backward, a chunk is read
  again, and those that were skipped cost nothing. A scan's own transpose keeps what
  `shared` is rounded to, and adds its zeros for a skipped chunk.
  """
  count = len(jax.tree.leaves(rows)[0])
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
  empty = zeros_like_result(read, *shared, one)

  def forward(shared: Any, rows: Any, filled: jax.Array) -> Any:
    def step(_, numbered: Any) -> Any:
      number, rows = numbered
      is_filled = number < filled
      return None, jax.lax.cond(
        is_filled, lambda rows: read(*shared, rows), lambda _: empty, rows
      )

    return jax.lax.scan(step, None, (jnp.arange(count), rows))[1]

  if not shared:
    return forward(shared, rows, filled)

  def backward(kept: Any, cotangents: Any) -> Any:
    shared, rows, filled = kept
    moving, still = _parted(rows)

    def add(i: jax.Array, total: Any) -> Any:
      number = filled - 1 - i
      own, constant, given = jax.tree.map(
        lambda x: x[number], (moving, still, cotangents)
      )

      def again(shared: Any, own: Any) -> Any:
        return read(*shared, _together(own, constant))

      of_shared, of_own = jax.vjp(again, shared, own)[1](given)
      sums, slopes = total
      sums = jax.tree.map(lambda s, g: s + g.astype(s.dtype), sums, of_shared)
      return sums, jax.tree.map(lambda s, g: s.at[number].set(g), slopes, of_own)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shared)
    start = (zeros, jax.tree.map(jnp.zeros_like, moving))
    with jax.named_scope(f'at_most_{count}'):  # For `hlo`: its end is not in the text.
      sums, slopes = jax.lax.fori_loop(0, filled, add, start)
    sums = jax.tree.map(lambda s, x: s.astype(x.dtype), sums, shared)
    return sums, slopes, None

  differentiable = jax.custom_vjp(forward)
  differentiable.defvjp(
    lambda shared, rows, filled: (
      forward(shared, rows, filled),
      (shared, rows, filled),
    ),
    backward,
  )
  return differentiable(shared, rows, filled)


def _parted(tree: Any) -> tuple[Any, Any]:
  """Returns the float arrays of a tree, and the others, each with None for the rest."""
  is_float = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jnp.floating), tree)
  floats = jax.tree.map(lambda x, f: x if f else None, tree, is_float)
  return floats, jax.tree.map(lambda x, f: None if f else x, tree, is_float)


def _together(floats: Any, others: Any) -> Any:
  """Returns the tree whose `_parted` these are."""
  return jax.tree.map(
    lambda x, y: y if x is None else x, floats, others, is_leaf=lambda x: x is None
  )


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


def where_any_if_it_pays(
  wanted: jax.Array, function: Callable[..., Any], *arguments: Any
) -> Any:
  """Returns `where_any`; of accelerators what the function returns in any case.

  A condition keeps their compilers from fusing a function with what it reads: a softmax
  with the product of the head. That costs more than the few chunks that it would save.
  """
  return jax.lax.platform_dependent(
    wanted,
    *arguments,
    cpu=lambda wanted, *own: where_any(wanted, function, *own),
    default=lambda _, *own: function(*own),
  )
