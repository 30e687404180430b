"""What a sampler is, and one step of it: evaluate, read, reveal, mask again.

The loops around a step are `sampling`'s, and those with kept keys `caching`'s.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.draws import NOISES
from scmdm_jax.diffusion.guidance import Guidance, Predictor
from scmdm_jax.diffusion.masking import reveal_probability
from scmdm_jax.diffusion.planning import Plan, Strategy, View, column
from scmdm_jax.diffusion.readout import Decoding
from scmdm_jax.diffusion.schedules import LogLinear, Schedule
from scmdm_jax.diffusion.strategies import Ancestral, Joint

CACHES = ('auto', 'none', 'exact', 'prefix', 'dual')
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
  cache: one of CACHES: which keys and values of blocks are kept, see `caching`. 'auto'
    is 'exact' with a model of blocks and 'none' with any other.
  refresh: above 0: 'prefix' and 'dual' keep all of them again after so many steps in a
    block, and not only where a block begins.
  compact: above 0: a batch is halved as its examples end, down to so many, where the
    strategy may end early or a cache is kept; see `shrinking`. Changes no token.
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
  cache: str = 'auto'
  refresh: int = 0
  compact: int = 0
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
    check(self.cache in CACHES, 'cache', self.cache, f'one of {", ".join(CACHES)}')
    wanted = 'a number of at least 0; above 0 with cache = prefix or dual only'
    approximate = self.cache in ('prefix', 'dual')
    fits = self.refresh >= 0 and (approximate or not self.refresh)
    check(fits, 'refresh', self.refresh, wanted)
    wanted = 'prefix and dual with a block_length above 0 only'
    check(length > 0 or not approximate, 'cache', self.cache, wanted)
    check(self.compact >= 0, 'compact', self.compact, 'a number of at least 0')
    check(self.chunk is None or self.chunk > 0, 'chunk', self.chunk, 'a number above 0')

  def of_model(self, block_length: int, keeps: bool) -> 'Sampler':
    """Returns the sampler with the blocks of a model, and its cache by name.

    Args:
      block_length: of the model; 0: it sees both ways.
      keeps: whether the model can be given a cache.

    Raises:
      ValueError: blocks or a cache that such a model cannot have.
    """
    found, kind = self.block_length, f'a model with blocks of {block_length}'
    if block_length:
      wanted = (
        f'0 or {block_length} with {kind}, whose finished blocks stay as they are'
      )
      check(found in (0, block_length), 'block_length', found, wanted)
    else:
      kind = 'a model that sees both ways'
    fitting = ['auto', 'none']
    if keeps:
      fitting += ['exact'] if block_length else ['prefix', 'dual']
    wanted = f'one of {", ".join(fitting)} with {kind if keeps else "this model"}'
    check(self.cache in fitting, 'cache', self.cache, wanted)
    auto = 'exact' if block_length and keeps else 'none'
    cache = auto if self.cache == 'auto' else self.cache
    return dataclasses.replace(self, block_length=found or block_length, cache=cache)

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
  signal: jax.Array  # float32 [B, L, M D], of `guidance.Predictor`; of `Seen` [B, N,].
  certainty: jax.Array  # float32 [B, L]; log-probability when revealed, else 0.
  evaluations: jax.Array  # int32 []; denoiser evaluations made so far.
  written: jax.Array  # int32 [B]; `evaluations` when its tokens changed last, or 0.


class Chain(NamedTuple):
  """What stays the same from step to step."""

  predictor: Predictor
  sampler: Sampler
  mask_id: int
  temperature: jax.Array | float = 1.0

  def of(self, order: jax.Array) -> 'Chain':
    """Returns the same for the examples `order` int32 [N] of a batch."""
    networks = tuple(n.of(order) if n.of else n for n in self.predictor.networks)
    return self._replace(predictor=self.predictor._replace(networks=networks))


def initial_state(predictor: Predictor, x_init: jax.Array) -> SamplerState:
  """Returns the state before the first step, `x_init` int32 [B, L] and null signals."""
  certainty = jnp.zeros(x_init.shape, jnp.float32)
  signal, none = predictor.null_signal(x_init), jnp.zeros(len(x_init), jnp.int32)
  return SamplerState(x_init, signal, certainty, jnp.int32(0), none)


def fold(keys: jax.Array, data: jax.Array | int) -> jax.Array:
  """Folds `data`, a number or [B], into `keys` [B]."""
  return jax.vmap(jax.random.fold_in, (0, 0 if jnp.ndim(data) else None))(keys, data)


def run_of(x: jax.Array, start: jax.Array, count: int) -> jax.Array:
  """Returns `count` positions of `x` [B, L, ...] from `start` int32 [] or [B] on."""
  if not start.ndim:
    return jax.lax.dynamic_slice_in_dim(x, start, count, axis=1)
  own = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=count)
  return jax.vmap(own)(x, start)


class Seen(NamedTuple):
  """A run of N positions that was evaluated alone, or all of them."""

  hidden: jax.Array  # [B, N, M D], of `guidance.Predictor`.
  start: jax.Array | None = None  # int32 [] or [B], its first position; None: N is L.

  def cut(self, x: jax.Array) -> jax.Array:
    """Returns the run of `x` [B, L, ...], [B, N, ...]."""
    return x if self.start is None else run_of(x, self.start, self.hidden.shape[1])

  def put(self, x: jax.Array, length: int) -> jax.Array:
    """Returns `x` [B, N, ...] in its place, zeros elsewhere, [B, L, ...]."""
    if self.start is None:
      return x
    zeros = jnp.zeros((len(x), length, *x.shape[2:]), x.dtype)
    own = jax.lax.dynamic_update_slice_in_dim
    if not self.start.ndim:
      return own(zeros, x, self.start, axis=1)
    return jax.vmap(functools.partial(own, axis=0))(zeros, x, self.start)

  def position_keys(self, keys: jax.Array) -> jax.Array:
    """Returns a key per position, [B, N]: it does not matter which are read."""
    places = jnp.arange(self.hidden.shape[1])[None]
    if self.start is not None:
      places = places + jnp.atleast_1d(self.start)[:, None]
    of_example = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(of_example)(
      keys, jnp.broadcast_to(places, (len(keys), places.shape[1]))
    )


def reverse_step(
  keys: jax.Array,
  state: SamplerState,
  chain: Chain,
  plan: Plan,
  step: jax.Array,
  active: jax.Array,
  last: jax.Array | bool,
  seen: Seen | None = None,
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
    seen: the evaluation, of a run with all that is `active`; None: made here, of all.
  """
  sampler, strategy = chain.sampler, chain.sampler.strategy
  active = _unsettled(state, chain, active)
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
  if seen is None:
    sigma = plan.at('sigmas', step)
    seen = Seen(chain.predictor.encode(state.x_t, state.signal, sigma))
  wanted, carried = _asked(strategy, view, None if ahead is None else ahead[0])
  reading = readout.read(
    seen.position_keys(split[:, 1]),
    chain.predictor,
    seen.hidden,
    seen.cut(state.x_t),
    _decoding(chain, view, last),
    seen.cut(wanted),
    seen.cut(carried) if sampler.self_conditioning else None,
    sampler.chunk,
  )
  length = masked.shape[1]
  tokens, measure = (seen.put(x, length) for x in (reading.tokens, reading.measure))
  if ahead is None:
    ahead = _choose(strategy, view._replace(measure=measure), last)
  signal = _carried(state.signal, chain, seen, masked, reading.signal, ahead[1])
  return _advanced(state, tokens, measure, *ahead, chain)._replace(signal=signal)


