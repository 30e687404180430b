"""What a sampler is, and one step of it: evaluate, read, reveal, mask again.

The loops around a step are `sampling`'s, and those with kept keys `caching`'s.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.draws import NOISES
from scmdm_jax.diffusion.guidance import Guidance, Predictor
from scmdm_jax.diffusion.masking import reveal_probability
from scmdm_jax.diffusion.planning import Plan, Strategy, View, column
from scmdm_jax.diffusion.readout import Decoding, Reading
from scmdm_jax.diffusion.schedules import LogLinear, Schedule
from scmdm_jax.diffusion.strategies import Ancestral, Joint

_ANCESTRAL, _LOG_LINEAR = Ancestral(), LogLinear()


@dataclasses.dataclass(frozen=True)
class Sampler:
  """How samples are drawn; hashable, so that it can be a compilation key.

  num_steps: T >= 1, at most so many denoiser evaluations (twice that with guidance).
  strategy: see `strategies`.
  schedule: see `schedules`; fixes the fraction visible after each step.
  self_conditioning: whether each prediction is the next step's signal.
  top_p: in (0, 1]; shapes drawn tokens, not the signal.
  noise: 'high', 'low' or 'float64'; see `draws`. 'low' goes with the `Joint` strategy.
  guidance: see `guidance.Guidance`.
  block_length: 0, or the length of blocks that are finished from left to right (LLaDA's
    semi-autoregressive sampling). Without a prompt each has num_steps / (number of
    blocks) steps; with one, steps go to what is left to write.
  keep_signal: whether a position that is masked again keeps its last prediction.
  chunk: positions read at a time; None chooses. Does not change the result.
  """

  num_steps: int
  strategy: Strategy = _ANCESTRAL
  schedule: Schedule = _LOG_LINEAR
  self_conditioning: bool = True
  top_p: float = 1.0
  noise: str = 'high'
  guidance: Guidance | None = None
  block_length: int = 0
  keep_signal: bool = True
  chunk: int | None = None

  def __post_init__(self):
    check(self.num_steps > 0, 'num_steps', self.num_steps, 'a number above 0')
    check(0 < self.top_p <= 1, 'top_p', self.top_p, 'a number above 0, at most 1')
    check(self.noise in NOISES, 'noise', self.noise, f'one of {", ".join(NOISES)}')
    length = self.block_length
    check(length >= 0, 'block_length', length, 'a number of at least 0')
    wanted = "'low' with the Joint strategy, and with no other"
    joint = isinstance(self.strategy, Joint)
    check((self.noise == 'low') == joint, 'noise', self.noise, wanted)
    check(self.chunk is None or self.chunk > 0, 'chunk', self.chunk, 'a number above 0')

  def blocks(self, length: int) -> int:
    """Returns the number of blocks of an example of `length` tokens.

    Raises:
      ValueError: such an example cannot be written in these steps and blocks.
    """
    block = self.block_length or length
    blocks, rest = divmod(length, block)
    check(
      not rest and not self.num_steps % blocks,
      'block_length',
      block,
      f'a divisor of the length, {length}, whose number of blocks divides num_steps = '
      f'{self.num_steps}',
    )
    most = (2**31 - 1) // length
    found = self.num_steps
    check(blocks == 1 or found <= most, 'num_steps', found, f'at most {most} in blocks')
    return blocks


class SamplerState(NamedTuple):
  """What a step hands to the next; nothing of size V."""

  x_t: jax.Array  # int32 [B, L]; mask_id where still hidden.
  signal: jax.Array  # float32 [B, L, M D]; see the module and `guidance.Predictor`.
  certainty: jax.Array  # float32 [B, L]; log-probability when revealed, else 0.
  evaluations: jax.Array  # int32 []; denoiser evaluations made so far.
  written: jax.Array  # int32 [B]; `evaluations` when its tokens changed last, or 0.


class Chain(NamedTuple):
  """What stays the same from step to step."""

  predictor: Predictor
  sampler: Sampler
  mask_id: int
  temperature: jax.Array | float = 1.0


def initial_state(predictor: Predictor, x_init: jax.Array) -> SamplerState:
  """Returns the state before the first step, `x_init` int32 [B, L] and null signals."""
  certainty = jnp.zeros(x_init.shape, jnp.float32)
  signal, none = predictor.null_signal(x_init), jnp.zeros(len(x_init), jnp.int32)
  return SamplerState(x_init, signal, certainty, jnp.int32(0), none)


def fold(keys: jax.Array, data: jax.Array | int) -> jax.Array:
  """Folds `data`, a number or [B], into `keys` [B]."""
  return jax.vmap(jax.random.fold_in, (0, 0 if jnp.ndim(data) else None))(keys, data)


def _position_keys(keys: jax.Array, length: int) -> jax.Array:
  """Returns a key per position, [B, L], so that it does not matter which are read."""

  def of_example(key: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(length))

  return jax.vmap(of_example)(keys)


def reverse_step(
  keys: jax.Array,
  state: SamplerState,
  chain: Chain,
  plan: Plan,
  step: jax.Array,
  active: jax.Array,
  last: jax.Array | bool,
) -> SamplerState:
  """Takes one step of a strategy: evaluate, read what is masked, reveal, mask again.

  Which positions, then which token: a joint draw over V and the mask would lose rare
  tokens to rounding.

  Args:
    keys: [B] typed keys of this step, one per example; consumed.
    state: see `SamplerState`.
    chain: see `Chain`.
    plan: of the strategy; see `planning`.
    step: int32 [], from 0, within the plan; [B] where examples have steps of their own.
    active: bool [B, L]: what may be written at all; the prompt is not.
    last: whether to reveal everything that is left, bool [] or [B].
  """
  sampler, strategy = chain.sampler, chain.sampler.strategy
  split = jax.vmap(jax.random.split)(keys)
  masked = (state.x_t == chain.mask_id) & active
  view = View(
    keys=split[:, 0],
    step=step,
    num_steps=len(plan.alphas) - 1 if plan.steps is None else plan.steps,
    plan=plan,
    masked=masked,
    revealed=(state.x_t != chain.mask_id) & active,
    measure=jnp.zeros(masked.shape, jnp.float32),
    certainty=state.certainty,
  )
  ahead = None if strategy.measure else _choose(strategy, view, last)
  hidden = chain.predictor.encode(state.x_t, state.signal, plan.at('sigmas', step))
  wanted, carried = _asked(strategy, view, None if ahead is None else ahead[0])
  reading = readout.read(
    _position_keys(split[:, 1], masked.shape[1]),
    chain.predictor,
    hidden,
    state.x_t,
    _decoding(chain, view, last),
    wanted,
    carried if sampler.self_conditioning else None,
    sampler.chunk,
  )
  if ahead is None:
    ahead = _choose(strategy, view._replace(measure=reading.measure), last)
  return _advanced(state, chain, masked, reading, *ahead)


def _choose(
  strategy: Strategy, view: View, last: jax.Array | bool
) -> tuple[jax.Array, jax.Array]:
  """Returns what is revealed and what is masked again, bool [B, L] each."""
  choice = strategy.choose(view)
  remask = choice.remask
  if remask is None:
    remask = jnp.zeros_like(view.masked)
  last = column(jnp.asarray(last))
  return choice.reveal | (view.masked & last), remask & ~last


def _asked(
  strategy: Strategy, view: View, reveal: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Returns where tokens and where signals are wanted; `reveal` where it is known."""
  if reveal is None:
    return view.masked | (view.revealed & strategy.reads_visible), view.masked
  if strategy.final:
    # Tokens where one is revealed, signals where the mask stays: never both.
    return reveal, view.masked & ~reveal
  return reveal, view.masked


