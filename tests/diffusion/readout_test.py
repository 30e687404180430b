"""The readout against float64 NumPy, and its promises on work and memory."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.masking import BANNED
from scmdm_jax.diffusion.objectives import diffusion_loss
from scmdm_jax.diffusion.readout import Guidance
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.diffusion.strategies import P2, Ancestral, Dream
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


@functools.partial(
  quick_jit, static_argnames=('measure', 'shaped', 'top_p', 'self_condition', 'chunk')
)
def quick_read(hidden, x_t, wanted, temperature=1.0, **options):
  return readout.read(
    jax.random.split(jax.random.key(3), x_t.shape),
    toys.network(WEIGHTS),
    hidden,
    x_t,
    wanted,
    mask_id=toys.MASK,
    temperature=temperature,
    **options,
  )


def test_read():
  hidden, x_t = hidden_states(3), partly_masked(4)
  wanted = np.random.default_rng(50).random(x_t.shape) < 0.7
  found = quick_read(
    hidden, x_t, wanted, self_condition=True, measure='log_prob', chunk=4
  )
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
  told = probs @ WEIGHTS['table']
  np.testing.assert_allclose(found.signal[wanted], told[wanted], atol=1e-5)
  for values in found:
    assert not np.any(np.asarray(values)[~wanted])
  # The same at temperature 0: the most probable token, the same signal and measure.
  greedy = quick_read(
    hidden, x_t, wanted, 0.0, self_condition=True, measure='log_prob', chunk=4
  )
  assert np.array_equal(
    np.asarray(greedy.tokens)[wanted & masked], probs.argmax(-1)[wanted & masked]
  )
  assert np.array_equal(greedy.signal, found.signal)


@pytest.mark.parametrize('shaped', [False, True])
def test_shaped_measures_see_temperature_and_top_p(shaped):
  hidden, x_t = hidden_states(6), np.full((BATCH, toys.LENGTH), toys.MASK, np.int32)
  everywhere = np.ones(x_t.shape, bool)
  read = functools.partial(
    quick_read,
    hidden,
    x_t,
    everywhere,
    measure='entropy',
    shaped=shaped,
    top_p=0.6,
    self_condition=False,
  )
  logits = toys.network_np(WEIGHTS).logits(hidden).reshape(-1, toys.VOCAB)
  logits[:, toys.MASK] = BANNED
  for temperature in (0.5, 0.0):
    found = read(temperature).measure
    scores = logits
    if shaped:
      # The nucleus is taken at that temperature; greedily, at temperature 1.
      probs = toys.softmax_np(logits / (temperature or 1), toys.MASK)
      order = np.argsort(-probs, -1)
      falling = np.take_along_axis(probs, order, -1)
      keep = np.cumsum(falling, -1) - falling < 0.6
      keep = np.take_along_axis(keep, np.argsort(order, -1), -1)
      scores = np.where(keep, logits, BANNED)
    tokens = np.zeros(len(logits), int)
    wanted = measure_np('entropy', scores, tokens, temperature if shaped else 1.0)
    np.testing.assert_allclose(np.ravel(found), wanted, atol=1e-5)
    assert len(np.unique(found)) > 1


def test_nothing_is_read_of_a_vanilla_model_but_tokens():
  x_t = partly_masked(7)
  found = quick_read(hidden_states(7), x_t, x_t == toys.MASK, self_condition=False)
  assert found.signal.shape == (*x_t.shape, 0)
  assert not np.any(found.measure)


def elementwise(inputs):
  """Arithmetic of each row alone, so that all results are equal to the last bit."""
  x, n = inputs
  return {'sine': jnp.sin(x) * 3, 'int': n + 1}


INPUTS = (hidden_states(8), np.arange(BATCH * toys.LENGTH).reshape(BATCH, toys.LENGTH))


# 30 positions: 30 and 5 divide them, 7 does not, 64 is more.
@pytest.mark.parametrize('chunk', [1, 5, 7, 30, 64])
def test_over_wanted(chunk):
  run = quick_jit(lambda w, x: readout.over_wanted(elementwise, w, x, chunk))
  plain = jax.tree.map(np.asarray, quick_jit(elementwise)(INPUTS))
  rng = np.random.default_rng(9)
  shape = INPUTS[1].shape
  for wanted in (
    np.zeros(shape, bool),
    np.ones(shape, bool),
    rng.random(shape) < 0.3,
    rng.random(shape) < 0.7,
    np.arange(30).reshape(shape) == 29,
  ):
    found = run(wanted, INPUTS)
    assert np.array_equal(found['sine'], np.where(wanted[..., None], plain['sine'], 0))
    assert np.array_equal(found['int'], np.where(wanted, plain['int'], 0))
    assert found['int'].dtype == plain['int'].dtype


def test_what_is_read_does_not_depend_on_the_chunk_or_on_what_else_is():
  hidden, x_t = hidden_states(10), partly_masked(11)
  masked = x_t == toys.MASK
  few = masked & (np.random.default_rng(12).random(x_t.shape) < 0.5)
  whole = quick_read(hidden, x_t, masked, self_condition=True, measure='entropy')
  for chunk in (4, 7):
    options = {'self_condition': True, 'measure': 'entropy', 'chunk': chunk}
    for wanted in (masked, few):
      found = quick_read(hidden, x_t, wanted, **options)
      # Products of other shapes may add in another order: float32 rounding.
      for a, b in zip(found, whole, strict=True):
        a, b = np.asarray(a)[wanted], np.asarray(b)[wanted]
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
      assert np.array_equal(found.tokens[wanted], whole.tokens[wanted])


def test_work_is_proportional_to_the_number_wanted():
  calls = []

  def counted(x):
    jax.debug.callback(lambda: calls.append(1))
    return x * 2

  chunk = 4
  run = quick_jit(lambda w, x: readout.over_wanted(counted, w, x, chunk))
  x = hidden_states(13)
  for count in (0, 1, 4, 5, 17, 30):
    calls.clear()
    wanted = np.random.default_rng(count).permutation(30).reshape(BATCH, -1) < count
    run(wanted, x)
    jax.effects_barrier()
    assert len(calls) == math.ceil(count / chunk)


@pytest.mark.parametrize(('count', 'chunk'), [(0, 4), (13, 4), (30, 5), (13, 30)])
def test_gradients_equal_those_of_one_product(count, chunk):
  x_0 = jnp.asarray(toys.clean_tokens(14, BATCH))
  wanted = np.random.default_rng(15).permutation(30).reshape(BATCH, -1) < count

  def loss(read, w, hidden):
    nll = read(toys.network(w), hidden)
    # Another weight for every position, so that a mix-up would show.
    return jnp.sum(nll * jnp.arange(1.0, 31).reshape(BATCH, -1))

  def chunked(network, hidden):
    return readout.read_nll(network, hidden, x_0, wanted, toys.MASK, chunk)

  def whole(network, hidden):
    log_probs = jax.nn.log_softmax(readout.read_logits(network, hidden, toys.MASK))
    nll = -jnp.take_along_axis(log_probs, x_0[..., None], axis=-1)[..., 0]
    return jnp.where(wanted, nll, 0)

  inputs = (WEIGHTS, hidden_states(16))
  found, wanted_gradients = (
    quick_jit(jax.grad(functools.partial(loss, read), argnums=(0, 1)))(*inputs)
    for read in (chunked, whole)
  )
  # Sums of 30 float32 terms of up to 100.
  for a, b in zip(*map(jax.tree.leaves, (found, wanted_gradients)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
  assert np.all(np.any(found[1] != 0, axis=-1) == wanted)


def test_nll_and_prediction():
  network, hidden = toys.network(WEIGHTS), hidden_states(17)
  x_0 = toys.clean_tokens(18, BATCH)
  wanted = np.random.default_rng(19).random(x_0.shape) < 0.5
  probs = toys.softmax_np(toys.network_np(WEIGHTS).logits(hidden), toys.MASK)
  both = quick_jit(
    lambda: (
      readout.read_nll(network, hidden, x_0, wanted, toys.MASK, 7),
      readout.read_prediction(network, network, hidden, wanted, toys.MASK, 7),
      *readout.read_nll_and_signal(network, hidden, x_0, wanted, toys.MASK, 7),
    )
  )()
  nll = np.where(wanted, toys.nll_np(probs, x_0), 0)
  signal = np.where(wanted[..., None], probs @ WEIGHTS['table'], 0)
  for found, correct in zip(both, (nll, signal, nll, signal), strict=True):
    np.testing.assert_allclose(found, correct, atol=1e-5)


def test_chunk_size():
  def size(positions, vocab):
    hidden = jnp.zeros((2, positions // 2, 1))
    return readout.chunk_size(toys.fixed_network(np.ones(vocab)), hidden)

  # Scores of up to 16 MiB are read at once: 4096 rows of 1024 tokens.
  assert size(4096, 1024) == 4096
  # Else a quarter of them, and at least 64 ...
  assert size(4098, 1024) == 1025
  assert size(100, 50_000) == 64
  # ... as long as they fit 128 MiB.
  assert size(8192, 50_000) * 4 * 50_000 <= 128 << 20
  assert size(8192, 50_000) > 512


# A vocabulary at which a chunk of 128 MiB is a small part of what [B, L, V] takes.
BATCH_LARGE, LENGTH_LARGE, VOCAB_LARGE, WIDTH = 8, 1024, 131_073, 16


def large_chunk():
  """Positions and scores of a chunk."""
  hidden = jnp.zeros((BATCH_LARGE, LENGTH_LARGE, 1))
  rows = readout.chunk_size(toys.fixed_network(np.ones(VOCAB_LARGE)), hidden)
  assert 10 * rows < BATCH_LARGE * LENGTH_LARGE
  return rows, rows * VOCAB_LARGE


def abstract_weights():
  """Shapes only: nothing here is ever run."""
  plain = toys.weights(vocab=2, length=LENGTH_LARGE, dim=WIDTH)
  wide = {
    'embed': (VOCAB_LARGE, WIDTH),
    'out': (WIDTH, VOCAB_LARGE),
    'table': (VOCAB_LARGE, WIDTH),
  }
  return {
    name: jax.ShapeDtypeStruct(wide.get(name, leaf.shape), leaf.dtype)
    for name, leaf in plain.items()
  }


def sampling_run(self_condition=True, guided=False, **options):
  def run(key, w):
    network = toys.network(w)
    return sample(
      jax.random.split(key, BATCH_LARGE),
      network,
      jnp.full((BATCH_LARGE, LENGTH_LARGE), toys.MASK, jnp.int32),
      Sampler(
        LogLinear(),
        toys.MASK,
        4,
        self_condition=self_condition,
        guidance=Guidance(network, 1.0) if guided else None,
        **options,
      ),
    ).tokens

  return run


def training_run(key, w):
  x_0 = jnp.zeros((BATCH_LARGE, LENGTH_LARGE), jnp.int32)

  def loss(w):
    frozen = toys.network(jax.lax.stop_gradient(w))
    return diffusion_loss(
      key, toys.network(w), frozen, x_0, schedule=LogLinear(), mask_id=3, rate=1.0
    )

  return jax.value_and_grad(loss)(w)


def avals_of(jaxpr):
  """Every intermediate type, also inside loops, branches and recomputed parts."""
  for eqn in jaxpr.eqns:
    yield from (v.aval for v in [*eqn.invars, *eqn.outvars])
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
      if is_jaxpr(value):
        yield from avals_of(getattr(value, 'jaxpr', value))


def is_jaxpr(value):
  return hasattr(value, 'eqns')


@pytest.mark.parametrize(
  'run',
  [
    sampling_run(),
    sampling_run(self_condition=False),
    sampling_run(strategy=P2(), guided=True),
    sampling_run(strategy=Dream('margin'), top_p=0.9),
    training_run,
  ],
)
def test_no_array_holds_the_vocabulary_at_every_position(run):
  jaxpr = jax.make_jaxpr(run)(jax.random.key(0), abstract_weights())
  sizes = [math.prod(a.shape) for a in avals_of(jaxpr.jaxpr) if hasattr(a, 'shape')]
  # The scores of one chunk. Not a kernel [D, V] per chunk either, kept for backward:
  # with 33 chunks that would be more.
  assert max(sizes) == large_chunk()[1]


@pytest.mark.parametrize(
  ('run', 'chunks'),
  # Raw, clean and rearranged scores and weights; and with what is differentiated, two.
  [(sampling_run(strategy=Ancestral()), 4), (training_run, 2)],
)
def test_memory_of_the_compiled_program(run, chunks):
  compiled = jax.jit(run).lower(jax.random.key(0), abstract_weights()).compile()
  found = compiled.memory_analysis().temp_size_in_bytes
  rows, scores = large_chunk()
  everything = 4 * BATCH_LARGE * LENGTH_LARGE * VOCAB_LARGE
  # A tenth of a chunk for all that is not scores, such as [B, L, D].
  assert 4 * scores <= found < 4 * scores * (chunks + 0.1)
  assert found < everything / 7
  assert rows < BATCH_LARGE * LENGTH_LARGE
