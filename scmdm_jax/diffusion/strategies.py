"""Which masked positions a step reveals, and which revealed ones it masks again.

A strategy is a frozen dataclass, so it can be a static argument, with three parts:

* `measure` and `shaped`: what it must know of the prediction (`readout.MEASURES`). With
  '' it looks at no prediction: `choose` is called first, and a vanilla model is then
  read only where something is revealed.
* `start`: what is drawn or fixed before the loop.
* `choose`: the decision of one step, a pure function of a `View`.

The last step reveals whatever is left, whatever the strategy: no sample has a mask.
Legend: `B` batch, `L` length, `T` steps.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.schedules import (
  Schedule,
  reverse_alphas,
  reverse_noise_levels,
)


class Plan(NamedTuple):
  """What is known before the first step."""

  alphas: jax.Array  # float32 [T + 1], rising from 0 to 1.
  sigmas: jax.Array  # float32 [T, B], noise levels for time-conditioned networks.
  to_write: jax.Array  # int32 [B], positions to write.
  reveal_step: jax.Array | None = None  # int32 [B, L], of strategies that draw it.


class View(NamedTuple):
  """What a strategy may look at in one step."""

  keys: jax.Array  # [B] typed keys of this step; consumed.
  step: jax.Array  # int32 [], from 0.
  num_steps: int  # T.
  plan: Plan
  masked: jax.Array  # bool [B, L]: what may be revealed.
  revealed: jax.Array  # bool [B, L]: what may be masked again; never the prompt.
  measure: jax.Array  # float32 [B, L]: of the prediction; larger is more certain.
  certainty: jax.Array  # float32 [B, L]: log-probability at the time of revealing.

  @property
  def alpha_t(self) -> jax.Array:
    """Fraction visible before this step, float32 []."""
    return self.plan.alphas[self.step]

  @property
  def alpha_s(self) -> jax.Array:
    """Fraction visible after this step, float32 []."""
    return self.plan.alphas[self.step + 1]


class Choice(NamedTuple):
  """The decision of a step."""

  reveal: jax.Array  # bool [B, L]; within `View.masked`.
  remask: jax.Array | None = None  # bool [B, L]; within `View.revealed`.


def _plan(
  masked: jax.Array, schedule: Schedule, num_steps: int, **more: jax.Array
) -> Plan:
  levels = reverse_noise_levels(schedule, num_steps)
  values: dict[str, Any] = {
    'alphas': reverse_alphas(schedule, num_steps).astype(jnp.float32),
    'sigmas': jnp.broadcast_to(
      levels[:, None].astype(jnp.float32), (num_steps, len(masked))
    ),
    'to_write': masked.sum(-1, dtype=jnp.int32),
  }
  return Plan(**values | more)


def _uniform(keys: jax.Array, length: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.uniform(key, (length,), jnp.float32))(keys)


def _ranks(scores: jax.Array) -> jax.Array:
  """Position of every score [B, L] in falling order, int32; ties go by position."""
  return jnp.argsort(jnp.argsort(-scores, axis=-1), axis=-1)


def _best(scores: jax.Array, masked: jax.Array, count: jax.Array) -> jax.Array:
  """The `count` [B] best-scored masked positions of every example, bool [B, L]."""
  ranks = _ranks(jnp.where(masked, scores, -jnp.inf))
  return masked & (ranks < count[:, None])


class _Strategy:
  """Defaults; see the module."""

  measure = ''
  shaped = False
  reads_visible = False  # Whether the measure is wanted at visible positions, too.
  remembers = False  # Whether it looks at `View.certainty`.
  early_exit = False  # Whether all may be revealed long before the last step.
  final = False  # Whether it chooses unseen, and what it reveals stays as it is.

  def start(
    self, keys: jax.Array, masked: jax.Array, schedule: Schedule, num_steps: int
  ) -> Plan:
    """What is drawn before the loop; `keys` [B] are consumed, `masked` bool [B, L]."""
    del keys
    return _plan(masked, schedule, num_steps)


@dataclasses.dataclass(frozen=True)
class Ancestral(_Strategy):
  """The reverse process of the masked diffusion (MDLM, arXiv 2406.07524).

  A position masked at t is revealed by s with probability
  (alpha_s - alpha_t) / (1 - alpha_t), so the step of its revealing has the law
  alpha_s - alpha_t: it is drawn before the loop, by one uniform number.
  """

  final = True

  def start(self, keys, masked, schedule, num_steps):
    """See `_Strategy.start`."""
    plan = _plan(masked, schedule, num_steps)
    u = _uniform(keys, masked.shape[-1])
    step = jnp.searchsorted(plan.alphas[1:], u, side='right').astype(jnp.int32)
    return plan._replace(reveal_step=step)

  def choose(self, view: View) -> Choice:
    """What was drawn for this step."""
    assert view.plan.reveal_step is not None
    return Choice(view.masked & (view.plan.reveal_step <= view.step))


@dataclasses.dataclass(frozen=True)
class FirstHitting(_Strategy):
  """One token per event, at the exact times of the events (arXiv 2409.02908).

  With n positions masked, the masked fraction at the next event is that of the last
  one times u^(1/n); a position drawn uniformly is revealed. T must be at least the
  number of positions to write, else the last step reveals what is left.
  """

  early_exit = True
  final = True

  def start(self, keys, masked, schedule, num_steps):
    """See `_Strategy.start`; the schedule's own time does not matter, only alpha."""
    both = jax.vmap(jax.random.split)(keys)
    order = _ranks(jnp.where(masked, _uniform(both[:, 0], masked.shape[-1]), -1.0))
    plan = _plan(masked, schedule, num_steps)
    left = jnp.maximum(plan.to_write[:, None] - jnp.arange(num_steps)[None], 1)
    log_masked = jnp.log(_uniform(both[:, 1], num_steps)) / left
    masked_fraction = jnp.exp(jnp.cumsum(log_masked, axis=-1))
    # Noise levels end where those of the schedule begin, at t = 1.
    most = plan.sigmas[0, 0]
    sigmas = jnp.minimum(-jnp.log1p(-masked_fraction), most)
    return plan._replace(reveal_step=order.astype(jnp.int32), sigmas=sigmas.T)

  def choose(self, view: View) -> Choice:
    """The position whose turn it is."""
    return Choice(view.masked & (view.plan.reveal_step == view.step))