def settled(state: SamplerState, chain: Chain, active: jax.Array) -> jax.Array:
  """Returns which examples have nothing more to do at `active` bool [B, L], bool [B].

  Nothing is masked there; and with a strategy that edits, the last step changed none.
  """
  done = ~((state.x_t == chain.mask_id) & active).any(-1)
  if not chain.sampler.strategy.edits:
    return done
  return done & ((state.written < state.evaluations) | ~active.any(-1))


def _unsettled(state: SamplerState, chain: Chain, active: jax.Array) -> jax.Array:
  """Returns what may be written in this step, bool [B, L].

  With a strategy that edits, an example that came to rest waits for its neighbours,
  which must not matter to it.
  """
  if not chain.sampler.strategy.edits:
    return active
  return active & ~settled(state, chain, active)[:, None]


def _choose(
  strategy: Strategy, view: View, last: jax.Array | bool
) -> tuple[jax.Array, jax.Array]:
  """Returns what is given a token and what is masked again, bool [B, L] each."""
  choice = strategy.choose(view)
  remask = choice.remask
  if remask is None:
    remask = jnp.zeros_like(view.masked)
  last = column(jnp.asarray(last))
  reveal = choice.reveal | (view.masked & last)
  if choice.edit is not None:
    reveal = reveal | (choice.edit & ~last)
  return reveal, remask & ~last


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
    edits=strategy.edits,
    temperature=chain.temperature,
    top_p=chain.sampler.top_p,
    noise=chain.sampler.noise,
    reveal=column(reveal),
  )


def _carried(
  signal: jax.Array,
  chain: Chain,
  seen: Seen,
  masked: jax.Array,
  read: jax.Array,
  remask: jax.Array,
) -> jax.Array:
  """Returns the signal of the next step, that `read` where it was `masked`."""
  if not chain.sampler.self_conditioning:
    return signal
  signal = jnp.where(seen.cut(masked)[..., None], read, signal)
  if chain.sampler.keep_signal:
    return signal
  return jnp.where(seen.cut(remask)[..., None], 0.0, signal)


def _advanced(
  state: SamplerState,
  tokens: jax.Array,
  measure: jax.Array,
  reveal: jax.Array,
  remask: jax.Array,
  chain: Chain,
) -> SamplerState:
  """Returns the state after a step that reveals and masks so, bool [B, L]."""
  x_s = jnp.where(reveal, tokens, state.x_t)
  x_s = jnp.where(remask, chain.mask_id, x_s)
  certainty = jnp.where(reveal, measure, state.certainty)
  evaluations = state.evaluations + len(chain.predictor.networks)
  changed = (x_s != state.x_t).any(-1)
  written = jnp.where(changed, evaluations, state.written)
  return SamplerState(x_s, state.signal, certainty, evaluations, written)
