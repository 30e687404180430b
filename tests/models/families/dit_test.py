"""Properties of the transformer; `tests/checkpoints` compares it to PyTorch."""

import jax
import numpy as np
import pytest

from scmdm_jax.models.attention import EVERYBODY
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiT, DiTConfig, timestep_embedding
from tests.compiling import quick_jit
from tests.models import parameters

VOCAB, LENGTH, DIM = 9, 6, 16
CONFIG = DiTConfig(VOCAB, LENGTH, DIM, num_blocks=1, num_heads=2, cond_dim=8)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH)).astype(np.int32)
SIGMA = np.float32([0.0, 0.5, 4.0])


def model_of(time_conditioning=False, num_classes=0):
  config = DiTConfig(
    VOCAB,
    LENGTH,
    DIM,
    num_blocks=2,
    num_heads=2,
    cond_dim=8,
    time_conditioning=time_conditioning,
    num_classes=num_classes,
  )
  description = ModelDescription(config, mask_id=8, tokenizer='')
  params = parameters.random_params(description, seed=1, scale=0.3)
  model = DiT(config)
  params = {'params': params['backbone']}

  def logits(tokens, sigma, classes=None):
    x = model.apply(params, tokens, method='embed')
    hidden = model.apply(params, x, sigma, EVERYBODY, classes, method='encode')
    return model.apply(params, hidden, method='logits')

  return quick_jit(logits)


@pytest.fixture(scope='module')
def blind():
  return model_of(time_conditioning=False)


def test_timestep_embedding_is_cosines_then_sines():
  found = np.asarray(timestep_embedding(SIGMA))
  wanted = np.zeros((3, 256))
  for i, sigma in enumerate(SIGMA):
    for j in range(128):
      angle = sigma * 10000 ** (-j / 128)
      wanted[i, j], wanted[i, 128 + j] = np.cos(angle), np.sin(angle)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  assert np.array_equal(found[0], [1] * 128 + [0] * 128)


def test_noise_level_is_ignored_without_time_conditioning(blind):
  one, other = blind(TOKENS, SIGMA), blind(TOKENS, SIGMA[::-1].copy())
  assert np.array_equal(one, other)
  assert one.shape == (3, LENGTH, VOCAB) and one.dtype == np.float32


def test_noise_level_is_used_with_time_conditioning(blind):
  aware = model_of(time_conditioning=True)
  one = np.asarray(aware(TOKENS, SIGMA))
  other = np.asarray(aware(TOKENS, np.float32([0.0, 0.5, 1.0])))
  assert np.array_equal(one[:2], other[:2])
  assert np.abs(one[2] - other[2]).max() > 0.01
  # sigma = 0 is what the other kind always sees.
  np.testing.assert_allclose(one[0], blind(TOKENS, SIGMA)[0], atol=1e-5)


def test_classes_are_one_per_example_and_the_last_row_is_none():
  model = model_of(num_classes=2)
  base = np.asarray(model(TOKENS, SIGMA, np.int32([0, 1, 2])))
  other = np.asarray(model(TOKENS, SIGMA, np.int32([0, 0, 1])))
  assert np.array_equal(base[0], other[0])
  assert np.all(np.abs(base - other).max((1, 2))[1:] > 0.01)
  null = np.asarray(model(TOKENS, SIGMA))
  assert np.array_equal(null[2], base[2])
  assert np.all(np.abs(null - base).max((1, 2))[:2] > 0.01)


def test_sees_both_directions_and_no_other_example(blind):
  base = np.asarray(blind(TOKENS, SIGMA))
  for position in (0, LENGTH - 1):
    tokens = TOKENS.copy()
    tokens[1, position] = (tokens[1, position] + 1) % VOCAB
    found = np.asarray(blind(tokens, SIGMA))
    assert np.array_equal(found[[0, 2]], base[[0, 2]])
    assert np.all(np.abs(found[1] - base[1]).max(-1) > 1e-4)


def test_order_matters(blind):
  found = np.asarray(blind(TOKENS[:, ::-1].copy(), SIGMA))[:, ::-1]
  assert np.abs(found - blind(TOKENS, SIGMA)).max() > 0.01


@pytest.mark.slow
def test_with_a_grid_rows_and_columns_matter():
  def model(grid):
    config = DiTConfig(VOCAB, 7, DIM, num_blocks=2, num_heads=2, cond_dim=8, grid=grid)
    description = ModelDescription(config, mask_id=8, tokenizer='')
    params = parameters.random_params(description, seed=1, scale=0.3)['backbone']
    module = DiT(config)
    return quick_jit(lambda x: module.apply({'params': params}, x, SIGMA[:1]))

  tokens = np.random.default_rng(4).integers(0, VOCAB, (1, 7)).astype(np.int32)
  logits = {
    grid: np.asarray(model(grid)(tokens)) for grid in ((), (1, 2, 3), (1, 3, 2))
  }
  assert np.abs(logits[()] - logits[1, 2, 3]).max() > 0.01
  assert np.abs(logits[1, 3, 2] - logits[1, 2, 3]).max() > 0.01


def test_within_a_window_a_block_sees_neighbours_and_the_first():
  length, window = 12, 2
  config = DiTConfig(
    VOCAB, length, DIM, num_blocks=1, num_heads=2, cond_dim=8, window=window
  )
  description = ModelDescription(config, mask_id=8, tokenizer='')
  params = parameters.random_params(description, seed=1, scale=0.3)['backbone']
  logits = quick_jit(lambda x: DiT(config).apply({'params': params}, x, SIGMA[:1]))
  tokens = np.random.default_rng(4).integers(0, VOCAB, (1, length)).astype(np.int32)
  base = np.asarray(logits(tokens))
  for position in range(length):
    changed = tokens.copy()
    changed[0, position] = (tokens[0, position] + 1) % VOCAB
    moved = np.abs(np.asarray(logits(changed)) - base).max((0, 2)) > 1e-6
    near = np.abs(np.arange(length) - position) <= window
    near[0] = True
    assert np.array_equal(moved, near if position else np.ones(length, bool))


def test_fresh_blocks_are_the_identity():
  # MDLM's zeros: every block starts closed, the head at equal scores.
  model = DiT(CONFIG)

  @quick_jit
  def fresh(key, tokens, sigma):
    params = model.init(key, tokens, sigma)
    x = model.apply(params, tokens, method='embed')
    hidden = model.apply(params, x, sigma, method='encode')
    return params, x, hidden, model.apply(params, hidden, method='logits')

  params, x, hidden, logits = fresh(jax.random.key(2), TOKENS, SIGMA)
  x = np.asarray(x, np.float64)
  variance = x.var(-1, keepdims=True)
  wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-5)
  np.testing.assert_allclose(hidden, wanted, atol=1e-4)
  assert np.all(np.asarray(logits) == 0)
  table = np.asarray(params['params']['vocab_embed']['embedding'])
  bound = 1 / np.sqrt(DIM)
  # Uniform within the bound: VOCAB * DIM = 144 draws come within 10% of it.
  assert 0.9 * bound < np.abs(table).max() <= bound
  assert np.array_equal(x.astype(np.float32), table[TOKENS])