@dataclasses.dataclass(frozen=True)
class Joint(_Strategy):
  """Ancestral sampling in one draw over tokens and mask, as MDLM and MD4 code it.

  The draw itself says what is revealed; see `draws.draw_jointly`.
  """

  def choose(self, view: View) -> Choice:
    """Everything masked: the draw may have returned the mask."""
    return Choice(view.masked)


@dataclasses.dataclass(frozen=True)
class MaskGIT(_Strategy):
  """Confidence with a cosine count (arXiv 2202.04200, section 3.2).

  After step r = (i + 1) / T, floor(count cos(pi r / 2)) positions stay masked, at least
  one fewer than before. Confidence is log p of the drawn token plus
  `tau` (1 - r) Gumbel noise.
  """

  tau: float = 4.5
  measure = 'log_prob'

  def choose(self, view: View) -> Choice:
    """The most confident ones."""
    left = view.masked.sum(-1)
    ratio = (view.step + 1) / view.num_steps
    stay = jnp.floor(view.plan.to_write * jnp.cos(jnp.pi / 2 * ratio)).astype(jnp.int32)
    count = jnp.maximum(left - stay, 1)
    shape = view.masked.shape[-1:]
    noise = jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32, 'high'))
    scores = view.measure + self.tau * (1 - ratio) * noise(view.keys)
    return Choice(_best(scores, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Confidence(_Strategy):
  """A fixed count per step, the most confident first (LLaDA, arXiv 2502.09992).

  Of n positions, n // T are revealed per step and one more in the first n % T steps.
  LLaDA's own measure is 'log_prob' of the drawn token, at temperature 1 whatever the
  temperature of the draw.
  """

  measure: str = 'log_prob'

  def choose(self, view: View) -> Choice:
    """The most confident ones."""
    total, steps = view.plan.to_write, view.num_steps
    count = total // steps + (view.step < total % steps)
    return Choice(_best(view.measure, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Dream(_Strategy):
  """Dream's rules (arXiv 2508.15487, `generation_utils.py`).

  With times t falling evenly from 1 to `eps`, floor(masked (1 - s / t)) positions are
  revealed. The measure sees temperature and top-p: 'log_prob' is `maskgit_plus`,
  'margin' `topk_margin`, 'entropy' `entropy`. Above 0, `alg_temp` draws the positions
  with probabilities proportional to exp(measure / alg_temp) without replacement.
  """

  measure: str = 'entropy'
  alg_temp: float = 0.0
  eps: float = 1e-3
  shaped = True

  def choose(self, view: View) -> Choice:
    """The most confident ones, or a draw by confidence."""
    t, s = (1 - (1 - self.eps) * (view.step + i) / view.num_steps for i in (0, 1))
    count = jnp.floor(view.masked.sum(-1) * (1 - s / t)).astype(jnp.int32)
    scores = view.measure
    if self.measure == 'log_prob':
      scores = jnp.exp(scores)
    if self.alg_temp > 0:
      shape = view.masked.shape[-1:]
      noise = jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32, 'high'))
      # Gumbel top-k: a draw without replacement.
      scores = scores / self.alg_temp + noise(view.keys)
    return Choice(_best(scores, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Threshold(_Strategy):
  """All whose probability reaches `tau`, at least one (Fast-dLLM, arXiv 2505.22618)."""

  tau: float = 0.9
  measure = 'log_prob'
  early_exit = True

  def choose(self, view: View) -> Choice:
    """The sure ones, and the surest."""
    sure = view.masked & (jnp.exp(view.measure) >= self.tau)
    one = jnp.ones(len(sure), jnp.int32)
    return Choice(sure | _best(view.measure, view.masked, one))


@dataclasses.dataclass(frozen=True)
class Factor(_Strategy):
  """Fast-dLLM's factor rule (arXiv 2505.22618): more at once, if all are sure.

  In falling order of confidence c_1 >= c_2 ..., as many as satisfy
  c_r >= 1 - f / (r + 1) without a gap; at least one.
  """

  factor: float = 1.0
  measure = 'log_prob'
  early_exit = True

  def choose(self, view: View) -> Choice:
    """The longest run from the surest on."""
    scores = jnp.where(view.masked, jnp.exp(view.measure), -jnp.inf)
    falling = -jnp.sort(-scores, axis=-1)
    rank = jnp.arange(1, scores.shape[-1] + 1)
    enough = falling >= 1 - self.factor / (rank[None] + 1)
    count = jnp.cumprod(enough, axis=-1).sum(-1)
    return Choice(_best(scores, view.masked, jnp.maximum(count, 1)))


@dataclasses.dataclass(frozen=True)
class EntropyBound(_Strategy):
  """As many as keep the joint error small (EB-sampler, arXiv 2505.24857).

  In rising order of entropy, positions are revealed while the sum of the entropies
  before them stays within `bound` nats; the first always is.
  """

  bound: float = 0.1
  measure = 'entropy'
  early_exit = True

  def choose(self, view: View) -> Choice:
    """The longest run from the surest on."""
    entropy = jnp.where(view.masked, -view.measure, jnp.inf)
    rising = jnp.sort(entropy, axis=-1)
    before = jnp.cumsum(rising, axis=-1) - rising
    fits = jnp.isfinite(rising) & (before <= self.bound)
    # The measure can round below zero entropy, which must not undo a first "no".
    count = jnp.cumprod(fits, axis=-1).sum(-1)
    return Choice(_best(-entropy, view.masked, jnp.maximum(count, 1)))


@dataclasses.dataclass(frozen=True)
class ReMDM(_Strategy):
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

  @property
  def remembers(self) -> bool:
    """Only 'conf' looks back."""
    return self.rule == 'conf'

  def start(self, keys, masked, schedule, num_steps):
    """See `_Strategy.start`; 'loop' has alphas and noise levels of its own."""
    del keys
    plan = _plan(masked, schedule, num_steps)
    if self.rule != 'loop':
      return plan
    t = jnp.linspace(1.0, 0.0, num_steps + 1, dtype=jnp.float32)
    early = schedule(jnp.clip((t - self.t_on) / (1 - self.t_on), 0, 1)) * self.alpha_on
    late = schedule(jnp.clip(t / self.t_off, 0, 1)) * (1 - self.alpha_on)
    late = late + self.alpha_on
    alphas = jnp.where(
      t > self.t_on, early, jnp.where(t > self.t_off, self.alpha_on, late)
    )
    alphas = alphas.at[0].set(0.0).at[-1].set(1.0)
    most = plan.sigmas[0, 0]
    sigmas = jnp.minimum(-jnp.log(jnp.maximum(alphas[:-1], 1e-30)), most)
    sigmas = jnp.broadcast_to(sigmas[:, None], plan.sigmas.shape)
    return plan._replace(alphas=alphas, sigmas=sigmas)

  def choose(self, view: View) -> Choice:
    """Two Bernoulli draws: masked to revealed, revealed to masked."""
    alpha_t, alpha_s = view.alpha_t, view.alpha_s
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
    u = _uniform(view.keys, shape[-1])
    return Choice(view.masked & (u < reveal), view.revealed & (u < sigma))

  def _sigma(self, view: View, sigma_max: jax.Array) -> jax.Array:
    if self.rule == 'rescale':
      return self.eta * sigma_max
    if self.rule == 'cap':
      return jnp.minimum(self.eta, sigma_max)
    t, s = (1 - (view.step + i) / view.num_steps for i in (0, 1))
    inside = (t <= self.t_on) & (s > self.t_off)
    return jnp.where(inside, jnp.minimum(self.eta, sigma_max), 0.0)


@dataclasses.dataclass(frozen=True)
class P2(_Strategy):
  """Path planning: every token is judged anew at each step (arXiv 2502.03540).

  Scores are log p of the drawn token at masked positions and `eta` times log p of the
  present token at revealed ones. The floor((1 - alpha_s) count) worst positions are
  masked after the step, whatever they were before.
  """

  eta: float = 1.0
  measure = 'log_prob'
  reads_visible = True

  def choose(self, view: View) -> Choice:
    """All but the worst are revealed."""
    writable = view.masked | view.revealed
    scores = jnp.where(view.masked, view.measure, self.eta * view.measure)
    left = jnp.floor((1 - view.alpha_s) * view.plan.to_write).astype(jnp.int32)
    keep = _best(scores, writable, writable.sum(-1) - left)
    return Choice(view.masked & keep, view.revealed & ~keep)


Strategy = (
  Ancestral
  | FirstHitting
  | Joint
  | MaskGIT
  | Confidence
  | Dream
  | Threshold
  | Factor
  | EntropyBound
  | ReMDM
  | P2
)
