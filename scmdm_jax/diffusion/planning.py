"""Which masked positions a step reveals, and which revealed ones it masks or replaces.

A strategy is a frozen dataclass, so it can be a static argument, with three parts:

* `measure` and `shaped`: what it must know of the prediction (`readout.MEASURES`). With
  '' it looks at no prediction: `choose` is called first, and a vanilla model is then
  read only where something is revealed.
* `start`: what is drawn or fixed before the loop.
* `choose`: the decision of one step, a pure function of a `View`.

The last step reveals whatever is left, whatever the strategy: no sample has a mask.
Legend: `B` batch, `L` length, `T` steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.schedules import Schedule, chain_alpha, noise_level


class Steps(NamedTuple):
  """Numbers of steps of examples that each have their own."""

  own: jax.Array  # int32 [B], from 1 to `most`.
  most: int  # T.
  even: int  # The number without a prompt.


class Plan(NamedTuple):
  """What is known before the first step.

  With `Steps` an example's alphas end after its own steps; the last is repeated.
  """

  alphas: jax.Array  # float32 [T + 1], or with `Steps` [T + 1, B]; from 0 up to 1.
  sigmas: jax.Array  # float32 [T, B], noise levels for time-conditioned networks.
  to_write: jax.Array  # int32 [B], positions to write.
  reveal_step: jax.Array | None = None  # int32 [B, L], of strategies that draw it.
  steps: jax.Array | None = None  # int32 [B], with `Steps` an example's own.

  def at(self, name: str, step: jax.Array) -> jax.Array:
    """Returns the row `step` of a field, or row `step` [B] of every example, [B]."""
    values = getattr(self, name)
    if jnp.ndim(step) == 0:
      return values[step]
    return jnp.take_along_axis(values, step[None], axis=0)[0]

  def of(self, order: jax.Array) -> 'Plan':
    """Returns the plan of the examples `order` int32 [N]."""
    return Plan(
      self.alphas[:, order] if self.alphas.ndim > 1 else self.alphas,
      self.sigmas[:, order],
      self.to_write[order],
      None if self.reveal_step is None else self.reveal_step[order],
      None if self.steps is None else self.steps[order],
    )


class View(NamedTuple):
  """What a strategy may look at in one step."""

  keys: jax.Array  # [B] typed keys of this step; consumed.
  step: jax.Array  # int32 [], from 0; with `Steps` [B].
  num_steps: int | jax.Array  # T; with `Steps` int32 [B], an example's own.
  plan: Plan
  masked: jax.Array  # bool [B, L]: what may be revealed.
  revealed: jax.Array  # bool [B, L]: what may be masked again; never the prompt.
  measure: jax.Array  # float32 [B, L]: of the prediction; larger is more certain.
  certainty: jax.Array  # float32 [B, L]: log-probability at the time of revealing.

  @property
  def alpha_t(self) -> jax.Array:
    """Fraction visible before this step, float32 as `step`."""
    return self.plan.at('alphas', self.step)

  @property
  def alpha_s(self) -> jax.Array:
    """Fraction visible after this step, float32 as `step`."""
    return self.plan.at('alphas', self.step + 1)


class Choice(NamedTuple):
  """The decision of a step."""

  reveal: jax.Array  # bool [B, L]; within `View.masked`.
  remask: jax.Array | None = None  # bool [B, L]; within `View.revealed`.
  edit: jax.Array | None = None  # bool [B, L]; likewise, with `Strategy.edits`.


def most_steps(num_steps: int | Steps) -> int:
  """Returns T."""
  return num_steps.most if isinstance(num_steps, Steps) else num_steps


def at_times(
  num_steps: int | Steps, values: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """Returns `values` of evenly spaced times from 1 to 0, float32 [T + 1] or [T + 1, B].

  `values` is elementwise. After an example's own steps its time stays 0. Those of
  `Steps.even` are what that number alone gives, to the bit.
  """
  if not isinstance(num_steps, Steps):
    return values(jnp.linspace(1.0, 0.0, num_steps + 1)).astype(jnp.float32)
  own, most, even = num_steps.own[None], num_steps.most, num_steps.even
  steps = jnp.arange(most + 1, dtype=jnp.int32)[:, None]
  times = (1 - jnp.minimum(steps, own) / own).astype(jnp.float32)
  alone = jnp.pad(at_times(even, values), (0, most - even), mode='edge')
  return jnp.where(own == even, alone[:, None], values(times).astype(jnp.float32))


def per_example(values: jax.Array, batch: int) -> jax.Array:
  """Returns `values` [T] or [T, B] as [T, B]."""
  return jnp.broadcast_to(values.T, (batch, len(values))).T


def column(values: jax.Array) -> jax.Array:
  """Returns `values` [] or [B] so that they go with [B, L], [] or [B, 1]."""
  return values[:, None] if values.ndim else values


def make_plan(masked: jax.Array, schedule: Schedule, num_steps: int | Steps) -> Plan:
  """Returns the plan of evenly spaced times."""
  levels = at_times(num_steps, lambda t: noise_level(schedule, t))[:-1]
  return Plan(
    alphas=at_times(num_steps, lambda t: chain_alpha(schedule, t)),
    sigmas=per_example(levels, len(masked)),
    to_write=masked.sum(-1, dtype=jnp.int32),
    steps=num_steps.own if isinstance(num_steps, Steps) else None,
  )


def uniform(keys: jax.Array, length: int) -> jax.Array:
  """Draws uniform numbers, float32 [B, length], by `keys` [B], which are consumed."""
  return jax.vmap(lambda key: jax.random.uniform(key, (length,), jnp.float32))(keys)


def ranks_of(scores: jax.Array) -> jax.Array:
  """Ranks every score [B, L] in falling order, int32; ties go by position."""
  return jnp.argsort(jnp.argsort(-scores, axis=-1), axis=-1)


def best(scores: jax.Array, masked: jax.Array, count: jax.Array) -> jax.Array:
  """Picks the `count` [B] best-scored masked positions of an example, bool [B, L]."""
  ranks = ranks_of(jnp.where(masked, scores, -jnp.inf))
  return masked & (ranks < count[:, None])


class Strategy:
  """A strategy that draws nothing before the loop; see the module."""

  measure = ''
  shaped = False
  reads_visible = False  # Whether the measure is wanted at visible positions, too.
  remembers = False  # Whether it looks at `View.certainty`.
  early_exit = False  # Whether all may be revealed long before the last step.
  remasks = False  # Whether it may mask what is revealed.
  edits = False  # Whether it may replace what is revealed by the likeliest token.
  final = False  # Whether it chooses unseen, and what it reveals stays as it is.

  def check_steps(self, num_steps: int, length: int) -> None:
    """Raises ValueError where an example of `length` wants more steps."""

  def start(
    self,
    keys: jax.Array,
    masked: jax.Array,
    schedule: Schedule,
    num_steps: int | Steps,
  ) -> Plan:
    """Returns what is known before the loop.

    Args:
      keys: [B] typed keys; consumed.
      masked: bool [B, L], what is to be written.
      schedule: see `schedules`.
      num_steps: T, or every example's own.
    """
    del keys
    return make_plan(masked, schedule, num_steps)

  def choose(self, view: View) -> Choice:
    """Decides on one step."""
    raise NotImplementedError
