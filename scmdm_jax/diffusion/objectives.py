"""The training objective: NELBO of a masked diffusion, conditioned on its own guess.

SCMDM (arXiv 2604.26985): draw t and x_t; a first pass with the null signal predicts
x_0 and is held constant; a second pass at the same x_t takes that prediction as its
signal and carries the loss.
"""

import math

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.masking import mask_tokens
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.schedules import (
  Schedule,
  antithetic_times,
  nelbo_weight,
  noise_level,
)

# Times below this are not trained on: their weight is large and little is masked.
T_MIN = 1e-3


def masked_nll(
  network: Network,
  x_t: jax.Array,
  x_0: jax.Array,
  signal: jax.Array,
  sigma: jax.Array,
  mask_id: int,
) -> jax.Array:
  """Returns -log p(x_0 | x_t, signal) where masked, 0 elsewhere, float32 [B, L].

  Args:
    network: see `network.Network`.
    x_t: int32 [B, L] partly masked tokens; `x_0` int32 [B, L] the clean ones.
    x_0: see `x_t`.
    signal: [B, L, D].
    sigma: float32 [B] noise levels.
    mask_id: the mask token.
  """
  hidden = network.encode(x_t, signal, sigma)
  return readout.read_nll(network, hidden, x_0, x_t == mask_id, mask_id)


def predict_signal(
  network: Network,
  frozen: Network,
  x_t: jax.Array,
  signal: jax.Array,
  sigma: jax.Array,
  mask_id: int,
) -> jax.Array:
  """Evaluates at `x_t` under `signal`; returns the signal of the next, [B, L, D].

  The prediction comes from `frozen` (the same network with constant parameters), so it
  needs no gradient buffers; only a signal table of `network`'s own can learn from it.
  """
  hidden = frozen.encode(x_t, signal, sigma)
  return readout.read_prediction(network, frozen, hidden, x_t == mask_id, mask_id)


def mixed_signal(
  key: jax.Array,
  network: Network,
  frozen: Network,
  x_t: jax.Array,
  sigma: jax.Array,
  mask_id: int,
  rate: float,
) -> jax.Array:
  """Returns the signal of a training batch, `rate` of it conditioned, [B, L, D].

  The first ceil(rate B) examples get a first pass, the rest the null signal, and no
  work is spent on them; a fractional last example is conditioned with the probability
  that makes the expected share exactly `rate`. Examples and times arrive in random
  order, so which come first carries no information. With shards this holds of each, so
  that all have the same work. The key is consumed.
  """
  shards = network.placement.batch_shards
  wanted = round(rate * x_t.shape[0] / shards, 6)
  count = math.ceil(wanted)
  null = null_signal(network, x_t)
  if count == 0:
    return null

  def split(x: jax.Array, parts: int) -> jax.Array:
    return x.reshape(parts, -1, *x.shape[1:])

  def first(x: jax.Array) -> jax.Array:
    x = split(x, shards)[:, :count]
    return network.placement.constrain_batch(x.reshape(-1, *x.shape[2:]))

  signal = predict_signal(
    network, frozen, first(x_t), first(null), first(sigma), mask_id
  )
  signal, nothing = split(signal, shards), split(null, shards)
  if count > wanted:
    last = jax.random.bernoulli(key, wanted - (count - 1))
    signal = signal.at[:, -1].set(jnp.where(last, signal[:, -1], nothing[:, -1]))
  signal = jnp.concatenate([signal, nothing[:, count:]], axis=1)
  return network.placement.constrain(signal.reshape(null.shape))


def diffusion_loss(
  key: jax.Array,
  network: Network,
  frozen: Network,
  x_0: jax.Array,
  *,
  schedule: Schedule,
  mask_id: int,
  rate: float,
  shown: float = 0.0,
) -> jax.Array:
  """Returns an estimate of the continuous-time NELBO in nats per token, float32 [].

  E_t[ -alpha'(t) / (1 - alpha(t)) * sum over masked positions of -log p(x_0 | x_t, c) ]
  with stratified t (MDLM, equation 10), where c is the signal of `mixed_signal`.

  Args:
    key: consumed.
    network: the denoiser with live parameters.
    frozen: the same with `stop_gradient` parameters, for the first pass.
    x_0: int32 [B, L].
    schedule: see `schedules`.
    mask_id: the mask token.
    rate: lambda in [0, 1], the share of conditioned examples; static. 0 is vanilla
      training, 1 the paper's default.
    shown: the expected share of examples whose first token, a class, is visible at
      every time; static. It is masked like any other in the rest, so that where all
      else is masked, it is visible in a vanishing share of those: a sampler, which
      begins just there, is then not taught what the class says.
  """
  chex.assert_rank(x_0, 2)
  key_t, key_mask, key_rate = jax.random.split(key, 3)
  t = antithetic_times(key_t, x_0.shape[0], T_MIN)
  x_t = mask_tokens(key_mask, x_0, schedule(t), mask_id)
  if shown:
    given = jax.random.bernoulli(jax.random.fold_in(key_mask, 1), shown, t.shape)
    x_t = x_t.at[:, 0].set(jnp.where(given, x_0[:, 0], x_t[:, 0]))
  sigma = noise_level(schedule, t)
  signal = mixed_signal(key_rate, network, frozen, x_t, sigma, mask_id, rate)
  nll = masked_nll(network, x_t, x_0, signal, sigma, mask_id)
  return jnp.mean(nelbo_weight(schedule, t)[:, None] * nll)
