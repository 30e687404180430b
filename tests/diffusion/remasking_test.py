"""Strategies that mask revealed tokens again: what is carried, how much is hidden."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scmdm_jax.diffusion import stepping
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.diffusion.strategies import P2, ReMDM
from tests.compiling import quick_jit, split_key
from tests.diffusion import recording, toys

WEIGHTS = toys.weights(0)
# Failures of a right program: fewer than one run in a thousand over all tests here.
P_VALUE = 1e-5
T = 6


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


def prompted(seed, batch=8):
  x_init = toys.clean_tokens(seed, batch)
  x_init[:, 1:] = toys.MASK
  return x_init


@pytest.mark.parametrize(
  ('strategy', 'keep_signal'),
  [(P2(), True), (P2(), False), (ReMDM('cap', eta=0.5), True)],
  ids=str,
)
def test_a_position_masked_again_has_its_last_prediction(strategy, keep_signal):
  seen = []
  network = recording.network(WEIGHTS, seen)
  sampler = Sampler(T, strategy, keep_signal=keep_signal)
  x_init = prompted(1)
  run = quick_jit(
    lambda keys, x_init: sample(keys, network, x_init, sampler, mask_id=toys.MASK)
  )
  found = recording.run(run, seen, keys_of(2, 8), x_init)
  assert len(seen) == found.evaluations == T
  carried = np.zeros((8, toys.LENGTH, toys.DIM))
  again = 0
  states = [*(s.x_t for s in seen), np.asarray(found.tokens)]
  for i, now in enumerate(seen):
    # Predictions are of order 1; float32 through one evaluation.
    np.testing.assert_allclose(now.signal, carried, atol=2e-5)
    masked = now.x_t == toys.MASK
    carried = np.where(
      masked[..., None], recording.prediction(WEIGHTS, now)[1], carried
    )
    hidden = ~masked & (states[i + 1] == toys.MASK)
    again += hidden.sum()
    # Neither nothing nor the token it had.
    one_hot = WEIGHTS['table'][now.x_t[hidden]]
    assert np.all(np.abs(carried[hidden] - one_hot).max(-1) > 1e-2)
    assert np.all(np.abs(carried[hidden]).max(-1) > 1e-2)
    if not keep_signal:
      carried[hidden] = 0
    # The prompt is never masked.
    assert np.array_equal(states[i + 1][:, 0], x_init[:, 0])
  assert again > 8
  if strategy == P2():
    # Exactly so many are left after every step, of 4 to write.
    left = [np.sum(x == toys.MASK, axis=-1) for x in states[1:]]
    wanted = [int((1 - 1e-3) * (1 - (i + 1) / T) * 4) for i in range(T)]
    assert np.array_equal(left, np.repeat(np.array(wanted)[:, None], 8, axis=1))


def test_p2_without_doubt_masks_nothing_again():
  # eta = 0: what is revealed scores 0, the highest log-probability.
  sampler = Sampler(T, P2(eta=0.0))
  found = quick_jit(
    lambda keys, x_init: sample(
      keys,
      toys.network(WEIGHTS),
      x_init,
      sampler,
      keep_trajectory=True,
      mask_id=toys.MASK,
    )
  )(keys_of(3, 8), prompted(4))
  for before, after in itertools.pairwise(np.asarray(found.trajectory)):
    shown = before != toys.MASK
    assert np.array_equal(before[shown], after[shown])


def test_certainty_is_that_of_the_moment_of_revealing():
  strategy = ReMDM('conf')
  sampler = Sampler(T, strategy, top_p=0.9)
  x_init = jnp.asarray(prompted(5))
  active = x_init == toys.MASK
  chain = stepping.Chain(
    Predictor((toys.network(WEIGHTS),)), sampler, toys.MASK, temperature=0.7
  )
  plan = strategy.start(keys_of(6, 8), active, LogLinear(), T)

  @quick_jit
  def step(keys, state, i):
    last = i == T - 1
    return stepping.reverse_step(keys, state, chain, plan, i, active, last)

  state = stepping.initial_state(chain.predictor, x_init)
  certainty = np.zeros(x_init.shape)
  again = 0
  for i in range(T):
    x_t = np.asarray(state.x_t)
    inputs = recording.Seen(x_t, np.asarray(state.signal), np.asarray(plan.sigmas[i]))
    # Of the model's own law, before temperature and top-p.
    probs, _ = recording.prediction(WEIGHTS, inputs)
    state = step(keys_of(7 + i, 8), state, jnp.int32(i))
    x_s = np.asarray(state.x_t)
    shown = (x_t == toys.MASK) & (x_s != toys.MASK)
    log_probs = -toys.nll_np(probs, np.where(shown, x_s, 0))
    certainty = np.where(shown, log_probs, certainty)
    np.testing.assert_allclose(state.certainty, certainty, atol=2e-5)
    again += np.sum((x_t != toys.MASK) & (x_s == toys.MASK))
  assert again > 0
  assert not np.any(x_s == toys.MASK)


PROBS = np.array([0.5, 0.3, 0.0, 0.15, 0.05])


@pytest.mark.parametrize(
  'strategy',
  [
    ReMDM('cap', eta=0.1),
    ReMDM('rescale', eta=0.5),
    ReMDM('loop', eta=0.05),
    ReMDM('conf'),
  ],
  ids=str,
)
@pytest.mark.slow
def test_marginals(strategy):
  batch, length, steps = 256, 64, 8

  @quick_jit
  def trajectory(keys):
    sampler = Sampler(steps, strategy)
    network = toys.fixed_network(np.maximum(PROBS, 1e-38))
    x_init = jnp.full((batch, length), 2, jnp.int32)
    found = sample(keys, network, x_init, sampler, keep_trajectory=True, mask_id=2)
    plan = strategy.start(keys, x_init == 2, LogLinear(), steps)
    return found.trajectory, plan.alphas

  states, alphas = map(np.asarray, trajectory(keys_of(19, batch)))
  n = batch * length
  left = n
  for i, x_t in enumerate(states):
    alpha_t, alpha_s = np.float64(alphas[i : i + 2])
    masked = np.sum(x_t == 2)
    wanted = n * (1 - alpha_s)
    if strategy.rule == 'conf':
      # Its sigmas add up to sigma_max per example: so many more are hidden than an
      # ancestral step would leave, whatever the marginals of the forward process.
      again = batch * min(1, (1 - alpha_s) / alpha_t) if i > 0 else 0
      wanted = left * (1 - alpha_s) / (1 - alpha_t) + again
    # At most the variance of independent bits.
    assert abs(masked - wanted) <= 4 * np.sqrt(wanted * max(1 - wanted / n, 0))
    left = masked
    # The tokens shown have the model's law at every step.
    counts = np.bincount(x_t[x_t != 2], minlength=5)
    real = PROBS > 0
    assert counts[2] == 0
    expected = counts.sum() * PROBS[real]
    assert stats.chisquare(counts[real], expected).pvalue > P_VALUE
  # Something was masked again, or this shows nothing.
  again = (states[:-1] != 2) & (states[1:] == 2)
  assert again.sum() > 100
