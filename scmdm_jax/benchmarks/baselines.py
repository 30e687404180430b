"""Vanilla samplers as they are usually written: all scores and all noise, every step.

Same process, same network as `diffusion.sampling`; slower on purpose. Legend: `B`
batch, `L` length, `V` vocabulary with the mask.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.masking import clean_logits, reveal_probability
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.schedules import (
  Schedule,
  reverse_alphas,
  reverse_noise_levels,
)


def vanilla_step(
  network: Network,
  keys: jax.Array,
  x_t: jax.Array,
  alpha_t: jax.Array,
  alpha_s: jax.Array,
  sigma: jax.Array,
  mask_id: int,
) -> jax.Array:
  """One ancestral step with [B, L, V] scores and as many Gumbel numbers.

  Args:
    network: see `diffusion.network`.
    keys: [B] typed keys; consumed.
    x_t: int32 [B, L].
    alpha_t: scalar, the visible fraction now; `alpha_s` after the step.
    alpha_s: see `alpha_t`.
    sigma: scalar, the noise level now.
    mask_id: the mask token.
  """
  batch, length = x_t.shape
  split = jax.vmap(jax.random.split)(keys)
  hidden = network.encode(x_t, null_signal(network, x_t), jnp.full((batch,), sigma))
  logits = clean_logits(network.logits(hidden), mask_id)
  u = jax.vmap(lambda key: jax.random.uniform(key, (length,)))(split[:, 0])
  reveal = (x_t == mask_id) & (u < reveal_probability(alpha_t, alpha_s))
  shape = logits.shape[1:]
  noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(split[:, 1])
  tokens = jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
  return jnp.where(reveal, tokens, x_t)


def scanned(
  keys: jax.Array,
  network: Network,
  x_init: jax.Array,
  schedule: Schedule,
  mask_id: int,
  num_steps: int,
) -> jax.Array:
  """`vanilla_step` in a `lax.scan`; tokens int32 [B, L]."""
  alphas = reverse_alphas(schedule, num_steps)

  def step(x_t, inputs):
    i, alpha_t, alpha_s, sigma = inputs
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
    return vanilla_step(network, step_keys, x_t, alpha_t, alpha_s, sigma, mask_id), None

  levels = reverse_noise_levels(schedule, num_steps)
  inputs = (jnp.arange(num_steps), alphas[:-1], alphas[1:], levels)
  return jax.lax.scan(step, x_init, inputs)[0]


def python_loop(
  step: Callable[..., jax.Array],
  keys: jax.Array,
  x_init: jax.Array,
  schedule: Schedule,
  num_steps: int,
  *,
  wait: bool,
) -> jax.Array:
  """The same chain, one compiled `step(keys, x_t, alpha_t, alpha_s, sigma)` at a time.

  `wait` looks at the tokens after every step, as loops do that print or stop early.
  """
  alphas = reverse_alphas(schedule, num_steps)
  levels = reverse_noise_levels(schedule, num_steps)
  x_t = x_init
  for i in range(num_steps):
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
    x_t = step(step_keys, x_t, alphas[i], alphas[i + 1], levels[i])
    if wait:
      jax.device_get(x_t)
  return x_t
