"""Bounds on the likelihood, three ways: null pass, two passes, carried.

The two-pass NELBO scores a model that evaluates twice per step. The sampler does not:
it carries its prediction along, so what it draws from is history-dependent. The carried
ELBO is the bound for exactly that chain.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.estimates import predict_signal
from scmdm_jax.diffusion.masking import mask_tokens, reveal_probability
from scmdm_jax.diffusion.network import (
  Network,
  encode,
  null_signal,
  number_of_blocks,
  pairs_of,
)
from scmdm_jax.diffusion.objectives import (
  T_MIN,
  beside_clean,
  masked_nll,
  over_blocks,
)
from scmdm_jax.diffusion.schedules import (
  Schedule,
  block_times,
  nelbo_weight,
  noise_level,
  reverse_alphas,
  reverse_noise_levels,
)


def nelbo(
  key: jax.Array,
  network: Network,
  x_0: jax.Array,
  *,
  schedule: Schedule,
  mask_id: int,
  passes: int,
  target: jax.Array | None = None,
  mask: Any = None,
) -> jax.Array:
  """Returns the continuous-time NELBO per example in nats, float32 [B].

  Every example has one time, or each of its blocks, where the network has some; the
  times of a batch are stratified. Of blocks it is the sum over them, each given the
  clean ones before it.

  Times stop at T_MIN and visible tokens at t = 1 go unscored, as in MDLM: with the
  log-linear schedule the figure lies 0.1 % below a strict bound; `carried_nelbo` does
  not.

  Args:
    key: consumed. Equal keys give equal times and masks, whatever the network.
    network: see `network.Network`.
    x_0: int32 [B, L].
    schedule: see `schedules`.
    mask_id: the mask token.
    passes: 1 scores the prediction under the null signal; k > 1 the k-th prediction at
      the same x_t, each given the one before.
    target: bool [B, L], what is masked and scored, given the rest; None: everything.
    mask: see `noise.Batch`.
  """
  chex.assert_rank(x_0, 2)
  key_t, key_mask = jax.random.split(key)
  blocks = number_of_blocks(network.block_length, x_0.shape[1])
  t = block_times(key_t, x_0.shape[0], blocks, T_MIN)
  threshold = jax.random.uniform(key_mask, x_0.shape)
  x_t = mask_tokens(threshold, x_0, schedule(t), mask_id, target)
  sigma = noise_level(schedule, t)
  if blocks > 1:
    network = pairs_of(network)
    x_t, sigma = beside_clean(x_0, x_t), jnp.zeros(len(x_0))
  signal = null_signal(network, x_t)
  for _ in range(passes - 1):
    signal = predict_signal(network, network, x_t, signal, sigma, mask_id, mask)
  nll = masked_nll(network, x_t, x_0, signal, sigma, mask_id, mask)
  return over_blocks(nelbo_weight(schedule, t), nll)


def carried_nelbo(
  key: jax.Array,
  network: Network,
  x_0: jax.Array,
  *,
  schedule: Schedule,
  mask_id: int,
  num_steps: int,
  self_conditioning: bool = True,
  target: jax.Array | None = None,
  mask: Any = None,
) -> jax.Array:
  """Returns the NELBO in nats, float32 [B], of the chain that `sample` runs.

  A forward trajectory x_T, ..., x_1 is drawn; the sum over steps of
  (alpha_s - alpha_t) / (1 - alpha_t) * sum over masked of -log p(x_0 | x_t, c_t) is its
  KL terms, with c_t the prediction carried along it. Times and alphas are the sampler's
  own (`reverse_alphas`), so there is no prior or reconstruction term left. It has nine
  parameters, because each is a choice of its own that a caller makes.

  It has nine parameters, because arrays are no part of what is static.

  Args:
    key: consumed. Equal keys give equal trajectories, whatever the network.
    network: see `network.Network`.
    x_0: int32 [B, L].
    schedule: see `schedules`.
    mask_id: the mask token.
    num_steps: T; of K blocks each has T / K of them, rounded down, but one at least.
    self_conditioning: as in `sample`; False gives the discrete-time vanilla bound.
    target: as for `nelbo`.
    mask: as for `nelbo`.
  """
  chex.assert_rank(x_0, 2)
  blocks = number_of_blocks(network.block_length, x_0.shape[1])
  num_steps = max(num_steps // blocks, 1)
  alphas = reverse_alphas(schedule, num_steps)
  # A token is visible at time t once alpha_t passes its own threshold.
  threshold = jax.random.uniform(key, x_0.shape)

  def step(signal, inputs):
    alpha_t, alpha_s, sigma = inputs
    alpha = jnp.full((x_0.shape[0],), alpha_t)
    x_t = mask_tokens(threshold, x_0, alpha, mask_id, target)
    level = jnp.full((x_0.shape[0],), sigma)
    hidden = _hidden(network, x_0, x_t, (signal, level, mask))
    masked = x_t == mask_id
    if not self_conditioning:
      nll = readout.read_nll(network, hidden, x_0, masked, mask_id)
    else:
      nll, predicted = readout.read_nll_and_signal(
        network, hidden, x_0, masked, mask_id
      )
      signal = jnp.where(masked[..., None], predicted, signal)
    return signal, reveal_probability(alpha_t, alpha_s) * nll.sum(-1)

  inputs = (alphas[:-1], alphas[1:], reverse_noise_levels(schedule, num_steps))
  _, losses = jax.lax.scan(step, null_signal(network, x_0), inputs)
  return losses.sum(0)


def _hidden(
  network: Network,
  x_0: jax.Array,
  x_t: jax.Array,
  rest: tuple[jax.Array, jax.Array, Any],
) -> jax.Array:
  """Returns hidden states [B, L, D] at `x_t`; blocks see clean ones before them.

  `rest` is the signal [B, L, D], the noise levels [B] and the mask of the examples.
  """
  signal, sigma, mask = rest
  length = x_0.shape[1]
  if number_of_blocks(network.block_length, length) == 1:
    return encode(network, x_t, *rest)
  signal = jnp.concatenate([jnp.zeros_like(signal), signal], axis=1)
  rows = beside_clean(x_0, x_t)
  level = jnp.zeros_like(sigma)
  return encode(pairs_of(network), rows, signal, level, mask)[:, length:]
