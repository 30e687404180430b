"""What the network believed while a sample was written, for pictures and notebooks.

The compiled sampler keeps nothing of size V. Here its own tokens are read once more, so
that what is shown belongs to what was drawn.
"""

import chex
import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.network import Network, null_signal
from scmdm_jax.diffusion.sampling import Sampler


def replay(
  keys: jax.Array,
  network: Network,
  states: jax.Array,
  sampler: Sampler,
  *,
  mask_id: int,
) -> jax.Array:
  """Returns log p of every token at every step of a sampler, float32 [T, B, L, V].

  The model's own prediction, before temperature and top-p; at visible positions it says
  nothing. All of it is kept: meant for a few examples and a small vocabulary.

  Args:
    keys: [B] typed keys, those that `sampling.sample` was given.
    network: see `network.Network`.
    states: int32 [T + 1, B, L]: `x_init`, then the trajectory that `sample` returned.
    sampler: the one that wrote them.
    mask_id: the mask token.

  Raises:
    ValueError: a sampler with guidance, blocks, or `keep_signal=False`, or a network of
      blocks.
  """
  chex.assert_shape(states, (sampler.num_steps + 1, len(keys), None))
  wanted = 'the default: only such samplers are replayed'
  check(sampler.guidance is None, 'guidance', sampler.guidance, wanted)
  check(not sampler.block_length, 'block_length', sampler.block_length, wanted)
  blocks = network.block_length
  check(not blocks, 'block_length', blocks, 'a network that sees both ways')
  check(sampler.keep_signal, 'keep_signal', sampler.keep_signal, wanted)
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
    return signal, jax.nn.log_softmax(logits, axis=-1)

  null = null_signal(network, states[0])
  return jax.lax.scan(step, null, (states[:-1], plan.sigmas))[1]
