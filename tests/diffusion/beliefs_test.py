import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import draws, sampling
from scmdm_jax.diffusion.beliefs import replay
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.strategies import FirstHitting, ReMDM
from tests.diffusion import toys

BATCH, STEPS = 6, 4
KEYS = jax.random.split(jax.random.key(5), BATCH)
X_INIT = jnp.full((BATCH, toys.LENGTH), toys.MASK, jnp.int32).at[:, 1].set(2)


def drawn(sampler, temperature=1.0):
  network = toys.network(toys.weights())
  found = sampling.sample(
    KEYS,
    network,
    X_INIT,
    sampler,
    mask_id=toys.MASK,
    temperature=temperature,
    keep_trajectory=True,
  )
  states = jnp.concatenate([X_INIT[None], found.trajectory])
  log_probs = replay(KEYS, network, states, sampler, mask_id=toys.MASK)
  return np.asarray(states), np.asarray(log_probs)


def position_keys(step):
  """The keys of a step's tokens, by the sampler's rule."""

  def of_example(key):
    tokens = jax.random.split(jax.random.fold_in(key, step))[1]
    return [jax.random.fold_in(tokens, i) for i in range(toys.LENGTH)]

  return [of_example(key) for key in KEYS]


@pytest.mark.long
@pytest.mark.parametrize('carried', [True, False])
def test_the_sampler_drew_from_what_is_replayed(carried):
  """The same keys and the replayed prediction give every token of the sampler."""
  states, log_probs = drawn(Sampler(STEPS, self_conditioning=carried))
  count = 0
  for step in range(STEPS):
    keys = position_keys(step)
    new = (states[step] == toys.MASK) & (states[step + 1] != toys.MASK)
    for b, i in zip(*np.nonzero(new), strict=True):
      token = draws.draw_tokens(keys[b][i][None], log_probs[step, b, i][None])
      assert int(token[0]) == states[step + 1, b, i]
      count += 1
  assert count == BATCH * (toys.LENGTH - 1)


@pytest.mark.long
@pytest.mark.parametrize('strategy', [FirstHitting(), ReMDM(rule='loop')])
def test_greedy_tokens_are_the_likeliest(strategy):
  """Where strategies have clocks of their own, or mask again."""
  states, log_probs = drawn(Sampler(STEPS, strategy), temperature=0.0)
  new = (states[:-1] == toys.MASK) & (states[1:] != toys.MASK)
  assert new.sum() >= BATCH * (toys.LENGTH - 1)
  np.testing.assert_array_equal(states[1:][new], log_probs.argmax(-1)[new])


@pytest.mark.long
def test_only_the_carried_prediction_tells_two_runs_apart():
  """The first step sees none, so both believe the same; later ones do not."""
  with_, without = (
    drawn(Sampler(STEPS, self_conditioning=carried))[1] for carried in (True, False)
  )
  np.testing.assert_array_equal(with_[0], without[0])
  assert np.abs(with_[1] - without[1]).max() > 0.1
  np.testing.assert_allclose(np.exp(with_).sum(-1), 1, rtol=1e-5)  # float32


@pytest.mark.parametrize(
  'change', [{'guidance': Guidance(1.0)}, {'block_length': 1}, {'keep_signal': False}]
)
def test_other_samplers_are_refused(change):
  sampler = dataclasses.replace(Sampler(STEPS), **change)
  states = jnp.broadcast_to(X_INIT, (STEPS + 1, *X_INIT.shape))
  with pytest.raises(ValueError, match=next(iter(change))):
    replay(KEYS, toys.network(toys.weights()), states, sampler, mask_id=toys.MASK)
