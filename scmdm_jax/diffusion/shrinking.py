"""Batches that shrink: examples that have ended are no longer evaluated.

Once half of a batch has ended, the others are gathered into a batch of half the size,
and so on: one program, which has the loop's body once for each size. Legend: `B` batch,
`L` length, `N` examples that are gathered, `M` networks.
"""

from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.stepping import Chain


class Way(Protocol):
  """What examples do in a loop, and what each of them needs for it.

  Their state is a tree of arrays, [] or [B, ...]; its `x_t` int32 [B, L] are tokens,
  its `evaluations` int32 [] those of the denoiser so far.
  """

  def of(self, order: jax.Array) -> Self:
    """Returns the ways of the examples `order` int32 [N]."""
    ...

  def left(self, chain: Chain, state: Any, i: jax.Array) -> jax.Array:
    """Returns which examples have not ended, bool [B]."""
    ...

  def step(self, chain: Chain, state: Any, i: jax.Array) -> tuple[Any, jax.Array]:
    """Takes step `i`, [] or [B]; returns the state and the next step."""
    ...


def walk(
  way: Way, chain: Chain, state: Any, i: jax.Array, most: int
) -> tuple[Any, jax.Array]:
  """Takes all examples to their ends.

  Args:
    way: of the B examples.
    chain: see `Chain`; its `sampler.compact` is the smallest batch, 0: B.
    state: of the B examples; see `Way`.
    i: int32, [] or [B], the step to begin with.
    most: steps that are expected at most, by which compiled loops are counted.

  Returns:
    The state, and int32 []: examples evaluated, added up over all evaluations.
  """
  size = len(state.x_t)
  half, least = size // 2, chain.sampler.compact
  shards = chain.predictor.networks[0].placement.batch_shards
  smaller = half if least and half >= least and not half % shards else 0

  def more(carry: tuple[Any, jax.Array]) -> jax.Array:
    return way.left(chain, *carry).sum() > smaller

  before = state.evaluations
  with jax.named_scope(f'at_most_{most}'):  # For `hlo`: its end is not in the text.
    state, i = jax.lax.while_loop(more, lambda c: way.step(chain, *c), (state, i))
  rows = (state.evaluations - before) * size
  if not smaller:
    return state, rows
  order = jnp.argsort(~way.left(chain, state, i), stable=True)[:smaller]
  part = jax.tree.map(lambda x: x[order] if x.ndim else x, state)
  found, more_rows = walk(
    way.of(order), chain.of(order), part, i[order] if i.ndim else i, most
  )
  whole = jax.tree.map(
    lambda x, new: x.at[order].set(new) if x.ndim else new, state, found
  )
  return whole, rows + more_rows
