"""Classifier-free guidance against plain NumPy: scores, signals, cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.guidance import Guidance, Predictor
from scmdm_jax.diffusion.readout import Decoding
from scmdm_jax.diffusion.sampling import Sampler, sample
from tests.compiling import quick_jit, split_key
from tests.diffusion import recording, toys

CONDITIONAL, UNCONDITIONAL = toys.weights(0), toys.weights(1)
BATCH, T = 6, 4


def keys_of(seed, batch=BATCH):
  return split_key(jax.random.key(seed), batch)


def prompted(seed):
  x_init = toys.clean_tokens(seed, BATCH)
  x_init[:, 2:] = toys.MASK
  return x_init


def guided_np(conditional, unconditional, weight):
  """Scores u + (1 + w) (c - u), float64, the mask's the lowest."""
  scores = unconditional + (1 + weight) * (np.float64(conditional) - unconditional)
  scores[..., toys.MASK] = -np.inf
  return scores


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.slow
def test_scores(shared):
  rng = np.random.default_rng(0)
  hidden = rng.standard_normal((BATCH, toys.LENGTH, 2 * toys.DIM)).astype(np.float32)
  x_t = np.full((BATCH, toys.LENGTH), toys.MASK, np.int32)

  networks = toys.network(CONDITIONAL), toys.network(UNCONDITIONAL)

  @functools.partial(quick_jit, static_argnums=0)
  def read(weight):
    return readout.read(
      jax.random.split(jax.random.key(1), x_t.shape),
      Predictor(networks, Guidance(weight, shared)),
      hidden,
      x_t,
      Decoding(toys.MASK, 'log_prob'),
      wanted=x_t == toys.MASK,
      carried=x_t == toys.MASK,
      chunk=4,
    )

  parts = np.split(hidden, 2, axis=-1)
  c = toys.network_np(CONDITIONAL).logits(parts[0])
  u = toys.network_np(UNCONDITIONAL).logits(parts[1])
  for weight in (0.0, 1.5, -1.0):
    found = read(weight)
    probs = toys.softmax_np(guided_np(c, u, weight), toys.MASK)
    certainty = -toys.nll_np(probs, np.asarray(found.tokens))
    # Guided scores of up to 30.
    np.testing.assert_allclose(found.measure, certainty, rtol=1e-5, atol=2e-5)
    own = [toys.softmax_np(scores, toys.MASK) for scores in (c, u)]
    shown = [probs, probs] if shared else own
    tables = [CONDITIONAL['table'], UNCONDITIONAL['table']]
    signal = np.concatenate([p @ t for p, t in zip(shown, tables, strict=True)], -1)
    np.testing.assert_allclose(found.signal, signal, atol=2e-5)


def hiding(network, prompt):
  """`network` blind to the tokens at `prompt` [B, L]: LLaDA's unconditional one."""
  return network._replace(
    encode=lambda x_t, signal, sigma: network.encode(
      jnp.where(prompt, toys.MASK, x_t), signal, sigma
    )
  )


@quick_jit
def uniforms(keys):
  """What says when a position is revealed, by the documented derivation of keys."""
  shape = (toys.LENGTH,)
  return jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, T), shape))(keys)


def greedy_np(u, x_init, weight, *, shared=False, hide=None):
  """The guided loop, one step at a time: tokens, signals that each evaluation saw."""
  networks = [toys.network_np(w) for w in (CONDITIONAL, UNCONDITIONAL)]
  signals = [np.zeros((*x_init.shape, toys.DIM), np.float32) for _ in networks]
  x = x_init.copy()
  seen = []
  for i in range(T):
    alpha_t = 1 - (1 - 1e-3) * (1 - i / T)
    alpha_s = 1 - (1 - 1e-3) * (1 - (i + 1) / T) if i < T - 1 else 1
    sigma = np.full(len(x), -np.log(alpha_t), np.float32)
    inputs = [x, np.where(hide, toys.MASK, x) if hide is not None else x]
    seen += [(a, s) for a, s in zip(inputs, signals, strict=True)]
    scores = [
      n.logits(n.encode(a, s, sigma))
      for n, a, s in zip(networks, inputs, signals, strict=True)
    ]
    guided = guided_np(*scores, weight)
    masked = x == toys.MASK
    shown = [guided, guided] if shared else scores
    signals = [
      np.where(masked[..., None], n.signal(toys.softmax_np(p, toys.MASK)), s)
      for n, p, s in zip(networks, shown, signals, strict=True)
    ]
    signals = [np.float32(s) for s in signals]
    x = np.where(masked & (u < alpha_s), guided.argmax(-1), x).astype(np.int32)
  return x, seen


@pytest.mark.slow
@pytest.mark.parametrize(
  ('shared', 'hidden_prompt'), [(False, False), (True, False), (False, True)]
)
def test_the_loop(shared, hidden_prompt):
  seen = []
  x_init, keys, weight = prompted(2), keys_of(3), 1.5
  prompt = x_init != toys.MASK
  conditional = recording.network(CONDITIONAL, seen)
  unconditional = recording.network(UNCONDITIONAL, seen)
  if hidden_prompt:
    unconditional = hiding(unconditional, prompt)

  @functools.partial(quick_jit, static_argnums=1)
  def run(keys, weight):
    return sample(
      keys,
      conditional,
      x_init,
      Sampler(T, guidance=Guidance(weight, shared)),
      mask_id=toys.MASK,
      temperature=0.0,
      unconditional=unconditional,
    )

  found = recording.run(run, seen, keys, weight)
  u = np.asarray(uniforms(keys))
  tokens, wanted = greedy_np(
    u, x_init, weight, shared=shared, hide=prompt if hidden_prompt else None
  )
  assert np.array_equal(found.tokens, tokens)
  # Two evaluations per step, each with a signal of its own.
  assert found.evaluations == len(seen) == len(wanted) == 2 * T
  for a, (x_t, signal) in zip(seen, wanted, strict=True):
    assert np.array_equal(a.x_t, x_t)
    # A visible position's signal is not looked at.
    masked = x_t == toys.MASK
    np.testing.assert_allclose(a.signal[masked], signal[masked], atol=5e-5)
  # What is shared is the prediction; each network makes its own signal of it.
  assert np.max(np.abs(seen[2].signal - seen[3].signal)) > 0.1
  other = np.asarray(run(keys, 0.0).tokens)
  assert not np.array_equal(other, tokens)


def test_weight_zero_is_the_conditional_sampler():
  @functools.partial(quick_jit, static_argnums=2)
  def guided(keys, x_init, weight):
    return sample(
      keys,
      toys.network(CONDITIONAL),
      x_init,
      Sampler(T, guidance=Guidance(weight)),
      mask_id=toys.MASK,
      unconditional=toys.network(UNCONDITIONAL),
    )

  x_init, keys = prompted(4), keys_of(5)
  network = toys.network(CONDITIONAL)
  plain = quick_jit(
    lambda keys, x_init: sample(keys, network, x_init, Sampler(T), mask_id=toys.MASK)
  )(keys, x_init)
  found = guided(keys, x_init, 0.0)
  # u + (c - u) is c but for rounding, which no draw here lies close to.
  assert np.array_equal(found.tokens, plain.tokens)
  assert found.evaluations == 2 * plain.evaluations
  assert not np.array_equal(guided(keys, x_init, 2.0).tokens, plain.tokens)
