"""Every strategy through the sampler: what it leaves alone, costs and depends on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  Edit,
  EntropyBound,
  Factor,
  FirstHitting,
  Joint,
  MaskGIT,
  ReMDM,
  Threshold,
)
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys

WEIGHTS = toys.weights(0)
T = 8
EARLY = (FirstHitting(), Threshold(0.3), Edit(0.3, 0.6), Factor(2.5), EntropyBound(1.5))
ALL = (
  Ancestral(),
  Joint(),
  *EARLY,
  MaskGIT(),
  Confidence('margin'),
  Dream('entropy', alg_temp=0.5),
  ReMDM('cap'),
  ReMDM('conf'),
  ReMDM('loop'),
  P2(),
)
calls = []


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


@functools.partial(quick_jit, static_argnums=(2, 3))
def run(keys, x_init, strategy, num_steps):
  network = toys.network(
    WEIGHTS, lambda *_: io_callback(lambda: calls.append(1), None, ordered=True)
  )
  noise = 'low' if isinstance(strategy, Joint) else 'high'
  sampler = Sampler(num_steps, strategy, noise=noise)
  found = sample(keys, network, x_init, sampler, mask_id=toys.MASK, temperature=0.8)
  return found.tokens, found.evaluations


def count_calls(*arguments):
  calls.clear()
  tokens, evaluations = run(*arguments)
  jax.effects_barrier()
  assert len(calls) == evaluations
  return np.asarray(tokens), int(evaluations)


def prompts(seed):
  x_init = toys.clean_tokens(seed, 6)
  x_init[np.random.default_rng(seed + 100).random(x_init.shape) < 0.5] = toys.MASK
  x_init[0] = toys.MASK
  x_init[1] = toys.clean_tokens(seed + 1, 1)
  x_init[2] = x_init[1]
  x_init[2, 3] = toys.MASK
  return x_init


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ALL, ids=str)
def test_every_strategy_keeps_the_promises_of_the_sampler(strategy):
  compilations = run._cache_size()
  x_init, keys = prompts(5), keys_of(6, 6)
  tokens, evaluations = count_calls(keys, x_init, strategy, T)
  visible = x_init != toys.MASK
  assert tokens.dtype == np.int32
  assert np.array_equal(tokens[visible], x_init[visible])
  assert not np.any(tokens == toys.MASK)
  assert np.all((tokens >= 0) & (tokens < toys.VOCAB))
  # What is evaluated is what was said.
  assert strategy.early_exit == (strategy in EARLY)
  if strategy == FirstHitting():
    assert evaluations == toys.LENGTH
  elif isinstance(strategy, Edit):
    assert 2 <= evaluations <= T  # One step more to see that nothing changes.
  elif strategy in EARLY:
    assert 1 <= evaluations < toys.LENGTH
  else:
    assert evaluations == T
  # Nothing to write.
  done = toys.clean_tokens(8, 6)
  kept, evaluations = count_calls(keys, done, strategy, T)
  assert np.array_equal(kept, done)
  assert evaluations == (0 if strategy in EARLY else T)
  # Other neighbours in another order; the two examples are the first and last.
  others = np.roll(prompts(9), 1, axis=0)
  others[[4, 1]] = x_init[[0, 5]]
  mixed = keys_of(10, 6).at[jnp.array([4, 1])].set(keys[jnp.array([0, 5])])
  found, _ = count_calls(mixed, others, strategy, T)
  assert np.array_equal(found[[4, 1]], tokens[[0, 5]])
  assert not np.array_equal(found[[0, 5]], tokens[[0, 5]])
  assert run._cache_size() == compilations + 1


# One of each kind: drawn before the loop, early exit, one that looks back.
@pytest.mark.parametrize('strategy', [FirstHitting(), EntropyBound(1.5), P2()], ids=str)
def test_an_example_alone(strategy):
  x_init, keys = prompts(5), keys_of(6, 6)
  whole, together = count_calls(keys, x_init, strategy, T)
  evaluations = []
  for b in range(6):
    tokens, number = count_calls(keys[b : b + 1], x_init[b : b + 1], strategy, T)
    assert np.array_equal(tokens[0], whole[b])
    evaluations.append(number)
  # A batch takes as long as its slowest example.
  assert max(evaluations) == together
  if strategy.early_exit:
    assert evaluations[1] == 0 and evaluations[2] == 1


@pytest.mark.parametrize(
  ('strategy', 'num_steps'),
  [(FirstHitting(), 3), (Confidence(), 3), (P2(), 1)],
  ids=str,
)
def test_fewer_steps_than_positions(strategy, num_steps):
  x_init = prompts(11)
  tokens, evaluations = count_calls(keys_of(12, 6), x_init, strategy, num_steps)
  visible = x_init != toys.MASK
  assert np.array_equal(tokens[visible], x_init[visible])
  assert not np.any(tokens == toys.MASK)
  assert evaluations == num_steps


def test_all_steps_with_a_trajectory():
  # Nothing happens after the last position is written.
  strategy = FirstHitting()
  sampler = Sampler(T, strategy)
  x_init, keys = prompts(5), keys_of(6, 6)
  found = quick_jit(
    lambda keys: sample(
      keys,
      toys.network(WEIGHTS),
      x_init,
      sampler,
      keep_trajectory=True,
      mask_id=toys.MASK,
      temperature=0.8,
    )
  )(keys)
  assert np.array_equal(found.tokens, count_calls(keys, x_init, strategy, T)[0])
  assert found.evaluations == len(found.trajectory) == T


@pytest.mark.parametrize('strategy', ALL, ids=str)
def test_64_bits_are_for_the_noise_alone(strategy):
  seen = []
  network = toys.network(WEIGHTS, lambda *inputs: seen.append(inputs))
  noise = 'low' if isinstance(strategy, Joint) else 'float64'
  sampler = Sampler(T, strategy, noise=noise)
  with jax.enable_x64(True):
    found = jax.eval_shape(
      lambda keys: sample(
        keys, network, jnp.asarray(prompts(5)), sampler, mask_id=toys.MASK
      ),
      keys_of(6, 6),
    )
  assert found.tokens.dtype == found.evaluations.dtype == jnp.int32
  for x_t, signal, sigma in seen:
    assert x_t.dtype == jnp.int32
    assert signal.dtype == sigma.dtype == jnp.float32


def test_greedy_dream_reveals_the_surest_first():
  # At temperature 0 its measure is that of temperature 1: not a tie everywhere.
  probs = np.float64([[0.4, 0.6], [0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
  log_probs = jnp.log(jnp.asarray(np.pad(probs, ((0, 0), (0, 1)), constant_values=1)))
  network = toys.Toy(
    lambda x_t, signal, sigma: jnp.tile(jnp.float32(log_probs)[None], (len(x_t), 1, 1)),
    lambda hidden: hidden,
    lambda probs: jnp.zeros((*probs.shape[:-1], 1), jnp.float32),
    1,
  )
  x_init = jnp.full((1, 4), 2, jnp.int32)
  sampler = Sampler(8, Dream(), top_p=0.95)
  found = quick_jit(
    lambda keys: sample(
      keys, network, x_init, sampler, keep_trajectory=True, mask_id=2, temperature=0.0
    )
  )(keys_of(13, 1))
  states = np.asarray(found.trajectory)[:, 0]
  first = [int(np.argmax(states[:, i] != 2)) for i in range(4)]
  assert sorted(range(4), key=lambda i: first[i]) == [1, 3, 0, 2]
  assert list(states[-1]) in ([1, 1, 0, 1], [1, 1, 1, 1])
