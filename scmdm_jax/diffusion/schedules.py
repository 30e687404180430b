"""Masking schedules: `alpha(t)`, the probability that a token is still visible.

Everything else about a schedule follows from `alpha` and its derivative. Schedules are
frozen, so they can be static arguments of a jitted function.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.checks import check

# t [...] in [0, 1] -> alpha [...], falling from 1 at t = 0.
Schedule = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class LogLinear:
  """alpha = 1 - (1 - eps) t; MDLM's default (arXiv 2406.07524)."""

  eps: float = 1e-3

  def __post_init__(self):
    check(0 <= self.eps < 1, 'eps', self.eps, 'a number from 0, below 1')

  def __call__(self, t: jax.Array) -> jax.Array:
    """Returns alpha(t), elementwise."""
    return 1 - (1 - self.eps) * t


@dataclasses.dataclass(frozen=True)
class Cosine:
  """alpha = 1 - (1 - eps) cos(pi/2 (1 - t)); MD4 (arXiv 2406.04329)."""

  eps: float = 1e-3

  def __post_init__(self):
    check(0 <= self.eps < 1, 'eps', self.eps, 'a number from 0, below 1')

  def __call__(self, t: jax.Array) -> jax.Array:
    """Returns alpha(t), elementwise."""
    return 1 - (1 - self.eps) * jnp.cos(jnp.pi / 2 * (1 - t))


@dataclasses.dataclass(frozen=True)
class Polynomial:
  """alpha = 1 - (1 - eps) t^power; MD4 (arXiv 2406.04329)."""

  power: float = 2.0
  eps: float = 1e-3

  def __post_init__(self):
    check(0 <= self.eps < 1, 'eps', self.eps, 'a number from 0, below 1')
    check(0 < self.power < float('inf'), 'power', self.power, 'a number above 0')

  def __call__(self, t: jax.Array) -> jax.Array:
    """Returns alpha(t), elementwise."""
    return 1 - (1 - self.eps) * t**self.power


def noise_level(schedule: Schedule, t: jax.Array) -> jax.Array:
  """Returns sigma = -log alpha(t) [...], what time-conditioned networks are given."""
  return -jnp.log(jnp.maximum(schedule(t), jnp.finfo(jnp.float32).tiny))


def nelbo_weight(schedule: Schedule, t: jax.Array) -> jax.Array:
  """Returns -alpha'(t) / (1 - alpha(t)) [...], the NELBO's weight where masked.

  Finite everywhere: at t = 0 nothing is masked, so the weight multiplies an empty sum,
  and a large finite number keeps that product at zero.
  """
  alpha, slope = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
  weight = -slope / jnp.maximum(1 - alpha, 1e-6)
  return jnp.minimum(weight, jnp.finfo(jnp.float32).max)


def chain_alpha(schedule: Schedule, t: jax.Array) -> jax.Array:
  """Returns alpha(t) [...] of a reverse chain: 0 at t = 1, 1 at t = 0.

  The chain starts with every position masked, so its first alpha is 0 whatever the
  schedule's own value at t = 1: the masked fraction at every later time is then exactly
  the forward process's.
  """
  return jnp.where(t >= 1, 0.0, jnp.where(t <= 0, 1.0, schedule(t)))


def reverse_alphas(schedule: Schedule, num_steps: int) -> jax.Array:
  """Returns alpha at the T + 1 times of a reverse chain, float32, rising from 0 to 1.

  Times are evenly spaced from 1 to 0; see `chain_alpha`.
  """
  return chain_alpha(schedule, jnp.linspace(1.0, 0.0, num_steps + 1))


def reverse_noise_levels(schedule: Schedule, num_steps: int) -> jax.Array:
  """Returns noise levels at the first T times of a reverse chain, float32, falling.

  The schedule's own values: at t = 1 too, where the chain's alpha is 0 and -log alpha
  would be a number that no time-conditioned network has seen in training.
  """
  return noise_level(schedule, jnp.linspace(1.0, 0.0, num_steps + 1)[:-1])


def antithetic_times(key: jax.Array, batch: int, t_min: float) -> jax.Array:
  """Draws a time per example, each uniform in its own 1/B slice, float32 [B].

  The slices are dealt to the examples at random, then mapped to [t_min, 1]; MDLM,
  `antithetic_sampling`. The key is consumed.
  """
  key_offset, key_order = jax.random.split(key)
  offset = jax.random.uniform(key_offset, (batch,))
  slices = jax.random.permutation(key_order, batch)
  t = (offset + slices) / batch
  return t_min + (1 - t_min) * t


def block_times(key: jax.Array, batch: int, blocks: int, t_min: float) -> jax.Array:
  """Draws `antithetic_times` of all blocks, float32 [B, K]; [B] where K is 1."""
  t = antithetic_times(key, batch * blocks, t_min)
  return t if blocks == 1 else t.reshape(batch, blocks)
