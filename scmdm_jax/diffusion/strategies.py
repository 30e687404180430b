"""The strategies by name: the reverse process, remasking, and those of `confidence`."""

import dataclasses
import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.confidence import (
  Confidence,
  Dream,
  Edit,
  EntropyBound,
  Factor,
  MaskGIT,
  Threshold,
  check_from_zero,
)
from scmdm_jax.diffusion.planning import (
  Choice,
  Strategy,
  View,
  at_times,
  best,
  column,
  make_plan,
  most_steps,
  per_example,
  ranks_of,
  uniform,
)
from scmdm_jax.diffusion.schedules import Schedule, chain_alpha

RULES = ('cap', 'rescale', 'conf', 'loop')


@dataclasses.dataclass(frozen=True)
class Ancestral(Strategy):
  """The reverse process of the masked diffusion (MDLM, arXiv 2406.07524).

  A position masked at t is revealed by s with probability
  (alpha_s - alpha_t) / (1 - alpha_t), so the step of its revealing has the law
  alpha_s - alpha_t: it is drawn before the loop, by one uniform number.
  """

  final = True

  def start(self, keys, masked, schedule, num_steps):
    """Draws the step of every revealing; see `Strategy.start`."""
    plan = make_plan(masked, schedule, num_steps)
    u = uniform(keys, masked.shape[-1])
    after = per_example(plan.alphas[1:], len(masked))
    step = jax.vmap(functools.partial(jnp.searchsorted, side='right'))(after.T, u)
    return plan._replace(reveal_step=step.astype(jnp.int32))

  def choose(self, view: View) -> Choice:
    """Reveals what was drawn for this step."""
    assert view.plan.reveal_step is not None
    return Choice(view.masked & (view.plan.reveal_step <= column(view.step)))


@dataclasses.dataclass(frozen=True)
class FirstHitting(Strategy):
  """One token per event, at the exact times of the events (arXiv 2409.02908).

  With n positions masked, the masked fraction at the next event is that of the last
  one times u^(1/n); a position drawn uniformly is revealed. T must be at least the
  number of positions to write, else the last step reveals what is left.
  """

  early_exit = True
  final = True

  def check_steps(self, num_steps, length):
    """Refuses fewer steps than tokens; see `Strategy.check_steps`."""
    wanted = f'at least {length}: first_hitting writes one token per step'
    check(num_steps >= length, 'num_steps', num_steps, wanted)

  def start(self, keys, masked, schedule, num_steps):
    """Draws the order of revealing and the times of all events; only alpha matters."""
    both = jax.vmap(jax.random.split)(keys)
    order = ranks_of(jnp.where(masked, uniform(both[:, 0], masked.shape[-1]), -1.0))
    plan = make_plan(masked, schedule, num_steps)
    most = most_steps(num_steps)
    left = jnp.maximum(plan.to_write[:, None] - jnp.arange(most)[None], 1)
    log_masked = jnp.log(uniform(both[:, 1], most)) / left
    masked_fraction = jnp.exp(jnp.cumsum(log_masked, axis=-1))
    # Noise levels end where those of the schedule begin, at t = 1.
    sigmas = jnp.minimum(-jnp.log1p(-masked_fraction), plan.sigmas[0, 0])
    return plan._replace(reveal_step=order.astype(jnp.int32), sigmas=sigmas.T)

  def choose(self, view: View) -> Choice:
    """Reveals the position whose turn it is."""
    return Choice(view.masked & (view.plan.reveal_step == column(view.step)))


@dataclasses.dataclass(frozen=True)
class Joint(Strategy):
  """Ancestral sampling in one draw over tokens and mask, as MDLM and MD4 code it.

  The draw itself says what is revealed; see `draws.draw_jointly`.
  """

  def choose(self, view: View) -> Choice:
    """Reveals everything: the draw may have returned the mask."""
    return Choice(view.masked)


