"""The sampler against a plain loop, exact marginals and its own promises."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from scipy import stats

from scmdm_jax.diffusion import sampling
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.planning import Plan
from scmdm_jax.diffusion.schedules import (
  Cosine,
  LogLinear,
  Polynomial,
  noise_level,
)
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys
from tests.models import parameters

EPS = 1e-3
WEIGHTS = toys.weights(0)
ALL_MASKED = jnp.full((6, toys.LENGTH), toys.MASK, jnp.int32)


def keys_of(seed, batch):
  return split_key(jax.random.key(seed), batch)


@functools.partial(quick_jit, static_argnums=(3, 4))
def _sample_toy(keys, x_init, temperature, num_steps, self_conditioning):
  return sampling.sample(
    keys,
    toys.network(WEIGHTS),
    x_init,
    sampling.Sampler(num_steps, self_conditioning=self_conditioning),
    keep_trajectory=True,
    mask_id=toys.MASK,
    temperature=temperature,
  )


def sample_toy(keys, x_init, num_steps, *, temperature=1.0, self_conditioning=True):
  return _sample_toy(keys, x_init, temperature, num_steps, self_conditioning)


@functools.partial(quick_jit, static_argnums=3)
def random_numbers(keys, example, step, num_steps):
  """What one example draws, by the documented derivation of keys."""
  plan = jax.random.fold_in(keys[example], num_steps)
  _, key_token = jax.random.split(jax.random.fold_in(keys[example], step))
  size = math.ceil(math.sqrt(toys.VOCAB))
  noise = [
    jax.random.gumbel(jax.random.fold_in(key_token, i), (2, size), mode='high')
    for i in range(toys.LENGTH)
  ]
  return jax.random.uniform(plan, (toys.LENGTH,)), jnp.stack(noise)


def draw_plainly(logits, noise, temperature):
  """Gumbel-max over blocks, then inside one, with float64 NumPy."""
  size = noise.shape[-1]
  ids = [np.arange(i, min(i + size, len(logits))) for i in range(0, len(logits), size)]
  scores = np.array(logits, np.float64)
  scores[toys.MASK] = -np.inf

  def total(block):
    if temperature == 0:
      return block.max()
    return temperature * np.logaddexp.reduce(block / temperature)

  blocks = [
    total(scores[i]) + temperature * g for i, g in zip(ids, noise[0], strict=True)
  ]
  inside = ids[int(np.argmax(blocks))]
  return inside[np.argmax(scores[inside] + temperature * noise[1, : len(inside)])]


def sample_plainly(
  keys, x_init, num_steps, alpha, *, self_conditioning, temperature=1.0
):
  """The two-stage rule, one example and one step at a time, with NumPy.

  An example's key folded with T draws one uniform per position, which says when it is
  revealed. Step i: the key folded with i, split in two; the second half, folded with
  the position, draws two rows of Gumbel numbers.
  """
  network = toys.network_np(WEIGHTS)
  trajectory = []
  x = np.array(x_init)
  signal = np.zeros((*x.shape, toys.DIM), np.float32)
  for i in range(num_steps):
    alpha_t = alpha(1 - i / num_steps) if i > 0 else 0.0
    alpha_s = alpha(1 - (i + 1) / num_steps)
    sigma = -np.log(max(alpha_t, 1e-3))  # alpha(1) is eps, where the chain has 0.
    hidden = network.encode(x, signal, np.full(len(x), sigma, np.float32))
    logits = network.logits(hidden)
    x_next = x.copy()
    for b in range(len(x)):
      u, noise = map(np.asarray, random_numbers(keys, b, i, num_steps))
      for position in range(x.shape[1]):
        if x[b, position] == toys.MASK and u[position] < alpha_s:
          x_next[b, position] = draw_plainly(
            logits[b, position], noise[position], temperature
          )
    if self_conditioning:
      probs = toys.softmax_np(logits, toys.MASK)
      masked = (x == toys.MASK)[..., None]
      signal = np.where(masked, network.signal(probs), signal).astype(np.float32)
    x = x_next
    trajectory.append(x)
  return np.stack(trajectory)


def loglinear(t):
  return 1 - (1 - EPS) * t if t > 0 else 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
  ('num_steps', 'self_conditioning'),
  [(1, True), (4, True), (4, False), (2 * toys.LENGTH, True)],
)
def test_equals_a_plain_loop_token_for_token(num_steps, self_conditioning):
  keys = keys_of(1, 6)
  found = sample_toy(keys, ALL_MASKED, num_steps, self_conditioning=self_conditioning)
  wanted = sample_plainly(
    keys, ALL_MASKED, num_steps, loglinear, self_conditioning=self_conditioning
  )
  assert np.array_equal(found.trajectory, wanted)
  assert np.array_equal(found.tokens, wanted[-1])
  assert found.tokens.dtype == jnp.int32
  assert np.all(found.tokens != toys.MASK)
  assert found.evaluations == num_steps


def test_the_signal_matters_from_the_second_step_on():
  conditioned = sample_toy(keys_of(1, 6), ALL_MASKED, 4, self_conditioning=True)
  vanilla = sample_toy(keys_of(1, 6), ALL_MASKED, 4, self_conditioning=False)
  assert np.array_equal(conditioned.trajectory[0], vanilla.trajectory[0])
  assert not np.array_equal(conditioned.tokens, vanilla.tokens)


def test_greedy():
  keys = keys_of(2, 6)
  found = sample_toy(keys, ALL_MASKED, 4, temperature=0.0, self_conditioning=True)
  wanted = sample_plainly(
    keys, ALL_MASKED, 4, loglinear, self_conditioning=True, temperature=0.0
  )
  assert np.array_equal(found.trajectory, wanted)


def test_prompt_and_revealed_tokens_never_change():
  x_init = toys.clean_tokens(3, 6)
  wanted = np.random.default_rng(4).random(x_init.shape) < 0.5
  x_init[wanted] = toys.MASK
  found = sample_toy(keys_of(5, 6), x_init, 4, self_conditioning=True)
  assert np.array_equal(np.asarray(found.tokens)[~wanted], x_init[~wanted])
  assert np.all(np.asarray(found.tokens) != toys.MASK)
  states = [x_init, *np.asarray(found.trajectory)]
  for before, after in itertools.pairwise(states):
    visible = before != toys.MASK
    assert np.array_equal(before[visible], after[visible])


def test_nothing_to_do():
  x_init = jnp.asarray(toys.clean_tokens(6, 6))
  found = sample_toy(keys_of(7, 6), x_init, 4, self_conditioning=True)
  assert np.array_equal(found.tokens, x_init)


def small_dit():
  arch = DiTConfig(
    vocab_size=9, length=6, hidden_dim=8, num_blocks=1, num_heads=2, cond_dim=4
  )
  description = ModelDescription(arch, mask_id=8, tokenizer='', injection='embedding')
  return description, parameters.random_params(description, seed=9, scale=0.3)


@quick_jit
def sample_dit(key_data, params):
  description, _ = small_dit()
  keys = jax.random.wrap_key_data(key_data)
  return sampling.sample(
    keys,
    denoiser.bind(params, description),
    jnp.full((len(keys), 6), 8, jnp.int32),
    sampling.Sampler(5),
    mask_id=8,
  ).tokens


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch():
  _, params = small_dit()
  keys = np.asarray(jax.random.key_data(keys_of(10, 8)))
  whole = np.asarray(sample_dit(keys, params))
  assert len(np.unique(whole, axis=0)) > 4
  for size in (4, 1):
    parts = [sample_dit(keys[i : i + size], params) for i in range(0, 8, size)]
    assert np.array_equal(np.concatenate(parts), whole)
  order = np.random.default_rng(11).permutation(8)
  assert np.array_equal(sample_dit(keys[order], params), whole[order])


@pytest.mark.parametrize(('temperature', 'top_p'), [(1.0, 1.0), (0.0, 1.0), (3.0, 0.3)])
def test_temperature_and_top_p_leave_the_signal_alone(temperature, top_p):
  network = toys.network(WEIGHTS)
  x_t = toys.clean_tokens(15, 6)
  x_t[:, 1:4] = toys.MASK
  signal = np.random.default_rng(16).standard_normal((6, toys.LENGTH, toys.DIM))
  signal = np.float32(signal)
  state = sampling.SamplerState(
    jnp.asarray(x_t),
    jnp.asarray(signal),
    jnp.zeros(x_t.shape, jnp.float32),
    jnp.int32(0),
    jnp.zeros(6, jnp.int32),
  )
  hidden = toys.network_np(WEIGHTS).encode(x_t, signal, np.full(6, -np.log(0.3)))
  logits = toys.network_np(WEIGHTS).logits(hidden)
  told = toys.softmax_np(logits, toys.MASK) @ WEIGHTS['table']
  sampler = sampling.Sampler(1, top_p=top_p)
  chain = sampling.Chain(Predictor((network,)), sampler, toys.MASK, temperature)
  plan = Plan(
    alphas=jnp.float32([0.3, 0.6]),
    sigmas=jnp.full((1, 6), -np.log(0.3), jnp.float32),
    to_write=jnp.full(6, 3),
    reveal_step=jnp.broadcast_to(jnp.int32([0, 0, 1, 1, 0]), x_t.shape),
  )
  after = quick_jit(
    lambda keys: sampling.reverse_step(
      keys, state, chain, plan, jnp.int32(0), jnp.ones((6, 5), bool), False
    )
  )(keys_of(17, 6))
  # One position of three is revealed, for good: nobody will look at its signal.
  stays = np.asarray(after.x_t) == toys.MASK
  assert stays.sum() == 12
  np.testing.assert_allclose(after.signal[stays], told[stays], atol=1e-5)
  assert after.evaluations == 1


PROBS = np.array([0.5, 0.3, 0.0, 0.199, 1e-3])


@pytest.mark.parametrize(
  ('schedule', 'alpha'),
  [
    (Cosine(), lambda t: 1 - (1 - EPS) * np.cos(np.pi / 2 * (1 - t))),
    (Polynomial(2.0), lambda t: 1 - (1 - EPS) * t**2),
  ],
)
@pytest.mark.slow
def test_marginals_and_masked_fractions(schedule, alpha):
  batch, length, steps = 1024, 64, 5

  @quick_jit
  def run(keys):
    return sampling.sample(
      keys,
      toys.fixed_network(np.maximum(PROBS, 1e-38)),
      jnp.full((batch, length), 2, jnp.int32),
      sampling.Sampler(steps, schedule=schedule),
      keep_trajectory=True,
      mask_id=2,
    )

  found = run(keys_of(18, batch))
  n = batch * length
  for i, x_t in enumerate(np.asarray(found.trajectory)):
    left = 1 - alpha(1 - (i + 1) / steps)
    masked = np.sum(x_t == 2)
    assert abs(masked - n * left) <= 4 * np.sqrt(n * left * (1 - left))
    # The tokens revealed so far have the same law at every step.
    counts = np.bincount(x_t[x_t != 2], minlength=5)
    real = PROBS > 0
    wanted = counts.sum() * PROBS[real]
    assert counts[2] == 0
    assert stats.chisquare(counts[real], wanted).pvalue > 1e-4


def test_noise_levels_lie_within_those_of_training():
  seen = []
  network = toys.network(
    WEIGHTS,
    lambda x_t, signal, sigma: io_callback(
      lambda sigma: seen.append(np.max(sigma)), None, sigma, ordered=True
    ),
  )
  quick_jit(
    lambda keys: sampling.sample(
      keys,
      network,
      ALL_MASKED,
      sampling.Sampler(3),
      mask_id=toys.MASK,
    )
  )(keys_of(19, 6))
  jax.effects_barrier()
  largest = float(noise_level(LogLinear(), jnp.ones(1))[0])
  assert len(seen) == 3
  assert max(seen) <= largest + 1e-3
