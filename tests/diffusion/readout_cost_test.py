"""Reading in chunks: the same numbers, for work and memory of what is wanted only."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.gathering import over_wanted
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.objectives import diffusion_loss
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


def elementwise(inputs):
  """Arithmetic of each row alone, so that all results are equal to the last bit."""
  x, n = inputs
  return {'sine': jnp.sin(x) * 3, 'int': n + 1}


INPUTS = (hidden_states(8), np.arange(BATCH * toys.LENGTH).reshape(BATCH, toys.LENGTH))


# 30 positions: 30 and 5 divide them, 7 does not, 64 is more.
@pytest.mark.parametrize('chunk', [1, 5, 7, 30, 64])
def test_over_wanted(chunk):
  run = quick_jit(lambda w, x: over_wanted(elementwise, w, x, toys.Shards(), chunk))
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


@pytest.mark.parametrize('chunk', [1, 4, 10])
def test_shards_read_the_same(chunk):
  # 3 shards of 10 positions; a chunk takes as many of each.
  plain = jax.tree.map(np.asarray, quick_jit(elementwise)(INPUTS))
  rng = np.random.default_rng(10)
  wanted = rng.random(INPUTS[1].shape) < np.array([[0.1, 0.1, 0.5, 0.5, 1, 1]]).T
  seen = []

  def read(inputs):
    jax.debug.callback(lambda n: seen.append(np.asarray(n)), inputs[1])
    return elementwise(inputs)

  run = quick_jit(lambda w, x: over_wanted(read, w, x, toys.Shards(3), chunk))
  found = run(wanted, INPUTS)
  jax.effects_barrier()
  assert np.array_equal(found['sine'], np.where(wanted[..., None], plain['sine'], 0))
  assert np.array_equal(found['int'], np.where(wanted, plain['int'], 0))
  for rows in seen:
    # A run of rows for each shard, of its own positions alone.
    for shard, numbers in enumerate(np.split(rows, 3)):
      assert np.all(numbers // 10 == shard)
  most = max(int(part.sum()) for part in np.split(wanted, 3))
  assert len(seen) == math.ceil(most / chunk)


def test_work_is_proportional_to_the_number_wanted():
  calls = []

  def counted(x):
    jax.debug.callback(lambda: calls.append(1))
    return x * 2

  chunk = 4
  run = quick_jit(lambda w, x: over_wanted(counted, w, x, toys.Shards(), chunk))
  x = hidden_states(13)
  for count in (0, 1, 4, 5, 17, 30):
    calls.clear()
    wanted = np.random.default_rng(count).permutation(30).reshape(BATCH, -1) < count
    run(wanted, x)
    jax.effects_barrier()
    assert len(calls) == math.ceil(count / chunk)


def test_no_key_is_used_twice():
  def run(keys, wanted):
    return over_wanted(
      jax.vmap(jax.random.uniform), wanted, keys, toys.Shards(), chunk=4
    )

  keys = quick_jit(lambda key: jax.random.split(key, (BATCH, toys.LENGTH)))(
    jax.random.key(0)
  )
  wanted = np.ones(keys.shape, bool)
  with jax.debug_key_reuse(True):
    found = np.asarray(quick_jit(run)(keys, wanted))
  assert len(np.unique(found)) == found.size


@functools.partial(quick_jit, static_argnums=3)
def gradients(w, hidden, wanted, chunk):
  """Of a sum of -log p, by weights and hidden states; chunk 0 is one plain product."""
  x_0 = jnp.asarray(toys.clean_tokens(14, BATCH))

  def loss(w, hidden):
    network = toys.network(w)
    if chunk:
      nll = readout.read_nll(network, hidden, x_0, wanted, toys.MASK, chunk)
    else:
      log_probs = jax.nn.log_softmax(readout.read_logits(network, hidden, toys.MASK))
      nll = -jnp.take_along_axis(log_probs, x_0[..., None], axis=-1)[..., 0]
      nll = jnp.where(wanted, nll, 0)
    # Another weight for every position, so that a mix-up would show.
    return jnp.sum(nll * jnp.arange(1.0, 31).reshape(BATCH, -1))

  return jax.grad(loss, argnums=(0, 1))(w, hidden)


@pytest.mark.parametrize('chunk', [4, 5, 30])
def test_gradients_equal_those_of_one_product(chunk):
  hidden = hidden_states(16)
  for count in (0, 13, 30):
    wanted = np.random.default_rng(15).permutation(30).reshape(BATCH, -1) < count
    found = gradients(WEIGHTS, hidden, wanted, chunk)
    plain = gradients(WEIGHTS, hidden, wanted, 0)
    # Sums of 30 float32 terms of up to 100.
    for a, b in zip(*map(jax.tree.leaves, (found, plain)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
    assert np.array_equal(np.any(found[1] != 0, axis=-1), wanted)


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
    return readout.chunk_size(toys.fixed_network(np.ones(vocab)), positions)

  # Scores of up to 16 MiB are read at once: 4096 rows of 1024 tokens.
  assert size(4096, 1024) == 4096
  # Else a quarter of them, in whole 64s ...
  assert size(4098, 1024) == 1088
  assert size(100, 50_000) == 64
  # ... as long as they fit 128 MiB.
  assert size(8192, 50_000) * 4 * 50_000 <= 128 << 20
  assert size(8192, 50_000) > 512


# A vocabulary at which a chunk of 128 MiB is a small part of what [B, L, V] takes.
BATCH_LARGE, LENGTH_LARGE, VOCAB_LARGE, WIDTH = 8, 1024, 131_073, 16


def large_chunk():
  """Positions and scores of a chunk."""
  network = toys.fixed_network(np.ones(VOCAB_LARGE))
  rows = readout.chunk_size(network, BATCH_LARGE * LENGTH_LARGE)
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


def sampling_run(self_conditioning=True, guided=False, **options):
  def run(key, w):
    network = toys.network(w)
    return sample(
      jax.random.split(key, BATCH_LARGE),
      network,
      jnp.full((BATCH_LARGE, LENGTH_LARGE), toys.MASK, jnp.int32),
      Sampler(
        4,
        self_conditioning=self_conditioning,
        guidance=Guidance(1.0) if guided else None,
        **options,
      ),
      mask_id=toys.MASK,
      unconditional=network if guided else None,
    ).tokens

  return run


def training_run(key, w):
  x_0 = jnp.zeros((BATCH_LARGE, LENGTH_LARGE), jnp.int32)

  def loss(w):
    frozen = toys.network(jax.lax.stop_gradient(w))
    return diffusion_loss(
      key,
      toys.network(w),
      frozen,
      batch_of(x_0),
      schedule=LogLinear(),
      mask_id=3,
      rate=1.0,
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
    sampling_run(self_conditioning=False),
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
