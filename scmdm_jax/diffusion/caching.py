"""Blocks from left to right, where most keys and values are kept and not made again.

All examples write their blocks of the same number at a time, each in its own number of
steps; every block runs through the same program. What is evaluated, with blocks of N in
L positions:

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

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.blocks import NO_ANSWERS, Answers, Blocks
from scmdm_jax.diffusion.planning import Plan, Steps
from scmdm_jax.diffusion.shrinking import walk
from scmdm_jax.diffusion.stepping import (
  Chain,
  SamplerState,
  Seen,
  fold,
  initial_state,
  reverse_step,
  run_of,
  settled,
)


def evaluated(
  cache: str, length: int, size: int, num_steps: int, prompt: int = 0
) -> dict[int, int]:
  """Returns evaluations of an example by how many positions each has, without exits.

  Args:
    cache: 'none', 'exact', 'prefix' or 'dual'.
    length: L.
    size: N; it divides L.
    num_steps: T, a multiple of the number of blocks that are written.
    prompt: positions in front that are given, whole blocks.
  """
  blocks = (length - prompt) // size
  later = num_steps - blocks  # Steps that are not the first of a block.
  if cache == 'none' or length == size:
    return {length: num_steps}
  if cache == 'exact':
    filled = {length: 1} if prompt else {}
    return filled | {2 * size: blocks, size: later}
  found = {length: blocks}
  for left in range(1, blocks + 1):
    run = size
    while cache == 'prefix' and run < left * size:
      run = min(2 * run, length)
    found[run] = found.get(run, 0) + later // blocks
  return found


class Work(NamedTuple):
  """What is carried from block to block."""

  state: SamplerState  # Its signal is that of the block, [B, N, M D].
  caches: tuple[Any, ...]  # One of each network.
  positions: jax.Array  # int32 []; positions of an example evaluated so far.
  rows: jax.Array  # int32 []; examples evaluated, added up over all evaluations.
  trajectory: jax.Array | None  # int32 [T, B, L]

  @property
  def x_t(self) -> jax.Array:
    """The tokens, int32 [B, L]."""
    return self.state.x_t

  @property
  def evaluations(self) -> jax.Array:
    """Evaluations made so far, int32 []."""
    return self.state.evaluations


class Block(NamedTuple):
  """One block of all examples, and their way through it; see `shrinking.Way`."""

  keys: jax.Array  # [B]
  start: jax.Array  # int32 [] or [B]; its first position.
  active: jax.Array  # bool [B, L]; what may be written in it.
  begins: jax.Array  # bool [B]; whether its first step is to be taken in any case.
  own: jax.Array  # int32 [B]; steps of every example, perhaps none.
  before: jax.Array  # int32 [B]; steps of earlier blocks.
  plan: Plan

  def of(self, order: jax.Array) -> 'Block':
    """Returns that of the examples `order` int32 [N]; see `Way`."""
    start = self.start[order] if self.start.ndim else self.start
    keys, active, begins, own, before = (
      x[order] for x in (self.keys, self.active, self.begins, self.own, self.before)
    )
    return Block(keys, start, active, begins, own, before, self.plan.of(order))

  def left(self, chain: Chain, state: Work, i: jax.Array) -> jax.Array:
    """Returns which examples have steps to take, bool [B]; `i` is []."""
    goes = i < self.own
    if not chain.sampler.strategy.remasks and state.trajectory is None:
      goes &= ~settled(state.state, chain, self.active)
    return goes | (self.begins & (i == 0))

  def step(self, chain: Chain, state: Work, i: jax.Array) -> tuple[Work, jax.Array]:
    """Takes step `i`; returns the work and the next step."""
    return _stepped(state, chain, self, i), i + 1


def write_blocks(
  keys: jax.Array,
  x_init: jax.Array,
  chain: Chain,
  keep_trajectory: bool,
  answers: Answers = NO_ANSWERS,
) -> Work:
  """Writes the blocks of examples `x_init` int32 [B, L].

  Cache and blocks are those of `chain.sampler`; a block in which all examples are done
  is left, unless tokens are masked again or a trajectory is kept.

  Args:
    keys: [B], of every example.
    x_init: see `sampling.sample`.
    chain: see `Chain`; with `sampler.compact` batches shrink within a block.
    keep_trajectory: whether tokens after every step are kept; no batch shrinks then.
    answers: first blocks begin where they say, or where masks do, if that is before.
  """
  length, total = x_init.shape[1], chain.sampler.num_steps
  size, exact = chain.sampler.block_length, chain.sampler.cache == 'exact'
  if keep_trajectory:
    chain = chain._replace(sampler=dataclasses.replace(chain.sampler, compact=0))
  writable, starts = x_init == chain.mask_id, answers.starts
  if starts is not None:
    starts = jnp.minimum(starts, jnp.argmax(writable, axis=-1).astype(jnp.int32))
  blocks = Blocks.of(writable, size, total, starts)
  dealt, number = blocks.steps, blocks.steps.shape[1]
  before, begins = jnp.cumsum(dealt, axis=-1) - dealt, dealt > 0
  first = jnp.argmax(begins.any(0))
  if exact:
    # Blocks between two that are written have keys of what was still masked.
    begins = jnp.cumsum(begins[:, ::-1], axis=-1)[:, ::-1] > 0
  wanted = begins.any(0) & (jnp.arange(number) >= first)
  work = _begun(x_init, chain, size, keep_trajectory)
  if exact:
    filled = wanted.any() & (first > 0)
    work = jax.lax.cond(filled, lambda w: _filled(w, chain), lambda w: w, work)

  def write(work: Work, b: jax.Array) -> Work:
    goes = ~answers.ended(work.x_t, writable)
    active = writable & (blocks.places == b) & goes[:, None]
    own = jnp.where(goes, dealt[:, b], 0)
    steps = Steps(jnp.maximum(own, 1), total, total // number)
    keys_b = fold(keys, b)
    plan = chain.sampler.strategy.start(
      fold(keys_b, steps.own), active, chain.sampler.schedule, steps
    )
    at = b * size  # The last block may reach beyond the end.
    start = at if starts is None else jnp.minimum(starts + at, length - size)
    block = Block(keys_b, start, active, begins[:, b] & goes, own, before[:, b], plan)
    null = jnp.zeros_like(work.state.signal)
    work = work._replace(state=work.state._replace(signal=null))
    work, rows = walk(block, chain, work, jnp.int32(0), total // number)
    return work._replace(rows=work.rows + rows)

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
  return Work(state, caches, jnp.int32(0), jnp.int32(0), trajectory)


def _filled(work: Work, chain: Chain) -> Work:
  """Returns the work after an evaluation of everything, for what prompts fill."""
  batch, length = work.state.x_t.shape
  _, work = _evaluated(work, chain, jnp.zeros(batch), 0, (0, 0), length)
  made = len(chain.predictor.networks)
  state = work.state._replace(evaluations=work.evaluations + made)
  return work._replace(state=state, rows=work.rows + batch * made)


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
  runs = [size]  # As in `evaluated`.
  while runs[-1] < length:
    runs.append(min(2 * runs[-1], length))

  def run(count: int):
    return lambda work: _evaluated(
      work, chain, sigma, start, (length - count, start), count
    )

  which = (jnp.array(runs) < length - start.min()).sum()
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
  x_t = run_of(state.x_t, first, count)
  signal = Seen(state.signal, start - first).put(state.signal, count)
  hidden, caches = [], []
  signals = jnp.split(signal, len(networks), axis=-1)
  for network, own, cache in zip(networks, signals, work.caches, strict=True):
    assert network.cached is not None
    found, cache = network.cached.encode(x_t, own, sigma, cache, first, fresh)
    hidden.append(run_of(found, start - first, size))
    caches.append(cache)
  positions = work.positions + count * len(networks)
  work = work._replace(caches=tuple(caches), positions=positions)
  return jnp.concatenate(hidden, axis=-1), work
