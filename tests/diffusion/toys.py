"""Tiny networks whose every number a test can recompute with NumPy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

# The mask in the middle of the vocabulary, so that its column is no special place.
VOCAB, MASK, LENGTH, DIM = 7, 3, 5, 4


class Shards(NamedTuple):
  """A placement that counts shards and moves nothing."""

  batch_shards: int = 1
  sequence_shards: int = 1
  vocabulary_shards: int = 1

  def constrain(self, x):
    """Returns `x`."""
    return x

  constrain_batch = constrain_groups = constrain

  def apart(self, function, shared, split, whole):
    """Returns what all groups make together."""
    return function(self, shared, split, whole)


class Toy(NamedTuple):
  """What the method asks of a network."""

  encode: Callable[[Any, Any, Any], Any]
  logits: Callable[[Any], Any]
  signal: Callable[[Any], Any]
  signal_dim: int
  placement: Any = Shards()
  block_length: int = 0
  beside: Any = None
  cached: Any = None
  of: Any = None


def weights(seed=0, vocab=VOCAB, length=LENGTH, dim=DIM, scale=1.0):
  rng = np.random.default_rng(seed)
  shapes = {
    'embed': (vocab, dim),
    'position': (1, length, dim),
    'mix': (dim, dim),
    'inject': (dim, dim),
    'noise': (1, 1, dim),
    'out': (dim, vocab),
    'table': (vocab, dim),
  }
  return {
    name: (scale * rng.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def _encode(xp, w, x_t, signal, sigma):
  """Mixes tokens, positions, their mean, the signal and the noise level."""
  x = w['embed'][x_t]
  context = xp.mean(x, axis=1, keepdims=True) @ w['mix']
  level = xp.tanh(sigma)[:, None, None] * w['noise']
  return xp.tanh(x + context + w['position'] + signal @ w['inject'] + level)


def network(w, on_encode=None, scale=2.0):
  """The toy with JAX; `on_encode` sees the inputs of every call of `encode`."""

  def encode(x_t, signal, sigma):
    if on_encode is not None:
      on_encode(x_t, signal, sigma)
    return _encode(jnp, w, x_t, signal, sigma)

  w = jax.tree.map(jnp.asarray, w)
  return Toy(
    encode,
    Partial(lambda out, hidden: scale * hidden @ out, w['out']),
    Partial(lambda table, probs: probs @ table, w['table']),
    w['table'].shape[-1],
  )


def network_np(w, scale=2.0):
  """The same with NumPy."""
  return Toy(
    lambda x_t, signal, sigma: _encode(np, w, x_t, signal, sigma),
    lambda hidden: scale * hidden @ w['out'],
    lambda probs: probs @ w['table'],
    w['table'].shape[-1],
  )


def fixed_network(probs):
  """Predicts `probs` [V] everywhere, whatever it is shown."""
  log_probs = jnp.log(jnp.asarray(probs, jnp.float32))
  return Toy(
    lambda x_t, signal, sigma: jnp.zeros((*x_t.shape, 1), jnp.float32),
    lambda hidden: jnp.broadcast_to(log_probs, (*hidden.shape[:-1], len(probs))),
    lambda probs: jnp.zeros((*probs.shape[:-1], 1), jnp.float32),
    1,
  )


def softmax_np(logits, mask_id):
  """Probabilities of clean tokens, float64; the mask's is exactly zero."""
  logits = np.array(logits, np.float64)
  logits[..., mask_id] = -np.inf
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def nll_np(probs, x_0):
  """-log of the probability of each token of `x_0`."""
  return -np.log(np.take_along_axis(probs, x_0[..., None], axis=-1)[..., 0])


def clean_tokens(seed, batch, length=LENGTH, vocab=VOCAB, mask_id=MASK):
  rng = np.random.default_rng(seed)
  tokens = [v for v in range(vocab) if v != mask_id]
  return rng.choice(tokens, (batch, length)).astype(np.int32)
