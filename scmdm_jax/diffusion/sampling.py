r"""The reverse sampler: one `lax.scan` whose carry is (tokens, signal).

    x_t, signal --encode--> hidden --readout--> tokens for the positions revealed now
                                          \---> the signal of the next step

Every step makes exactly one denoiser evaluation, with or without self-conditioning.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.masking import reveal_probability
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.schedules import (
  Schedule,
  reverse_alphas,
  reverse_noise_levels,
)


class SamplerState(NamedTuple):
  """What a step hands to the next; nothing of size V."""

  x_t: jax.Array  # int32 [B, L]; mask_id where still hidden.
  signal: jax.Array  # [B, L, D]; the previous clean-state prediction.
  evaluations: jax.Array  # int32 []; denoiser evaluations made so far.


class Samples(NamedTuple):
  """The result of `sample`."""

  tokens: jax.Array  # int32 [B, L]; no position is masked.
  evaluations: jax.Array  # int32 []; per batch, as counted by the loop.
  trajectory: jax.Array | None  # int32 [T, B, L]: tokens after every step.


def initial_state(network: Network, x_init: jax.Array) -> SamplerState:
  """Before the first step: `x_init` int32 [B, L] and the null signal."""
  return SamplerState(x_init, null_signal(network, x_init), jnp.int32(0))


def reverse_step(
  keys: jax.Array,
  state: SamplerState,
  network: Network,
  alpha_t: jax.Array,
  alpha_s: jax.Array,
  sigma: jax.Array,
  *,
  mask_id: int,
  self_condition: bool = True,
  temperature: jax.Array | float = 1.0,
  top_p: float = 1.0,
) -> SamplerState:
  """Moves from time t to s < t.

  Two stages: first which masked positions are revealed (Bernoulli), then which token
  each takes. A joint draw over V and the mask would lose rare tokens to rounding.

  Args:
    keys: [B] typed keys, one per example; consumed.
    state: see `SamplerState`.
    network: see `network.Network`.
    alpha_t: scalar, the visible fraction now.
    alpha_s: scalar, the visible fraction after the step.
    sigma: scalar, the noise level now, for networks that read it.
    mask_id: the mask token.
    self_condition: False leaves the signal null: the vanilla sampler.
    temperature: scalar >= 0 for the drawn token; the carried signal ignores it.
    top_p: in (0, 1]; the carried signal ignores it.
  """
  batch, length = state.x_t.shape
  split = jax.vmap(jax.random.split)(keys)
  key_reveal, key_token = split[:, 0], split[:, 1]

  hidden = network.encode(state.x_t, state.signal, jnp.full((batch,), sigma))
  logits = readout.read_logits(network, hidden, mask_id)

  u = jax.vmap(lambda key: jax.random.uniform(key, (length,)))(key_reveal)
  reveal = (state.x_t == mask_id) & (u < reveal_probability(alpha_t, alpha_s))
  tokens = readout.draw_tokens(key_token, logits, temperature, top_p)
  signal = readout.read_signal(network, logits) if self_condition else state.signal
  return SamplerState(
    jnp.where(reveal, tokens, state.x_t), signal, state.evaluations + 1
  )


def sample(
  keys: jax.Array,
  network: Network,
  x_init: jax.Array,
  *,
  schedule: Schedule,
  mask_id: int,
  num_steps: int,
  self_condition: bool = True,
  temperature: jax.Array | float = 1.0,
  top_p: float = 1.0,
  keep_trajectory: bool = False,
) -> Samples:
  """Ancestral sampling in `num_steps` steps (MDLM, section 3; SCMDM, arXiv 2604.26985).

  Args:
    keys: [B] typed keys, one per example; consumed. An example depends on its own key
      only, never on its neighbours in the batch.
    network: see `network.Network`.
    x_init: int32 [B, L]; `mask_id` where a token is wanted. Other tokens never change.
    schedule: see `schedules`; fixes the fraction visible after each step.
    mask_id: the mask token; never sampled.
    num_steps: T >= 1 denoiser evaluations.
    self_condition: whether each prediction is the next step's signal.
    temperature: scalar >= 0; may be traced. Shapes drawn tokens, not the signal.
    top_p: in (0, 1]; shapes drawn tokens, not the signal.
    keep_trajectory: also return the tokens after every step.
  """
  chex.assert_rank([keys, x_init], [1, 2])
  chex.assert_equal_shape_prefix([keys, x_init], 1)
  chex.assert_type(x_init, jnp.int32)
  alphas = reverse_alphas(schedule, num_steps)

  def step(state, inputs):
    i, alpha_t, alpha_s, sigma = inputs
    state = reverse_step(
      jax.vmap(jax.random.fold_in, (0, None))(keys, i),
      state,
      network,
      alpha_t,
      alpha_s,
      sigma,
      mask_id=mask_id,
      self_condition=self_condition,
      temperature=temperature,
      top_p=top_p,
    )
    return state, state.x_t if keep_trajectory else None

  sigmas = reverse_noise_levels(schedule, num_steps)
  inputs = (jnp.arange(num_steps), alphas[:-1], alphas[1:], sigmas)
  state, trajectory = jax.lax.scan(step, initial_state(network, x_init), inputs)
  return Samples(state.x_t, state.evaluations, trajectory)
