"""The training objective: NELBO of a masked diffusion, conditioned on its own guess.

SCMDM (arXiv 2604.26985): draw t and x_t; a first pass with the null signal predicts
x_0 and is held constant; a second pass at the same x_t takes that prediction as its
signal and carries the loss. `estimates` has other ways to make that prediction.

A network of blocks is trained in one pass, too (BD3LM, arXiv 2503.09573): a clean
example and its noised copy stand side by side, every block has a time of its own, and
noised blocks see themselves and the clean ones before them. The sum over blocks of
their NELBOs bounds the likelihood of what is written block by block.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import noise, readout
from scmdm_jax.diffusion.estimates import (
  SAME_T,
  Estimate,
  earlier_times,
  mixed_signal,
  passes_taken,
)
from scmdm_jax.diffusion.masking import mask_tokens, per_position
from scmdm_jax.diffusion.network import (
  Network,
  Pairs,
  encode,
  null_signal,
  number_of_blocks,
  pairs_of,
)
from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.diffusion.schedules import (
  Schedule,
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
  mask: Any = None,
) -> jax.Array:
  """Returns -log p(x_0 | x_t, signal) where masked, 0 elsewhere, float32 [B, L].

  Args:
    network: see `network.Network`.
    x_t: int32 [B, L] partly masked tokens, with `Pairs` int32 [B, 2 L].
    x_0: int32 [B, L], the clean ones.
    signal: [B, L, D], or [B, 2 L, D].
    sigma: float32 [B] noise levels.
    mask_id: the mask token.
    mask: see `noise.Batch`.
  """
  hidden = encode(network, x_t, signal, sigma, mask)
  if isinstance(network, Pairs):
    hidden, x_t = (x[:, x_0.shape[1] :] for x in (hidden, x_t))
  return readout.read_nll(network, hidden, x_0, x_t == mask_id, mask_id)


def diffusion_loss(
  key: jax.Array,
  network: Network,
  frozen: Network,
  batch: Batch,
  *,
  schedule: Schedule,
  mask_id: int,
  rate: float,
  shown: float = 0.0,
  estimate: Estimate = SAME_T,
) -> jax.Array:
  """Returns an estimate of the continuous-time NELBO in nats per token, float32 [].

  Of an example it is w(t) / N times the sum over masked positions of -log p(x_0 | x_t,
  c) with w(t) = -alpha'(t) / (1 - alpha(t)), t spread evenly over the batch (MDLM,
  equation 10), and c the signal of `mixed_signal`; the loss is the mean over the batch.
  N counts the positions that may be masked: all L, or the example's targets. With the
  log-linear schedule w(t) = 1/t, and with the answers as targets this is LLaDA's loss
  of supervised fine-tuning (arXiv 2502.09992, its GUIDELINES.md): a masked token's loss
  over its probability of being masked and over the length of its answer, summed, over
  B. An example without a target adds zero. With blocks each has its own t and w(t). It
  has nine parameters, because each is a choice of its own that a caller makes.

  Args:
    key: the root key: the noise of an example follows from it, the epoch and which
      example it is, as `noise` says.
    network: the denoiser with live parameters.
    frozen: the same with `stop_gradient` parameters, for the first pass.
    batch: the examples.
    schedule: see `schedules`.
    mask_id: the mask token.
    rate: lambda in [0, 1], the share of conditioned examples; static. 0 is vanilla
      training, 1 the paper's default.
    shown: the expected share of examples whose first token, a class, is visible at
      every time; static. It is masked like any other in the rest, so that where all
      else is masked, it is visible in a vanishing share of those: a sampler, which
      begins just there, is then not taught what the class says.
    estimate: how the prediction that conditions is made; static.
  """
  x_0 = batch.tokens
  chex.assert_rank(x_0, 2)
  key_t, key_mask, key_rate, key_gap, key_shown = jax.random.split(key, 5)
  blocks = number_of_blocks(network.block_length, x_0.shape[1])
  t = noise.times(key_t, batch, T_MIN, blocks)
  threshold = noise.thresholds(key_mask, batch)
  if shown:
    keys = noise.example_keys(key_shown, batch)
    given = jax.vmap(lambda k: jax.random.bernoulli(k, shown))(keys)
    is_first = (jnp.arange(x_0.shape[1]) == 0)[None]
    threshold = jnp.where(given[:, None] & is_first, -1, threshold)

  def noised(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masks at a time what is masked at all later ones, too."""
    x = mask_tokens(threshold, x_0, schedule(t), mask_id, batch.target)
    if blocks == 1:
      return x, noise_level(schedule, t)
    return beside_clean(x_0, x), jnp.zeros(len(x))

  if blocks > 1:
    network, frozen = pairs_of(network), pairs_of(frozen)
  x_t, sigma = noised(t)
  signal = null_signal(network, x_t)
  if rate:
    taken = passes_taken(key_rate, batch, rate, estimate.passes)
    passes = [(x_t, sigma)] * estimate.passes
    if estimate.high:
      gap_keys = noise.example_keys(key_gap, batch)
      passes = [noised(s) for s in earlier_times(gap_keys, t, taken, estimate)]
    signal = mixed_signal(network, frozen, passes, mask_id, taken, rate, batch.mask)
  nll = masked_nll(network, x_t, x_0, signal, sigma, mask_id, batch.mask)
  weight = nelbo_weight(schedule, t)
  if batch.target is None:
    return jnp.mean(per_position(weight, x_0.shape[1]) * nll)
  targets = jnp.maximum(batch.target.sum(-1), 1)
  return jnp.mean(over_blocks(weight, nll) / targets)


def over_blocks(weight: jax.Array, nll: jax.Array) -> jax.Array:
  """Returns the sum of `nll` [B, L], [B]; `weight` is [B], or [B, K] of its blocks."""
  if weight.ndim == 1:
    return weight * nll.sum(-1)
  return (weight * nll.reshape(*weight.shape, -1).sum(-1)).sum(-1)


def beside_clean(x_0: jax.Array, x_t: jax.Array) -> jax.Array:
  """Returns clean and noised examples [B, L] side by side, as `Pairs` has them."""
  return jnp.concatenate([x_0, x_t], axis=1)
