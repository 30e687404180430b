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
`readout.Guidance`.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.masking import reveal_probability
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.readout import Guidance, Reading
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.diffusion.strategies import (
  Ancestral,
  Joint,
  Plan,
  Strategy,
  View,
)


class SamplerState(NamedTuple):
  """What a step hands to the next; nothing of size V."""

  x_t: jax.Array  # int32 [B, L]; mask_id where still hidden.
  signal: jax.Array  # float32 [B, L, D]; see the module.
  certainty: jax.Array  # float32 [B, L]; log-probability when revealed, else 0.
  evaluations: jax.Array  # int32 []; denoiser evaluations made so far.


class Samples(NamedTuple):
  """The result of `sample`."""

  tokens: jax.Array  # int32 [B, L]; no position is masked.
  evaluations: jax.Array  # int32 []; per batch, as counted by the loop.
  trajectory: jax.Array | None  # int32 [T, B, L]: tokens after every step.


class Sampler(NamedTuple):
  """How samples are drawn; everything that stays the same from step to step.

  schedule: see `schedules`; fixes the fraction visible after each step.
  mask_id: the mask token; never sampled.
  num_steps: T >= 1, at most so many denoiser evaluations (twice that with guidance).
  strategy: see `strategies`.
  self_conditioning: whether each prediction is the next step's signal.
  temperature: scalar >= 0; may be traced. Shapes drawn tokens, not the signal.
  top_p: in (0, 1]; shapes drawn tokens, not the signal.
  noise: 'high', 'low' or 'float64'; see `draws`. 'low' wants the `Joint` strategy.
  guidance: see `readout.Guidance`.
  block_length: 0, or the length of blocks that are finished from left to right, each
    in num_steps / (number of blocks) steps (LLaDA's semi-autoregressive sampling).
  keep_signal: whether a position that is masked again keeps its last prediction.
  chunk: positions read at a time; None chooses. Does not change the result.
  """

  schedule: Schedule
  mask_id: int
  num_steps: int
  strategy: Strategy = Ancestral()
  self_conditioning: bool = True
  temperature: jax.Array | float = 1.0
  top_p: float = 1.0
  noise: str = 'high'
  guidance: Guidance | None = None
  block_length: int = 0
  keep_signal: bool = True
  chunk: int | None = None


def initial_state(network: Network, x_init: jax.Array, streams: int) -> SamplerState:
  """Before the first step: `x_init` int32 [B, L] and null signals, side by side."""
  null = jnp.concatenate([null_signal(network, x_init)] * streams, axis=-1)
  certainty = jnp.zeros(x_init.shape, jnp.float32)
  return SamplerState(x_init, null, certainty, jnp.int32(0))


