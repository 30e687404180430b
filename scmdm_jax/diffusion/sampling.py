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
begin where its prompt ends. With a cache all write the same block at a time, see
`caching`.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.blocks import Blocks
from scmdm_jax.diffusion.caching import write_blocks
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.network import Network
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


def sample(
  keys: jax.Array,
  network: Network,
  x_init: jax.Array,
  sampler: Sampler,
  *,
  mask_id: int,
  temperature: jax.Array | float = 1.0,
  unconditional: Network | None = None,
  starts: jax.Array | None = None,
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
    starts: int32 [B], where the first block of each example begins, which may then have
      up to T blocks with something to write; None: at 0, as `Sampler.blocks` says.
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
  if network.block_length:
    starts = None  # Its blocks lie where its attention has them.
  size = sampler.block_length or length
  blocks = sampler.blocks(length) if starts is None else -(-length // size)
  writable = x_init == mask_id
  state = initial_state(chain.predictor, x_init)
  if blocks > 1 and sampler.cache != 'none':
    work = write_blocks(keys, x_init, chain, blocks, keep_trajectory)
    done = work.state
    return Samples(
      done.x_t, done.evaluations, done.written, work.trajectory, work.positions
    )
  if blocks == 1:
    state, states = _write(keys, state, chain, writable, keep_trajectory)
  else:
    dealt = Blocks.of(writable, size, sampler.num_steps, starts)
    state, states = _write_blocks(keys, state, chain, dealt, keep_trajectory)
  positions = state.evaluations * length
  return Samples(state.x_t, state.evaluations, state.written, states, positions)


def _write(
  keys: jax.Array,
  state: SamplerState,
  chain: Chain,
  active: jax.Array,
  keep_trajectory: bool,
) -> tuple[SamplerState, jax.Array | None]:
  """Runs a strategy from its start until all `active` positions are written.

  Returns the state and, if they are to be kept, the tokens after every step.
  """
  strategy, steps = chain.sampler.strategy, chain.sampler.num_steps
  plan = strategy.start(fold(keys, steps), active, chain.sampler.schedule, steps)

  def step(state: SamplerState, i: jax.Array) -> SamplerState:
    return reverse_step(fold(keys, i), state, chain, plan, i, active, i == steps - 1)

  def scanned(state: SamplerState, i: jax.Array):
    state = step(state, i)
    return state, state.x_t if keep_trajectory else None

  if keep_trajectory or not strategy.early_exit:
    return jax.lax.scan(scanned, state, jnp.arange(steps))

  def unfinished(carry) -> jax.Array:
    state, i = carry
    return (i < steps) & ~settled(state, chain, active).all()

  state, _ = jax.lax.while_loop(
    unfinished, lambda carry: (step(*carry), carry[1] + 1), (state, jnp.int32(0))
  )
  return state, None


def _write_blocks(
  keys: jax.Array,
  state: SamplerState,
  chain: Chain,
  blocks: Blocks,
  keep_trajectory: bool,
) -> tuple[SamplerState, jax.Array | None]:
  """Runs a strategy in one block after the other, every example at its own pace.

  What a strategy draws before a block follows from the block's key: it is drawn again
  in every step, so nothing of it is carried. Returns what `_write` does.
  """
  strategy, total = chain.sampler.strategy, chain.sampler.num_steps

  def step(state: SamplerState, i: jax.Array) -> tuple[SamplerState, jax.Array]:
    """Takes step `i` [B]; returns the state and the next step with work to do."""
    b, steps, local, active = blocks.at(i)
    keys_b = fold(keys, b)
    begun = fold(keys_b, steps.own)
    plan = strategy.start(begun, active, chain.sampler.schedule, steps)
    last = local == steps.own - 1
    state = reverse_step(fold(keys_b, local), state, chain, plan, local, active, last)
    # A block that is written leaves its other steps unused.
    written = settled(state, chain, active)
    return state, jnp.where(written, i - local + steps.own, i + 1)

  def scanned(state: SamplerState, i: jax.Array):
    state, _ = step(state, jnp.broadcast_to(i, len(blocks.writable)))
    return state, state.x_t if keep_trajectory else None

  if keep_trajectory or not strategy.early_exit:
    return jax.lax.scan(scanned, state, jnp.arange(total, dtype=jnp.int32))

  def unfinished(carry: tuple[SamplerState, jax.Array]) -> jax.Array:
    return (carry[1] < blocks.steps.sum(-1)).any()

  first = jnp.zeros(len(blocks.writable), jnp.int32)
  state, _ = jax.lax.while_loop(unfinished, lambda c: step(*c), (state, first))
  return state, None
