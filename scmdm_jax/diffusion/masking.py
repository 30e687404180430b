"""The masked forward process and the SUBS parameterization (MDLM, arXiv 2406.07524)."""

import jax
import jax.numpy as jnp

# Finite, so that a banned token keeps probability zero without -inf + inf = NaN.
BANNED = -1e30


def mask_tokens(
  threshold: jax.Array,
  x_0: jax.Array,
  alpha: jax.Array,
  mask_id: int,
  target: jax.Array | None = None,
) -> jax.Array:
  """Masks each token with probability 1 - alpha, each alone; returns x_t int32 [B, L].

  Args:
    threshold: float32 [B, L], uniform in [0, 1): a token is visible where alpha is
      above it, so that what is masked at a time is masked at all later ones, too.
    x_0: int32 [B, L].
    alpha: float32 [B], or [B, K] where each of K equal blocks has its own.
    mask_id: the mask token.
    target: bool [B, L]; other positions are always visible. None: there are none.
  """
  masked = threshold >= per_position(alpha, x_0.shape[1])
  if target is not None:
    masked &= target
  return jnp.where(masked, mask_id, x_0)


def per_position(values: jax.Array, length: int) -> jax.Array:
  """Returns `values` [B] or [B, K], of examples or their K blocks, as [B, 1 or L]."""
  if values.ndim == 1:
    return values[:, None]
  return jnp.repeat(values, length // values.shape[1], axis=1)


def reveal_probability(alpha_t: jax.Array, alpha_s: jax.Array) -> jax.Array:
  """Returns (alpha_s - alpha_t) / (1 - alpha_t): P(masked at t is visible at s < t).

  The posterior q(x_s | x_t, x_0) puts this on x_0 and the rest on the mask. At
  alpha_t = 1 nothing is masked; the answer there is 1.
  """
  left = 1 - alpha_t
  safe = jnp.where(left > 0, left, 1.0)
  return jnp.where(left > 0, (alpha_s - alpha_t) / safe, 1.0)


def clean_logits(logits: jax.Array, mask_id: int) -> jax.Array:
  """Returns scores over clean tokens: float32 [..., V] with the mask column banned."""
  columns = jnp.arange(logits.shape[-1])
  return jnp.where(columns == mask_id, BANNED, logits.astype(jnp.float32))


def subs_log_probs(logits: jax.Array, x_t: jax.Array, mask_id: int) -> jax.Array:
  """Returns SUBS log-probabilities of `x_0`, float32 [B, L, V], of raw `logits`.

  The mask has probability zero, and a visible position of `x_t` int32 [B, L] is certain
  of its token (`BANNED` elsewhere).
  """
  log_probs = jax.nn.log_softmax(clean_logits(logits, mask_id), axis=-1)
  known = jax.nn.one_hot(x_t, logits.shape[-1], dtype=bool)
  certain = jnp.where(known, 0.0, BANNED)
  return jnp.where((x_t == mask_id)[..., None], log_probs, certain)
