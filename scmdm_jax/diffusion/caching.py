"""Blocks from left to right, where most keys and values are kept and not made again.

All examples write the same block, each in its own number of steps; every block runs
through the same program. What is evaluated, with blocks of N in L positions:

* 'exact', of models whose blocks see themselves and earlier ones only: N positions in
  every step, 2 N in the first one, which also makes the keys of the block that was just
  finished, and L once where a prompt fills whole blocks. Same keys, same tokens as
  without a cache.
* 'prefix', of models that see both ways (Fast-dLLM, arXiv 2505.22618): L positions in
  the first step of a block; then the block and all behind it, while keys and values of
  what lies left of it are kept. Runs of N, 2 N, 4 N, ... positions are evaluated.
* 'dual', likewise (arXiv 2505.22618): L positions in the first step, then N: what lies
  right of the block is kept, too.

The last two are approximations: what is kept was made when the block was still masked.
Legend: `B` batch, `L` length, `K` blocks, `N` = L / K, `T` steps, `M` networks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.blocks import deal_steps
from scmdm_jax.diffusion.planning import Plan, Steps
from scmdm_jax.diffusion.stepping import (
  Chain,
  SamplerState,
  Seen,
  fold,
  initial_state,
  reverse_step,
  settled,
)


class Work(NamedTuple):
  """What is carried from block to block."""

  state: SamplerState  # Its signal is that of the block, [B, N, M D].
  caches: tuple[Any, ...]  # One of each network.
  positions: jax.Array  # int32 []; positions of an example evaluated so far.
  trajectory: jax.Array | None  # int32 [T, B, L]


class Block(NamedTuple):
  """One block of all examples."""

  keys: jax.Array  # [B]
  start: jax.Array  # int32 []; its first position.
  active: jax.Array  # bool [B, L]; what may be written in it.
  own: jax.Array  # int32 [B]; steps of every example, perhaps none.
  before: jax.Array  # int32 [B]; steps of earlier blocks.
  plan: Plan


def write_blocks(
  keys: jax.Array,
  x_init: jax.Array,
  chain: Chain,
  number: int,
  keep_trajectory: bool,
) -> Work:
  """Writes the `number` = K blocks of examples `x_init` int32 [B, L].

  The cache is that of `chain.sampler`; a block in which all examples are done is left,
  unless tokens are masked again or a trajectory is kept.
  """
  batch, length = x_init.shape
  size, total = length // number, chain.sampler.num_steps
  writable = x_init == chain.mask_id
  to_write = writable.reshape(batch, number, size).sum(-1, dtype=jnp.int32)
  dealt = deal_steps(to_write, total)
  before = jnp.cumsum(dealt, axis=-1) - dealt
  wanted = to_write.any(0)
  exact = chain.sampler.cache == 'exact'
  first = jnp.argmax(wanted)
  if exact:
    # Blocks between two that are written have keys of what was still masked.
    later = jnp.cumsum(wanted) > 0
    wanted = later & (jnp.cumsum(wanted[::-1])[::-1] > 0)
  work = _begun(x_init, chain, size, keep_trajectory)
  if exact:
    filled = wanted.any() & (first > 0)
    work = jax.lax.cond(filled, lambda w: _filled(w, chain), lambda w: w, work)

  def write(work: Work, b: jax.Array) -> Work:
    inside = jnp.arange(length) // size == b
    active, own = writable & inside[None], dealt[:, b]
    steps = Steps(jnp.maximum(own, 1), total, total // number)
    keys_b = fold(keys, b)
    plan = chain.sampler.strategy.start(
      fold(keys_b, steps.own), active, chain.sampler.schedule, steps
    )
    block = Block(keys_b, b * size, active, own, before[:, b], plan)
    return _written(work, chain, block)

  def scanned(work: Work, b: jax.Array) -> tuple[Work, None]:
    return jax.lax.cond(wanted[b], write, lambda work, _: work, work, b), None

  return jax.lax.scan(scanned, work, jnp.arange(number, dtype=jnp.int32))[0]


def _begun(x_init: jax.Array, chain: Chain, size: int, keep_trajectory: bool) -> Work:
  """Returns what the first block starts from."""
  state = initial_state(chain.predictor, x_init)
  keepers = [n.cached for n in chain.predictor.networks]
  caches = tuple(keeper.start(*x_init.shape) for keeper in keepers if keeper)
  trajectory = None
  if keep_trajectory:
    steps = chain.sampler.num_steps
    trajectory = jnp.broadcast_to(x_init, (steps, *x_init.shape))
  state = state._replace(signal=state.signal[:, :size])
  return Work(state, caches, jnp.int32(0), trajectory)


def _filled(work: Work, chain: Chain) -> Work:
  """Returns the work after an evaluation of everything, for what prompts fill."""
  batch, length = work.state.x_t.shape
  _, work = _evaluated(work, chain, jnp.zeros(batch), 0, (0, 0), length)
  made = work.state.evaluations + len(chain.predictor.networks)
  return work._replace(state=work.state._replace(evaluations=made))


def _written(work: Work, chain: Chain, block: Block) -> Work:
  """Returns the work after one block, of which at least one step is taken."""
  sampler, null = chain.sampler, jnp.zeros_like(work.state.signal)
  work = work._replace(state=work.state._replace(signal=null))
  takes_all = sampler.strategy.remasks or work.trajectory is not None

  def unfinished(carry: tuple[Work, jax.Array]) -> jax.Array:
    work, i = carry
    left = ~settled(work.state, chain, block.active).all()
    return (i == 0) | ((i < block.own.max()) & (takes_all | left))

  def step(carry: tuple[Work, jax.Array]) -> tuple[Work, jax.Array]:
    work, i = carry
    return _stepped(work, chain, block, i), i + 1

  return jax.lax.while_loop(unfinished, step, (work, jnp.int32(0)))[0]


def _stepped(work: Work, chain: Chain, block: Block, i: jax.Array) -> Work:
  """Takes step `i` int32 [] of a block; examples whose steps are done stay."""
  last = jnp.maximum(block.own, 1) - 1
  local = jnp.minimum(i, last)
  goes = i < block.own
  sigma, renew = block.plan.at('sigmas', local), i == 0
  if chain.sampler.refresh:
    renew = i % chain.sampler.refresh == 0
  hidden, work = jax.lax.cond(
    renew,
    lambda work: _renewed(work, chain, sigma, block.start),
    lambda work: _kept(work, chain, sigma, block.start),
    work,
  )
  state = reverse_step(
    fold(block.keys, local),
    work.state,
    chain,
    block.plan,
    local,
    block.active & goes[:, None],
    local == last,
    Seen(hidden, block.start),
  )
  trajectory = work.trajectory
  if trajectory is not None:
    row = jnp.where(goes, block.before + i, len(trajectory))
    rows = (row[:, None] <= jnp.arange(len(trajectory))[None]).T
    trajectory = jnp.where(rows[..., None], state.x_t[None], trajectory)
  return work._replace(state=state, trajectory=trajectory)


def _renewed(
  work: Work, chain: Chain, sigma: jax.Array, start: jax.Array
) -> tuple[jax.Array, Work]:
  """Evaluates a block at `start` and all that is to be kept from now on."""
  size, length = work.state.signal.shape[1], work.state.x_t.shape[1]
  if chain.sampler.cache != 'exact':
    return _evaluated(work, chain, sigma, start, (0, 0), length)
  first = jnp.maximum(start - size, 0)
  return _evaluated(work, chain, sigma, start, (first, first), 2 * size)


def _kept(
  work: Work, chain: Chain, sigma: jax.Array, start: jax.Array
) -> tuple[jax.Array, Work]:
  """Evaluates a block at `start`, and with 'prefix' all behind it, by what is kept."""
  size, length = work.state.signal.shape[1], work.state.x_t.shape[1]
  if chain.sampler.cache != 'prefix':
    return _evaluated(work, chain, sigma, start, (start, start), size)
  runs = [size]
  while runs[-1] < length:
    runs.append(min(2 * runs[-1], length))

  def run(count: int):
    return lambda work: _evaluated(
      work, chain, sigma, start, (length - count, start), count
    )

  which = (jnp.array(runs) < length - start).sum()
  return jax.lax.switch(which, [run(count) for count in runs], work)


def _evaluated(
  work: Work,
  chain: Chain,
  sigma: jax.Array,
  start: jax.Array | int,
  window: tuple[jax.Array | int, jax.Array | int],
  count: int,
) -> tuple[jax.Array, Work]:
  """Evaluates `count` positions, among them the block at `start`.

  `window` is the first of them, and the first whose keys and values are kept again.
  Returns the hidden states of the block, [B, N, M D], and the work with what is kept.
  """
  networks, state = chain.predictor.networks, work.state
  first, fresh = (jnp.asarray(x, jnp.int32) for x in window)
  start = jnp.asarray(start, jnp.int32)
  size = state.signal.shape[1]
  x_t = jax.lax.dynamic_slice_in_dim(state.x_t, first, count, axis=1)
  signal = Seen(state.signal, start - first).put(state.signal, count)
  hidden, caches = [], []
  signals = jnp.split(signal, len(networks), axis=-1)
  for network, own, cache in zip(networks, signals, work.caches, strict=True):
    assert network.cached is not None
    found, cache = network.cached.encode(x_t, own, sigma, cache, first, fresh)
    hidden.append(jax.lax.dynamic_slice_in_dim(found, start - first, size, axis=1))
    caches.append(cache)
  positions = work.positions + count * len(networks)
  work = work._replace(caches=tuple(caches), positions=positions)
  return jnp.concatenate(hidden, axis=-1), work
