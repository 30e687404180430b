"""What the network believed while a sample was written, for pictures and notebooks.

The compiled sampler keeps nothing of size V. Here its own tokens are read once more, so
that what is shown belongs to what was drawn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.sampling import Sampler


class Likeliest(NamedTuple):
  """What is kept of predictions where all of them are too many.

  Attributes:
    tokens: int32 [..., L], the likeliest of each position.
    probability: float32 [..., L], theirs.
    entropy: float32 [..., L], of the whole prediction, nats.
  """

  tokens: jax.Array
  probability: jax.Array
  entropy: jax.Array


def likeliest(log_probs: jax.Array) -> Likeliest:
  """Returns the likeliest tokens of log p [..., L, V] and how sure the model was."""
  probs = jnp.exp(log_probs)
  terms = jnp.where(probs > 0, probs * log_probs, 0.0)
  return Likeliest(log_probs.argmax(-1), probs.max(-1), -terms.sum(-1))


def obstacle(sampler: Sampler, block_length: int) -> str:
  """Returns why a sampler cannot be replayed, '' if it can.

  Args:
    sampler: any.
    block_length: of the network; 0: it sees both ways.
  """
  if sampler.guidance is not None:
    return f'guidance: {sampler.guidance}; wanted none'
  if sampler.block_length or block_length:
    return f'block_length: {sampler.block_length or block_length}; wanted no blocks'
  if not sampler.keep_signal:
    return 'keep_signal: False; wanted True'
  return ''


def replay(
  keys: jax.Array,
  network: Network,
  states: jax.Array,
  sampler: Sampler,
  *,
  mask_id: int,
  keep: Callable[[jax.Array], Any] = lambda log_probs: log_probs,
) -> Any:
  """Returns log p of every token at every step of a sampler, float32 [T, B, L, V].

  The model's own prediction, before temperature and top-p; at visible positions it says
  nothing. All of it is kept, for a few examples and a small vocabulary, unless `keep`
  makes less of it.

  Args:
    keys: [B] typed keys, those that `sampling.sample` was given.
    network: see `network.Network`.
    states: int32 [T + 1, B, L]: `x_init`, then the trajectory that `sample` returned.
    sampler: the one that wrote them.
    mask_id: the mask token.
    keep: what is kept of a step's log p, float32 [B, L, V], as `likeliest`; the result
      has T of it.

  Raises:
    ValueError: a sampler with guidance, blocks, or `keep_signal=False`, or a network of
      blocks.
  """
  chex.assert_shape(states, (sampler.num_steps + 1, len(keys), None))
  reason = obstacle(sampler, network.block_length)
  if reason:
    raise ValueError(f'such a sampler is not replayed: {reason}')
  starts = jax.vmap(jax.random.fold_in, (0, None))(keys, sampler.num_steps)
  plan = sampler.strategy.start(
    starts, states[0] == mask_id, sampler.schedule, sampler.num_steps
  )

  def step(signal: jax.Array, inputs) -> tuple[jax.Array, jax.Array]:
    x_t, sigma = inputs
    hidden = network.encode(x_t, signal, sigma)
    logits = readout.read_logits(network, hidden, mask_id)
    if sampler.self_conditioning:
      predicted = readout.read_signal(network, logits)
      signal = jnp.where((x_t == mask_id)[..., None], predicted, signal)
    return signal, keep(jax.nn.log_softmax(logits, axis=-1))

  null = null_signal(network, states[0])
  return jax.lax.scan(step, null, (states[:-1], plan.sigmas))[1]
