"""The readout against float64 NumPy, and its promises on work and memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.masking import BANNED
from scmdm_jax.diffusion.readout import Decoding
from tests.compiling import quick_jit
from tests.diffusion import toys

WEIGHTS = toys.weights(0)
BATCH = 6


def hidden_states(seed, width=toys.DIM):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((BATCH, toys.LENGTH, width)).astype(np.float32)


def partly_masked(seed):
  x_t = toys.clean_tokens(seed, BATCH)
  x_t[np.random.default_rng(seed + 1).random(x_t.shape) < 0.5] = toys.MASK
  return x_t


def test_read_logits_and_signal():
  network = toys.network(WEIGHTS)
  hidden = hidden_states(1)
  logits = readout.read_logits(network, hidden, toys.MASK)
  signal = readout.read_signal(network, logits)
  assert logits.shape == (*hidden.shape[:2], toys.VOCAB)
  assert logits.dtype == jnp.float32
  probs = toys.softmax_np(toys.network_np(WEIGHTS).logits(hidden), toys.MASK)
  np.testing.assert_allclose(jax.nn.softmax(logits, axis=-1), probs, atol=1e-6)
  # Signals are of order 1; float32 sums over V.
  np.testing.assert_allclose(signal, probs @ WEIGHTS['table'], atol=1e-5)


def test_signal_of_a_certain_prediction():
  # Differences whose exponentials overflow, and banned ones.
  logits = np.float32([[1e4, 0, -1e4, BANNED, 0, 0, 0], [BANNED] * 6 + [-80.0]])
  signal = readout.read_signal(toys.network(WEIGHTS), logits)
  np.testing.assert_allclose(signal, WEIGHTS['table'][[0, 6]], rtol=1e-6)


def test_bfloat16_networks_are_read_in_float32():
  network = toys.network(WEIGHTS)
  half = network._replace(logits=lambda h: network.logits(h).astype(jnp.bfloat16))
  hidden = jnp.ones((1, 2, toys.DIM))
  assert readout.read_logits(half, hidden, toys.MASK).dtype == jnp.float32


def test_no_gradient_through_the_prediction():
  network = toys.network(WEIGHTS)
  logits = jnp.ones((1, 2, toys.VOCAB))
  gradient = jax.grad(lambda logits: readout.read_signal(network, logits).sum())(logits)
  assert np.all(gradient == 0)


def measure_np(name, logits, tokens, temperature):
  """From the definitions, with float64 probabilities; temperature 0 counts as 1."""
  scaled = np.where(logits > BANNED, np.float64(logits) / (temperature or 1), -np.inf)
  probs = np.exp(scaled - scaled.max(-1, keepdims=True))
  probs /= probs.sum(-1, keepdims=True)
  if name == 'log_prob':
    return np.log(np.take_along_axis(probs, tokens[:, None], -1)[:, 0])
  if name == 'entropy':
    return np.sum(probs * np.log(np.where(probs > 0, probs, 1)), -1)
  falling = -np.sort(-probs, axis=-1)
  return falling[:, 0] - falling[:, 1]


quick_measure = quick_jit(readout.measure_of, static_argnums=0)


@pytest.mark.parametrize('name', ['log_prob', 'entropy', 'margin'])
def test_measures(name):
  rng = np.random.default_rng(2)
  logits = (4 * rng.standard_normal((40, 11))).astype(np.float32)
  logits[:, 4] = BANNED
  logits[0] = np.where(np.arange(11) == 7, 3.0, BANNED)  # Nothing else is allowed.
  logits[1, :4], logits[1, 5:] = 0, -50  # Four equal ones.
  logits[2, 9] = 200.0  # Certain.
  tokens = np.where(np.arange(40) < 3, [7] + [9] * 39, rng.integers(5, 11, 40))
  tokens[1] = 2
  for temperature in (1.0, 0.5, 0.0, 2.0):
    found = quick_measure(name, logits, tokens.astype(np.int32), temperature)
    assert found.dtype == jnp.float32 and found.shape == (40,)
    wanted = measure_np(name, logits, tokens, temperature)
    # Relative to scores of up to 400 for log-probabilities, else to 1.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2e-5)
  assert not np.any(quick_measure('', logits, tokens.astype(np.int32)))


@pytest.mark.parametrize('temperature', [0.0, 1e-9, 1e-3, 1e6])
@pytest.mark.parametrize('name', ['log_prob', 'entropy', 'margin'])
def test_measures_are_finite(name, temperature):
  logits = np.full((3, 6), BANNED, np.float32)
  logits[:, 2] = [1e4, -1e4, 0]
  logits[2, 3] = 1e3
  tokens = jnp.array([2, 2, 3])
  assert np.all(np.isfinite(quick_measure(name, logits, tokens, temperature)))


@functools.partial(quick_jit, static_argnames=('measure', 'shaped', 'top_p', 'chunk'))
def quick_read(
  hidden, x_t, wanted, temperature=1.0, carried=None, chunk=None, **options
):
  return readout.read(
    jax.random.split(jax.random.key(3), x_t.shape),
    Predictor((toys.network(WEIGHTS),)),
    hidden,
    x_t,
    Decoding(toys.MASK, temperature=temperature, **options),
    wanted,
    carried,
    chunk,
  )


def test_read():
  hidden, x_t = hidden_states(3), partly_masked(4)
  wanted = np.random.default_rng(50).random(x_t.shape) < 0.7
  found = quick_read(hidden, x_t, wanted, carried=wanted, measure='log_prob', chunk=4)
  logits = toys.network_np(WEIGHTS).logits(hidden)
  probs = toys.softmax_np(logits, toys.MASK)
  tokens = np.asarray(found.tokens)
  assert tokens.dtype == np.int32
  # Neither kind of position, wanted or not, is missing from the example.
  masked = x_t == toys.MASK
  assert len(np.unique(np.stack([masked, wanted], -1).reshape(-1, 2), axis=0)) == 4
  assert np.array_equal(tokens[wanted & ~masked], x_t[wanted & ~masked])
  assert not np.any(tokens[wanted] == toys.MASK)
  certainty = -toys.nll_np(probs, tokens)
  np.testing.assert_allclose(found.measure[wanted], certainty[wanted], atol=1e-5)
  signal = probs @ WEIGHTS['table']
  np.testing.assert_allclose(found.signal[wanted], signal[wanted], atol=1e-5)
  for values in found:
    assert not np.any(np.asarray(values)[~wanted])
  # The same at temperature 0: the most probable token, the same signal and measure.
  greedy = quick_read(
    hidden, x_t, wanted, 0.0, carried=wanted, measure='log_prob', chunk=4
  )
  assert np.array_equal(
    np.asarray(greedy.tokens)[wanted & masked], probs.argmax(-1)[wanted & masked]
  )
  assert np.array_equal(greedy.signal, found.signal)


def test_shaped_measures_see_temperature_and_top_p():
  hidden, x_t = hidden_states(6), np.full((BATCH, toys.LENGTH), toys.MASK, np.int32)
  options = {'measure': 'entropy', 'shaped': True, 'top_p': 0.9}
  logits = toys.network_np(WEIGHTS).logits(hidden).reshape(-1, toys.VOCAB)
  logits[:, toys.MASK] = BANNED
  for temperature in (3.0, 0.0):
    found = quick_read(hidden, x_t, x_t == toys.MASK, temperature, **options)
    # The nucleus is taken at that temperature; of a greedy draw, at temperature 1.
    probs = toys.softmax_np(logits / (temperature or 1), toys.MASK)
    order = np.argsort(-probs, -1)
    falling = np.take_along_axis(probs, order, -1)
    keep = np.cumsum(falling, -1) - falling < 0.9
    keep = np.take_along_axis(keep, np.argsort(order, -1), -1)
    scores = np.where(keep, logits, BANNED)
    wanted = measure_np('entropy', scores, np.zeros(len(logits), int), temperature)
    np.testing.assert_allclose(np.ravel(found.measure), wanted, atol=1e-5)
    assert len(np.unique(wanted)) > 10


def test_nothing_is_read_of_a_vanilla_model_but_tokens():
  x_t = partly_masked(7)
  found = quick_read(hidden_states(7), x_t, x_t == toys.MASK)
  assert found.signal.shape == (*x_t.shape, 0)
  assert not np.any(found.measure)


def test_what_is_read_does_not_depend_on_the_chunk_or_on_what_else_is():
  hidden, x_t = hidden_states(10), partly_masked(11)
  masked = x_t == toys.MASK
  few = masked & (np.random.default_rng(12).random(x_t.shape) < 0.5)
  options = {'carried': masked, 'measure': 'log_prob'}
  whole = quick_read(hidden, x_t, masked, **options)
  for wanted in (masked, few):
    found = quick_read(hidden, x_t, wanted, chunk=4, **options)
    # Products of other shapes may add in another order: float32 rounding.
    for a, b in zip(found, whole, strict=True):
      a, b = np.asarray(a)[wanted], np.asarray(b)[wanted]
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert np.array_equal(found.tokens[wanted], whole.tokens[wanted])


@pytest.mark.parametrize('chunk', [3, 4, 100])
def test_tokens_here_and_signals_there_are_those_of_both_everywhere(chunk):
  hidden, x_t = hidden_states(13), partly_masked(14)
  masked = x_t == toys.MASK
  kind = np.random.default_rng(15).integers(0, 3, x_t.shape)
  wanted, carried = masked & (kind == 0), masked & (kind == 1)
  assert wanted.any() and carried.any()
  options = {'measure': 'log_prob', 'chunk': chunk}
  whole = quick_read(hidden, x_t, masked, carried=masked, **options)
  found = quick_read(hidden, x_t, wanted, carried=carried, **options)
  assert np.array_equal(found.tokens, np.where(wanted, whole.tokens, 0))
  for name, where in (('measure', wanted), ('signal', carried[..., None])):
    expected = np.where(where, getattr(whole, name), 0)
    # Products of other shapes may add in another order: float32 rounding.
    np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5, atol=1e-6)


def test_a_chunk_pays_for_what_is_wanted_of_it():
  hidden, x_t = hidden_states(16), np.full((BATCH, toys.LENGTH), toys.MASK, np.int32)
  calls = []
  network = toys.network(WEIGHTS)

  def counted(name):
    def call(x):
      jax.debug.callback(lambda: calls.append(name))
      return getattr(network, name)(x)

    return call

  counting = network._replace(logits=counted('logits'), signal=counted('signal'))
  order = np.random.default_rng(17).permutation(x_t.size).reshape(x_t.shape)
  wanted, carried = order < 5, (order >= 5) & (order < 14)
  keys = jax.random.split(jax.random.key(3), x_t.shape)
  quick_jit(
    lambda wanted, carried: readout.read(
      keys,
      Predictor((counting,)),
      hidden,
      x_t,
      Decoding(toys.MASK),
      wanted,
      carried,
      chunk=4,
    )
  )(wanted, carried)
  jax.effects_barrier()
  # 14 positions, those of `wanted` in front: 4 chunks, the first without a signal.
  assert (calls.count('logits'), calls.count('signal')) == (4, 3)
