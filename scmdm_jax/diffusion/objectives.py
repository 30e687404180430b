"""The training objective: NELBO of a masked diffusion, conditioned on its own guess.

SCMDM (arXiv 2604.26985): draw t and x_t; a first pass with the null signal predicts
x_0 and is held constant; a second pass at the same x_t takes that prediction as its
signal and carries the loss. `estimates` has other ways to make that prediction.

A network of blocks is trained in one pass per evaluation, too (BD3LM, arXiv
2503.09573): a clean example and its noised copy stand side by side, every block has a
time of its own, and noised blocks see themselves and the clean ones before them. The
sum over blocks of their NELBOs bounds the likelihood of blocks written left to right.
"""

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.estimates import (
  SAME_T,
  Estimate,
  earlier_times,
  mixed_signal,
  passes_taken,
)
from scmdm_jax.diffusion.masking import mask_tokens, per_position
from scmdm_jax.diffusion.network import Network, Pairs, number_of_blocks, pairs_of
from scmdm_jax.diffusion.schedules import (
  Schedule,
  block_times,
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
    x_t: int32 [B, L] partly masked tokens, with `Pairs` int32 [B, 2 L].
    x_0: int32 [B, L], the clean ones.
    signal: [B, L, D], or [B, 2 L, D].
    sigma: float32 [B] noise levels.
    mask_id: the mask token.
  """
  hidden = network.encode(x_t, signal, sigma)
  if isinstance(network, Pairs):
    hidden, x_t = (x[:, x_0.shape[1] :] for x in (hidden, x_t))
  return readout.read_nll(network, hidden, x_0, x_t == mask_id, mask_id)


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
  estimate: Estimate = SAME_T,
) -> jax.Array:
  """Returns an estimate of the continuous-time NELBO in nats per token, float32 [].

  With blocks every one has its own t.

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
    estimate: how the prediction that conditions is made; static.
  """
  chex.assert_rank(x_0, 2)
  key_t, key_mask, key_rate = jax.random.split(key, 3)
  blocks = number_of_blocks(network, x_0.shape[1])
  t = block_times(key_t, len(x_0), blocks, T_MIN)
  given = None
  if shown:
    chance = jax.random.fold_in(key_mask, 1)
    given = jax.random.bernoulli(chance, shown, (len(x_0),))

  def noised(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masks at a time what is masked at all later ones, too."""
    x = mask_tokens(key_mask, x_0, schedule(t), mask_id)
    if given is not None:
      x = x.at[:, 0].set(jnp.where(given, x_0[:, 0], x[:, 0]))
    if blocks == 1:
      return x, noise_level(schedule, t)
    return beside_clean(x_0, x), jnp.zeros(len(x))

  if blocks > 1:
    network, frozen = pairs_of(network), pairs_of(frozen)
  x_t, sigma = noised(t)
  earlier = []
  if estimate.high and rate:
    shards = network.placement.batch_shards
    taken = passes_taken(key_rate, len(x_0), shards, rate, estimate.passes)
    key_gap = jax.random.fold_in(key_rate, 1)
    earlier = [noised(s) for s in earlier_times(key_gap, t, taken, estimate)]
  signal = mixed_signal(
    key_rate, network, frozen, x_t, sigma, mask_id, rate, estimate.passes, earlier
  )
  nll = masked_nll(network, x_t, x_0, signal, sigma, mask_id)
  return jnp.mean(per_position(nelbo_weight(schedule, t), x_0.shape[1]) * nll)


def beside_clean(x_0: jax.Array, x_t: jax.Array) -> jax.Array:
  """Returns clean and noised examples [B, L] side by side, as `Pairs` has them."""
  return jnp.concatenate([x_0, x_t], axis=1)