def _fold(keys: jax.Array, data: jax.Array | int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def _encode(
  sampler: Sampler, network: Network, state: SamplerState, sigma: jax.Array
) -> tuple[jax.Array, int]:
  """Hidden states [B, L, D], both networks' side by side; evaluations made."""
  if sampler.guidance is None:
    return network.encode(state.x_t, state.signal, sigma), 1
  networks = (network, sampler.guidance.unconditional)
  signals = jnp.split(state.signal, 2, axis=-1)
  hidden = [
    n.encode(state.x_t, s, sigma) for n, s in zip(networks, signals, strict=True)
  ]
  return jnp.concatenate(hidden, axis=-1), 2


def reverse_step(
  keys: jax.Array,
  state: SamplerState,
  network: Network,
  sampler: Sampler,
  plan: Plan,
  step: jax.Array,
  active: jax.Array,
  last: jax.Array | bool,
) -> SamplerState:
  """One step of a strategy: evaluate, read what is masked, reveal, mask again.

  Which positions, then which token: a joint draw over V and the mask would lose rare
  tokens to rounding.

  Args:
    keys: [B] typed keys of this step, one per example; consumed.
    state: see `SamplerState`.
    network: see `network.Network`.
    sampler: see `Sampler`.
    plan: of the strategy; see `strategies`.
    step: int32 [], from 0, within the plan.
    active: bool [B, L]: what may be written at all; the prompt is not.
    last: whether to reveal everything that is left.
  """
  strategy, length = sampler.strategy, state.x_t.shape[1]
  split = jax.vmap(jax.random.split)(keys)
  masked = (state.x_t == sampler.mask_id) & active
  revealed = (state.x_t != sampler.mask_id) & active
  view = View(
    keys=split[:, 0],
    step=step,
    num_steps=len(plan.alphas) - 1,
    plan=plan,
    masked=masked,
    revealed=revealed,
    measure=jnp.zeros(masked.shape, jnp.float32),
    certainty=state.certainty,
  )

  def choose(view: View) -> tuple[jax.Array, jax.Array]:
    choice = strategy.choose(view)
    remask = jnp.zeros_like(masked) if choice.remask is None else choice.remask
    return choice.reveal | (masked & last), remask & ~jnp.asarray(last)

  ahead = None if strategy.measure else choose(view)
  hidden, evaluations = _encode(sampler, network, state, plan.sigmas[step])
  # A key per position, so that what is read does not depend on what else is.
  position_keys = jax.vmap(lambda key: _fold_range(key, length))(split[:, 1])

  def read(wanted: jax.Array, told: jax.Array) -> Reading:
    return readout.read(
      position_keys,
      network,
      hidden,
      state.x_t,
      wanted,
      mask_id=sampler.mask_id,
      told=told if sampler.self_conditioning else None,
      measure='log_prob' if strategy.remembers else strategy.measure,
      shaped=strategy.shaped,
      temperature=sampler.temperature,
      top_p=sampler.top_p,
      noise=sampler.noise,
      reveal=jnp.where(last, 1.0, reveal_probability(view.alpha_t, view.alpha_s)),
      guidance=sampler.guidance,
      chunk=sampler.chunk,
    )

  if ahead is None:
    reading = read(masked | (revealed & strategy.reads_visible), masked)
  elif strategy.final:
    # Tokens where one is revealed, signals where the mask stays: never both.
    reading = read(ahead[0], masked & ~ahead[0])
  else:
    reading = read(ahead[0], masked)
  reveal, remask = ahead or choose(view._replace(measure=reading.measure))
  x_s = jnp.where(reveal, reading.tokens, state.x_t)
  x_s = jnp.where(remask, sampler.mask_id, x_s)
  signal = state.signal
  if sampler.self_conditioning:
    signal = jnp.where(masked[..., None], reading.signal, signal)
    if not sampler.keep_signal:
      signal = jnp.where(remask[..., None], 0.0, signal)
  certainty = jnp.where(reveal, reading.measure, state.certainty)
  return SamplerState(x_s, signal, certainty, state.evaluations + evaluations)


def _fold_range(key: jax.Array, length: int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(length))


def sample(
  keys: jax.Array,
  network: Network,
  x_init: jax.Array,
  sampler: Sampler,
  *,
  keep_trajectory: bool = False,
) -> Samples:
  """Draws samples by any strategy (SCMDM, arXiv 2604.26985, with its carried signal).

  Args:
    keys: [B] typed keys, one per example; consumed. An example depends on its own key
      only, never on its neighbours in the batch.
    network: see `network.Network`.
    x_init: int32 [B, L]; the mask where a token is wanted. Other tokens never change.
    sampler: see `Sampler`.
    keep_trajectory: also return the tokens after every step.

  Raises:
    ValueError: `num_steps` is no multiple of the number of blocks, `block_length` does
      not divide L, or 'low' noise without the `Joint` strategy.
  """
  chex.assert_rank([keys, x_init], [1, 2])
  chex.assert_equal_shape_prefix([keys, x_init], 1)
  chex.assert_type(x_init, jnp.int32)
  length = x_init.shape[1]
  block = sampler.block_length or length
  blocks, rest = divmod(length, block)
  if rest or sampler.num_steps % blocks:
    raise ValueError(
      f'block_length {block} gives {length / block:g} blocks; wanted a whole number '
      f'that divides num_steps {sampler.num_steps}'
    )
  if (sampler.noise == 'low') != isinstance(sampler.strategy, Joint):
    raise ValueError("noise 'low' and the Joint strategy go together")
  steps = sampler.num_steps // blocks
  writable = x_init == sampler.mask_id
  state = initial_state(network, x_init, 2 if sampler.guidance else 1)

  def write_block(state: SamplerState, b: jax.Array):
    position = jnp.arange(length)
    inside = (position >= b * block) & (position < (b + 1) * block)
    active = writable & inside[None]
    return _write(
      _fold(keys, b), network, state, sampler, active, steps, keep_trajectory
    )

  if blocks == 1:
    state, states = _write(
      keys, network, state, sampler, writable, steps, keep_trajectory
    )
  else:
    state, states = jax.lax.scan(write_block, state, jnp.arange(blocks))
  if states is not None:
    states = states.reshape(sampler.num_steps, *x_init.shape)
  return Samples(state.x_t, state.evaluations, states)


def _write(
  keys: jax.Array,
  network: Network,
  state: SamplerState,
  sampler: Sampler,
  active: jax.Array,
  steps: int,
  keep_trajectory: bool,
) -> tuple[SamplerState, jax.Array | None]:
  """Runs a strategy from its start until all `active` positions are written."""
  plan = sampler.strategy.start(_fold(keys, steps), active, sampler.schedule, steps)

  def step(state: SamplerState, i: jax.Array) -> SamplerState:
    last = i == steps - 1
    return reverse_step(_fold(keys, i), state, network, sampler, plan, i, active, last)

  def scanned(state: SamplerState, i: jax.Array):
    state = step(state, i)
    return state, state.x_t if keep_trajectory else None

  if keep_trajectory or not sampler.strategy.early_exit:
    return jax.lax.scan(scanned, state, jnp.arange(steps))

  def unfinished(carry) -> jax.Array:
    state, i = carry
    return (i < steps) & ((state.x_t == sampler.mask_id) & active).any()

  state, _ = jax.lax.while_loop(
    unfinished, lambda carry: (step(*carry), carry[1] + 1), (state, jnp.int32(0))
  )
  return state, None
