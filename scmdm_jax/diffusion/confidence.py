"""Strategies that reveal what the model is surest of."""

import dataclasses

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.planning import Choice, Strategy, View, best, column
from scmdm_jax.diffusion.readout import MEASURES

_MEASURES = MEASURES[1:]


def _check_measure(measure: str) -> None:
  check(measure in _MEASURES, 'measure', measure, f'one of {", ".join(_MEASURES)}')


def check_from_zero(name: str, value: float) -> None:
  """Raises ValueError unless `value` is a finite number from 0."""
  check(0 <= value < float('inf'), name, value, 'a finite number from 0')


def _gumbel(view: View) -> jax.Array:
  """Draws Gumbel noise, float32 [B, L], by the keys of `view`, which are consumed."""
  shape = view.masked.shape[-1:]
  draw = jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32, 'high'))
  return draw(view.keys)


@dataclasses.dataclass(frozen=True)
class MaskGIT(Strategy):
  """Confidence with a cosine count (arXiv 2202.04200, section 3.2).

  After step r = (i + 1) / T, floor(count cos(pi r / 2)) positions stay masked, at least
  one fewer than before. Confidence is log p of the drawn token plus
  `tau` (1 - r) Gumbel noise.
  """

  tau: float = 4.5
  measure = 'log_prob'

  def __post_init__(self):
    check_from_zero('tau', self.tau)

  def choose(self, view: View) -> Choice:
    """Reveals the most confident positions."""
    left = view.masked.sum(-1)
    ratio = (view.step + 1) / view.num_steps
    stay = jnp.floor(view.plan.to_write * jnp.cos(jnp.pi / 2 * ratio)).astype(jnp.int32)
    count = jnp.maximum(left - stay, 1)
    scores = view.measure + column(self.tau * (1 - ratio)) * _gumbel(view)
    return Choice(best(scores, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Confidence(Strategy):
  """A fixed count per step, the most confident first (LLaDA, arXiv 2502.09992).

  Of n positions, n // T are revealed per step and one more in the first n % T steps.
  LLaDA's own measure is 'log_prob' of the drawn token, at temperature 1 whatever the
  temperature of the draw.
  """

  measure: str = 'log_prob'

  def __post_init__(self):
    _check_measure(self.measure)

  def choose(self, view: View) -> Choice:
    """Reveals the most confident positions."""
    total, steps = view.plan.to_write, view.num_steps
    count = total // steps + (view.step < total % steps)
    return Choice(best(view.measure, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Dream(Strategy):
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

  def __post_init__(self):
    _check_measure(self.measure)
    check_from_zero('alg_temp', self.alg_temp)
    check(0 <= self.eps < 1, 'eps', self.eps, 'a time from 0, below 1')

  def choose(self, view: View) -> Choice:
    """Reveals the most confident positions, or draws them by confidence."""
    t, s = (1 - (1 - self.eps) * (view.step + i) / view.num_steps for i in (0, 1))
    count = jnp.floor(view.masked.sum(-1) * (1 - s / t)).astype(jnp.int32)
    scores = view.measure
    if self.measure == 'log_prob':
      scores = jnp.exp(scores)
    if self.alg_temp > 0:
      # Gumbel top-k: a draw without replacement.
      scores = scores / self.alg_temp + _gumbel(view)
    return Choice(best(scores, view.masked, count))


@dataclasses.dataclass(frozen=True)
class Threshold(Strategy):
  """All whose probability reaches `tau`, at least one (Fast-dLLM, arXiv 2505.22618)."""

  tau: float = 0.9
  measure = 'log_prob'
  early_exit = True

  def __post_init__(self):
    check_from_zero('tau', self.tau)

  def choose(self, view: View) -> Choice:
    """Reveals the sure positions, and the surest."""
    sure = view.masked & (jnp.exp(view.measure) >= self.tau)
    one = jnp.ones(len(sure), jnp.int32)
    return Choice(sure | best(view.measure, view.masked, one))


@dataclasses.dataclass(frozen=True)
class Edit(Strategy):
  """`Threshold` that corrects itself: LLaDA2.1's token editing (arXiv 2602.08676).

  A token that stands already is replaced where the present prediction has another one
  whose probability reaches `edit`. It ends once nothing is masked and a step changed
  nothing. Models that were trained on masked positions only predict less well there.
  """

  tau: float = 0.9
  edit: float = 0.9
  measure = 'log_prob'
  reads_visible = True
  early_exit = True
  edits = True

  def __post_init__(self):
    check_from_zero('tau', self.tau)
    check_from_zero('edit', self.edit)

  def choose(self, view: View) -> Choice:
    """Reveals as `Threshold` does, and replaces what another token is surer for."""
    reveal = Threshold(self.tau).choose(view).reveal
    return Choice(reveal, edit=view.revealed & (jnp.exp(view.measure) >= self.edit))


@dataclasses.dataclass(frozen=True)
class Factor(Strategy):
  """Fast-dLLM's factor rule (arXiv 2505.22618): more at once, if all are sure.

  In falling order of confidence c_1 >= c_2 ..., as many as satisfy
  c_r >= 1 - f / (r + 1) without a gap; at least one.
  """

  factor: float = 1.0
  measure = 'log_prob'
  early_exit = True

  def __post_init__(self):
    check_from_zero('factor', self.factor)

  def choose(self, view: View) -> Choice:
    """Reveals the longest run from the surest position on."""
    scores = jnp.where(view.masked, jnp.exp(view.measure), -jnp.inf)
    falling = -jnp.sort(-scores, axis=-1)
    rank = jnp.arange(1, scores.shape[-1] + 1)
    enough = falling >= 1 - self.factor / (rank[None] + 1)
    count = jnp.cumprod(enough, axis=-1).sum(-1)
    return Choice(best(scores, view.masked, jnp.maximum(count, 1)))


@dataclasses.dataclass(frozen=True)
class EntropyBound(Strategy):
  """As many as keep the joint error small (EB-sampler, arXiv 2505.24857).

  In rising order of entropy, positions are revealed while the sum of the entropies
  before them stays within `bound` nats; the first always is.
  """

  bound: float = 0.1
  measure = 'entropy'
  early_exit = True

  def __post_init__(self):
    check_from_zero('bound', self.bound)

  def choose(self, view: View) -> Choice:
    """Reveals the longest run from the surest position on."""
    entropy = jnp.where(view.masked, -view.measure, jnp.inf)
    rising = jnp.sort(entropy, axis=-1)
    before = jnp.cumsum(rising, axis=-1) - rising
    fits = jnp.isfinite(rising) & (before <= self.bound)
    # The measure can round below zero entropy, which must not undo a first "no".
    count = jnp.cumprod(fits, axis=-1).sum(-1)
    return Choice(best(-entropy, view.masked, jnp.maximum(count, 1)))