def _decoding(chain: Chain, view: View, last: jax.Array | bool) -> Decoding:
  """Returns how this step turns scores into tokens and measures."""
  strategy = chain.sampler.strategy
  reveal = jnp.where(last, 1.0, reveal_probability(view.alpha_t, view.alpha_s))
  return Decoding(
    mask_id=chain.mask_id,
    measure='log_prob' if strategy.remembers else strategy.measure,
    shaped=strategy.shaped,
    temperature=chain.temperature,
    top_p=chain.sampler.top_p,
    noise=chain.sampler.noise,
    reveal=column(reveal),
  )


def _advanced(
  state: SamplerState,
  chain: Chain,
  masked: jax.Array,
  reading: Reading,
  reveal: jax.Array,
  remask: jax.Array,
) -> SamplerState:
  """Returns the state after a step that read, reveals and masks so, bool [B, L]."""
  x_s = jnp.where(reveal, reading.tokens, state.x_t)
  x_s = jnp.where(remask, chain.mask_id, x_s)
  signal = state.signal
  if chain.sampler.self_conditioning:
    signal = jnp.where(masked[..., None], reading.signal, signal)
    if not chain.sampler.keep_signal:
      signal = jnp.where(remask[..., None], 0.0, signal)
  certainty = jnp.where(reveal, reading.measure, state.certainty)
  evaluations = state.evaluations + len(chain.predictor.networks)
  changed = (x_s != state.x_t).any(-1)
  written = jnp.where(changed, evaluations, state.written)
  return SamplerState(x_s, signal, certainty, evaluations, written)
