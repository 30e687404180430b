r"""The reverse sampler: one compiled loop whose carry is (tokens, signal).

    x_t, signal --encode--> hidden --readout--> tokens for the positions revealed now
                                          \---> the signal of the next step

Every step makes exactly one denoiser evaluation, with or without self-conditioning.

The carried signal of a position is the model's own prediction at the last step at which
the position was masked: before carry-over, temperature and top-p, which training never
shows the network. A position that is masked again finds that prediction there (or the
null signal, with `keep_signal=False`), not the one-hot of the token it had. With
blocks, positions right of the active block have the null signal, since nothing has been
read there. With guidance each of the two evaluations has its own; see
`guidance.Guidance`.

With blocks every example goes its own way: how many steps it spends on a block depends
on what its prompt left to write there, see `blocks.deal_steps`, and its blocks may
begin where its prompt ends. With a cache all write their blocks of the same number at a
time, see `caching`.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.blocks import NO_ANSWERS, Answers, Blocks
from scmdm_jax.diffusion.caching import write_blocks
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.network import Network, number_of_blocks
from scmdm_jax.diffusion.planning import Plan
from scmdm_jax.diffusion.shrinking import walk
from scmdm_jax.diffusion.stepping import (
  Chain,
  Sampler,
  SamplerState,
  fold,
  initial_state,
  reverse_step,
  settled,
)


class Samples(NamedTuple):
  """The result of `sample`."""

  tokens: jax.Array  # int32 [B, L]; no position is masked.
  evaluations: jax.Array  # int32 []; per batch, as counted by the loop.
  written: jax.Array  # int32 [B]; after so many an example stood as it is.
  trajectory: jax.Array | None  # int32 [T, B, L]: tokens after every step.
  positions: jax.Array  # int32 []; positions of an example that were evaluated.
  rows: jax.Array  # int32 []; examples evaluated, added up over all evaluations.


def sample(
  keys: jax.Array,
  network: Network,
  x_init: jax.Array,
  sampler: Sampler,
  *,
  mask_id: int,
  temperature: jax.Array | float = 1.0,
  unconditional: Network | None = None,
  answers: Answers = NO_ANSWERS,
  keep_trajectory: bool = False,
) -> Samples:
  """Draws samples by any strategy (SCMDM, arXiv 2604.26985, with its carried signal).

  It has nine parameters, because arrays, which are traced, are no part of `sampler`,
  which is static.

  Args:
    keys: [B] typed keys, one per example; consumed. An example depends on its own key
      only, never on its neighbours in the batch.
    network: see `network.Network`.
    x_init: int32 [B, L]; the mask where a token is wanted. Other tokens never change.
    sampler: see `Sampler`.
    mask_id: the mask token; never drawn.
    temperature: scalar >= 0; may be traced. Shapes drawn tokens, not the signal.
    unconditional: the other network under guidance; None without.
    answers: where the first block of each example begins, which may then have up to T
      blocks with something to write; without, at 0, as `Sampler.blocks` says. Blocks of
      the network's own lie where its attention has them. With a cache, nothing to write
      may stand before, or the first block begins there. What ends an example counts
      where there are blocks and no trajectory is kept.
    keep_trajectory: also return the tokens after every step.

  Raises:
    ValueError: steps and blocks that do not fit L, see `Sampler.blocks`; blocks or a
      cache that the network cannot have, see `Sampler.of_model`; guidance
      without an unconditional network, or one without guidance.
  """
  chex.assert_rank([keys, x_init], [1, 2])
  chex.assert_equal_shape_prefix([keys, x_init], 1)
  chex.assert_type(x_init, jnp.int32)
  if (sampler.guidance is None) != (unconditional is None):
    raise ValueError('guidance and an unconditional network go together')
  networks = (network,) if unconditional is None else (network, unconditional)
  sampler = sampler.of_model(network.block_length, network.cached is not None)
  chain = Chain(Predictor(networks, sampler.guidance), sampler, mask_id, temperature)
  length = x_init.shape[1]
  number_of_blocks(network.block_length, length)
  size = sampler.block_length or length
  whole = answers.starts is None
  blocks = sampler.blocks(length) if whole else -(-length // size)
  if network.block_length:
    answers = answers._replace(starts=None)
  writable = x_init == mask_id
  state = initial_state(chain.predictor, x_init)
  if blocks > 1 and sampler.cache != 'none':
    work = write_blocks(keys, x_init, chain, keep_trajectory, answers)
    done, rows = work.state, work.rows
    states, positions = work.trajectory, work.positions
  else:
    if blocks == 1:
      first = fold(keys, sampler.num_steps)
      steps = sampler.num_steps
      plan = sampler.strategy.start(first, writable, sampler.schedule, steps)
      way: _Whole | _Dealt = _Whole(keys, plan, writable)
    else:
      dealt = Blocks.of(writable, size, sampler.num_steps, answers.starts)
      way = _Dealt(keys, dealt, answers)
    done, rows, states = _written(way, chain, state, keep_trajectory)
    positions = done.evaluations * length
  tokens = answers.filled(done.x_t, mask_id)
  return Samples(tokens, done.evaluations, done.written, states, positions, rows)


class _Whole(NamedTuple):
  """The way of examples that are written as a whole; see `shrinking.Way`."""

  keys: jax.Array
  plan: Plan
  active: jax.Array

  def of(self, order: jax.Array) -> '_Whole':
    """Returns those of the examples `order`; see `Way`."""
    return _Whole(self.keys[order], self.plan.of(order), self.active[order])

  def left(self, chain: Chain, state: SamplerState, i: jax.Array) -> jax.Array:
    """Returns which examples have not ended; `i` is []."""
    return (i < chain.sampler.num_steps) & ~settled(state, chain, self.active)

  def step(
    self, chain: Chain, state: SamplerState, i: jax.Array
  ) -> tuple[SamplerState, jax.Array]:
    """Takes step `i`; returns the state and the next step."""
    keys, last = fold(self.keys, i), i == chain.sampler.num_steps - 1
    return reverse_step(keys, state, chain, self.plan, i, self.active, last), i + 1


class _Dealt(NamedTuple):
  """The way of examples through their blocks, each at its own pace.

  What a strategy draws before a block follows from the block's key: it is drawn again
  in every step, so nothing of it is carried.
  """

  keys: jax.Array
  blocks: Blocks
  answers: Answers

  def of(self, order: jax.Array) -> '_Dealt':
    """Returns those of the examples `order`; see `Way`."""
    blocks = self.blocks.of_examples(order)
    return _Dealt(self.keys[order], blocks, self.answers.of(order))

  def left(self, chain: Chain, state: SamplerState, i: jax.Array) -> jax.Array:
    """Returns which examples have not ended; `i` is [B]."""
    del chain, state
    return i < self.blocks.steps.sum(-1)

  def step(
    self, chain: Chain, state: SamplerState, i: jax.Array
  ) -> tuple[SamplerState, jax.Array]:
    """Takes step `i`; returns the state and the next step."""
    b, steps, local, active = self.blocks.at(i)
    total = self.blocks.steps.sum(-1, dtype=jnp.int32)
    active &= (i < total)[:, None]
    keys_b = fold(self.keys, b)
    begun, sampler = fold(keys_b, steps.own), chain.sampler
    plan = sampler.strategy.start(begun, active, sampler.schedule, steps)
    last = local == steps.own - 1
    state = reverse_step(fold(keys_b, local), state, chain, plan, local, active, last)
    after = i - local + steps.own
    # A block that is written leaves its other steps unused.
    if not sampler.strategy.remasks:
      i = jnp.where(settled(state, chain, active), after - 1, i)
    ended = (i + 1 == after) & self.answers.ended(state.x_t, self.blocks.writable)
    return state, jnp.where(ended, jnp.maximum(i + 1, total), i + 1)


def _written(
  way: _Whole | _Dealt, chain: Chain, state: SamplerState, keep_trajectory: bool
) -> tuple[SamplerState, jax.Array, jax.Array | None]:
  """Takes all steps, or those that are needed.

  Returns the state, the examples evaluated (see `walk`), and, if they are to be kept,
  the tokens after every step.
  """
  batch, apart = len(state.x_t), isinstance(way, _Dealt)

  def scanned(state: SamplerState, i: jax.Array):
    state, _ = way.step(chain, state, jnp.broadcast_to(i, batch) if apart else i)
    return state, state.x_t if keep_trajectory else None

  ends = isinstance(way, _Dealt) and way.answers.stops is not None
  if keep_trajectory or not (chain.sampler.strategy.early_exit or ends):
    steps = jnp.arange(chain.sampler.num_steps, dtype=jnp.int32)
    state, states = jax.lax.scan(scanned, state, steps)
    return state, state.evaluations * batch, states
  first = jnp.zeros(batch, jnp.int32) if apart else jnp.int32(0)
  return *walk(way, chain, state, first, chain.sampler.num_steps), None
