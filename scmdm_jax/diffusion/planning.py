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


def make_plan(
  masked: jax.Array, schedule: Schedule, num_steps: int, **more: jax.Array
) -> Plan:
  """Returns the plan of evenly spaced times, with `more` of its fields."""
  levels = reverse_noise_levels(schedule, num_steps)
  values: dict[str, Any] = {
    'alphas': reverse_alphas(schedule, num_steps).astype(jnp.float32),
    'sigmas': jnp.broadcast_to(
      levels[:, None].astype(jnp.float32), (num_steps, len(masked))
    ),
    'to_write': masked.sum(-1, dtype=jnp.int32),
  }
  return Plan(**values | more)


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
  final = False  # Whether it chooses unseen, and what it reveals stays as it is.

  def start(
    self, keys: jax.Array, masked: jax.Array, schedule: Schedule, num_steps: int
  ) -> Plan:
    """Returns what is known before the loop.

    Args:
      keys: [B] typed keys; consumed.
      masked: bool [B, L], what is to be written.
      schedule: see `schedules`.
      num_steps: T.
    """
    del keys
    return make_plan(masked, schedule, num_steps)

  def choose(self, view: View) -> Choice:
    """Decides on one step."""
    raise NotImplementedError
