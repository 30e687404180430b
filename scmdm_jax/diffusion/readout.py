"""The one place where hidden states become decisions: tokens and the next signal."""

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.masking import BANNED, clean_logits
from scmdm_jax.diffusion.network import Network


def read_logits(network: Network, hidden: jax.Array, mask_id: int) -> jax.Array:
  """Scores over clean tokens, float32 [B, L, V], from hidden states [B, L, D]."""
  return clean_logits(network.logits(hidden), mask_id)


def read_signal(network: Network, logits: jax.Array) -> jax.Array:
  """The signal [B, L, D] of a prediction given by clean `logits` [B, L, V].

  Always the model's own distribution, before carry-over, temperature or top-p: that is
  what training shows the network. No gradient flows into the prediction.
  """
  probs = jax.lax.stop_gradient(jax.nn.softmax(logits, axis=-1))
  return network.signal(probs)


def keep_nucleus(logits: jax.Array, top_p: float) -> jax.Array:
  """Bans all but the most probable tokens that together reach `top_p`; [..., V].

  The token that crosses `top_p` stays (nucleus sampling, arXiv 1904.09751), so at least
  one always does.
  """
  order = jnp.argsort(-logits, axis=-1)
  probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
  before = jnp.cumsum(probs, axis=-1) - probs
  keep = jnp.take_along_axis(before < top_p, jnp.argsort(order, axis=-1), axis=-1)
  return jnp.where(keep, logits, BANNED)


def draw_tokens(
  keys: jax.Array,
  logits: jax.Array,
  temperature: jax.Array | float = 1.0,
  top_p: float = 1.0,
) -> jax.Array:
  """Draws a token per position, int32 [B, L], with one key per example.

  Gumbel-max as argmax(logits + temperature * noise): temperature 0 is greedy, and no
  division is needed. Noise is float32 in `mode='high'`: the default mode never draws
  tokens below about 1e-7.

  Args:
    keys: [B] typed keys; consumed.
    logits: float32 [B, L, V] clean scores.
    temperature: scalar, >= 0; may be traced.
    top_p: in (0, 1]; static. Applied after the temperature.
  """
  if top_p < 1:
    scaled = logits / jnp.maximum(temperature, 1e-6)
    logits = jnp.where(keep_nucleus(scaled, top_p) > BANNED, logits, BANNED)
  shape = logits.shape[1:]
  noise = jax.vmap(lambda key: jax.random.gumbel(key, shape, mode='high'))(keys)
  return jnp.argmax(logits + temperature * noise, axis=-1).astype(jnp.int32)
