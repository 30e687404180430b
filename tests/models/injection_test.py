"""Injections against NumPy, and their promises about zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.models.injection import expected_row, make_injection, row_of_halves

VOCAB, DIM = 7, 6
NAMES = ['embedding', 'mlp', 'table', 'gate']


def module_and_params(name, seed=0):
  """Parameters of the right shapes with every number random."""
  module = make_injection(name, VOCAB, DIM)
  shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, DIM)))
  rng = np.random.default_rng(seed)
  return module, jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes
  )


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def by_hand(name, params, signal):
  if name == 'embedding':
    return signal @ params['projection']['kernel']
  if name == 'gate':
    return np.tanh(params['gate']) * signal
  if name == 'table':
    return signal
  size = np.sqrt(np.mean(signal**2, axis=-1, keepdims=True) + 1e-6)
  x = signal / size * params['norm']['scale']
  gated = gelu(x @ params['gate']['kernel']) * (x @ params['up']['kernel'])
  return gated @ params['down']['kernel']


@pytest.mark.parametrize('name', NAMES)
def test_against_numpy(name):
  module, params = module_and_params(name)
  signal = np.random.default_rng(1).standard_normal((2, 3, DIM)).astype(np.float32)
  wanted = by_hand(name, params['params'], signal)
  np.testing.assert_allclose(module.apply(params, signal), wanted, atol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_null_signal_stays_an_exact_zero(name):
  module, params = module_and_params(name)
  found = np.asarray(module.apply(params, np.zeros((2, 3, DIM), np.float32)))
  assert np.all(found == 0)
  # And zero parameters are not the reason.
  other = np.asarray(module.apply(params, np.ones((2, 3, DIM), np.float32)))
  assert np.all(np.any(other != 0, axis=-1))


def test_table_lookup_is_the_expected_row():
  module, params = module_and_params('table')
  probs = np.random.default_rng(2).dirichlet(np.ones(VOCAB), (2, 3))
  others = np.full((VOCAB, DIM), np.nan, np.float32)  # The model's own: not read.
  found = module.apply(params, probs.astype(np.float32), others, 0, method='signal')
  np.testing.assert_allclose(found, probs @ params['params']['table'], atol=1e-5)


def test_signal_of_the_gate():
  module, params = module_and_params('gate')
  rng = np.random.default_rng(3)
  table = rng.standard_normal((VOCAB, DIM))
  probs = np.concatenate([rng.dirichlet(np.ones(VOCAB), 3), np.eye(VOCAB)[2:3]])
  wanted = [
    sum(weight * row for weight, row in zip(p, table, strict=True)) - table[4]
    for p in probs
  ]

  def signal(weights):
    arrays = (np.float32(weights), np.float32(table), 4)
    return np.asarray(module.apply(params, *arrays, method='signal'))

  # Float32 against float64, of numbers of order 1.
  np.testing.assert_allclose(signal(probs), wanted, atol=1e-5)
  # Readers divide by the sum afterwards: linear along a ray.
  np.testing.assert_allclose(signal(3 * probs) / 3, wanted, atol=1e-5)


def test_unknown_name():
  with pytest.raises(KeyError, match='concat'):
    make_injection('concat', VOCAB, DIM)


def test_rows_of_two_halves_are_those_of_float32():
  rng = np.random.default_rng(3)
  probs = rng.dirichlet(np.full(500, 0.1), size=4).astype(np.float32)
  table = jnp.asarray(rng.standard_normal((500, 8)), jnp.bfloat16)
  wanted = np.float64(probs) @ np.float64(table)
  # Of every weight 2^-17 is lost, and float32 sums lose less.
  bound = 2.0**-16 * (np.float64(probs) @ np.abs(np.float64(table)))
  assert np.all(np.abs(jax.jit(row_of_halves)(probs, table) - wanted) < bound)
  assert np.all(np.abs(jax.jit(expected_row)(probs, table) - wanted) < bound)
  # One half alone would be off by more.
  rounded = np.float64(probs.astype(jnp.bfloat16)) @ np.float64(table)
  assert np.any(np.abs(rounded - wanted) > bound)