@dataclasses.dataclass(frozen=True)
class ReMDM(Strategy):
  """Ancestral sampling that masks revealed tokens again (ReMDM, arXiv 2503.00307).

  With sigma the probability that a revealed token is masked again, at most
  sigma_max = min(1, (1 - alpha_s) / alpha_t), a masked position is revealed with
  probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), which keeps the marginals
  of the forward process, except under 'conf', whose sigmas differ by position. `rule`:

  * 'cap': sigma = min(eta, sigma_max);
  * 'rescale': sigma = eta sigma_max;
  * 'conf': sigma_max times the softmax, over an example's revealed positions, of minus
    the probability their tokens had when revealed; at masked positions sigma is 0;
  * 'loop': ancestral up to alpha_on at time t_on, then constant alpha and sigma = eta
    until t_off, then ancestral to the end.
  """

  rule: str = 'cap'
  eta: float = 0.02
  t_on: float = 0.55
  t_off: float = 0.05
  alpha_on: float = 0.9
  remasks = True

  def __post_init__(self):
    check(self.rule in RULES, 'rule', self.rule, f'one of {", ".join(RULES)}')
    check(0 <= self.eta <= 1, 'eta', self.eta, 'a probability, 0 to 1')
    for name in ('t_on', 't_off', 'alpha_on'):
      value = getattr(self, name)
      check(0 < value < 1, name, value, 'a number between 0 and 1')
    wanted = f'more than t_off = {self.t_off:g}, since time runs from 1 to 0'
    check(self.t_on > self.t_off, 't_on', self.t_on, wanted)

  @property
  def remembers(self) -> bool:
    """Whether it looks back: only 'conf' does."""
    return self.rule == 'conf'

  def start(self, keys, masked, schedule, num_steps):
    """Returns the plan; 'loop' has alphas and noise levels of its own."""
    del keys
    plan = make_plan(masked, schedule, num_steps)
    if self.rule != 'loop':
      return plan
    alphas = at_times(num_steps, lambda t: chain_alpha(self._looped(schedule), t))
    levels = -jnp.log(jnp.maximum(alphas[:-1], 1e-30))
    sigmas = jnp.minimum(per_example(levels, len(masked)), plan.sigmas[0, 0])
    return plan._replace(alphas=alphas, sigmas=sigmas)

  def _looped(self, schedule: Schedule) -> Schedule:
    """Returns `schedule` as 'loop' walks it."""

    def alpha(t: jax.Array) -> jax.Array:
      early = schedule(jnp.clip((t - self.t_on) / (1 - self.t_on), 0, 1))
      late = schedule(jnp.clip(t / self.t_off, 0, 1)) * (1 - self.alpha_on)
      constant = jnp.where(t > self.t_off, self.alpha_on, late + self.alpha_on)
      return jnp.where(t > self.t_on, early * self.alpha_on, constant)

    return alpha

  def choose(self, view: View) -> Choice:
    """Draws twice: masked to revealed, revealed to masked."""
    alpha_t, alpha_s = column(view.alpha_t), column(view.alpha_s)
    # At alpha_t = 0 nothing is revealed, and any sigma will do.
    sigma_max = jnp.minimum(1.0, (1 - alpha_s) / jnp.maximum(alpha_t, 1e-30))
    shape = view.masked.shape
    if self.rule == 'conf':
      scores = jnp.where(view.revealed, -jnp.exp(view.certainty), -jnp.inf)
      some = view.revealed.any(-1, keepdims=True)
      share = jax.nn.softmax(jnp.where(some, scores, 0.0), axis=-1)
      sigma = jnp.where(view.revealed, share, 0.0) * sigma_max
    else:
      sigma = jnp.broadcast_to(self._sigma(view, sigma_max), shape)
    left = jnp.maximum(1 - alpha_t, 1e-30)
    reveal = (alpha_s - (1 - sigma) * alpha_t) / left
    u = uniform(view.keys, shape[-1])
    return Choice(view.masked & (u < reveal), view.revealed & (u < sigma))

  def _sigma(self, view: View, sigma_max: jax.Array) -> jax.Array:
    """Returns the probability of masking again, which positions share, as its limit."""
    if self.rule == 'rescale':
      return self.eta * sigma_max
    if self.rule == 'cap':
      return jnp.minimum(self.eta, sigma_max)
    t, s = (1 - (view.step + i) / view.num_steps for i in (0, 1))
    inside = column((t <= self.t_on) & (s > self.t_off))
    return jnp.where(inside, jnp.minimum(self.eta, sigma_max), 0.0)


@dataclasses.dataclass(frozen=True)
class P2(Strategy):
  """Path planning: every token is judged at each step (arXiv 2502.03540).

  Scores are log p of the drawn token at masked positions and `eta` times log p of the
  present token at revealed ones. The floor((1 - alpha_s) count) worst positions are
  masked after the step, whatever they were before.
  """

  eta: float = 1.0
  measure = 'log_prob'
  reads_visible = True
  remasks = True

  def __post_init__(self):
    check_from_zero('eta', self.eta)

  def choose(self, view: View) -> Choice:
    """Reveals all but the worst, which are masked."""
    writable = view.masked | view.revealed
    scores = jnp.where(view.masked, view.measure, self.eta * view.measure)
    left = jnp.floor((1 - view.alpha_s) * view.plan.to_write).astype(jnp.int32)
    keep = best(scores, writable, writable.sum(-1) - left)
    return Choice(view.masked & keep, view.revealed & ~keep)


STRATEGIES: dict[str, type[Strategy]] = {
  'ancestral': Ancestral,
  'first_hitting': FirstHitting,
  'maskgit': MaskGIT,
  'confidence': Confidence,
  'dream': Dream,
  'threshold': Threshold,
  'edit': Edit,
  'factor': Factor,
  'entropy_bound': EntropyBound,
  'remdm': ReMDM,
  'p2': P2,
}


def parse(text: str) -> Strategy:
  """Returns the strategy written as NAME or NAME:field=value,...; see STRATEGIES.

  As in remdm:rule=conf,eta=0.1. `Joint` has no name: it goes with 'low' noise.

  Raises:
    ValueError: unknown name or field, or a value that is not one.
  """
  name, _, written = text.partition(':')
  near = difflib.get_close_matches(name, STRATEGIES, n=1)
  hint = f'; did you mean {near[0]}?' if near else ''
  check(name in STRATEGIES, 'strategy', name, f'one of {", ".join(STRATEGIES)}{hint}')
  cls: Any = STRATEGIES[name]
  fields = {field.name: field for field in dataclasses.fields(cls)}
  values: dict[str, Any] = {}
  for item in filter(None, written.split(',')):
    field, _, value = item.partition('=')
    if field not in fields:
      wanted = ', '.join(fields) or 'none'
      raise ValueError(f'strategy: {name} has no field {field!r}; its fields: {wanted}')
    if field in values:
      raise ValueError(f'strategy: {name}:{field} is there twice; wanted it once')
    values[field] = value
    if fields[field].type is float:
      try:
        values[field] = float(value)
      except ValueError as e:
        found = f'strategy: {name}:{field}: found {value!r}'
        raise ValueError(f'{found}; wanted a number') from e
  try:
    return cls(**values)
  except ValueError as e:
    raise ValueError(f'strategy: {name}:{e}') from e
