"""Properties of the decoder; `tests/checkpoints` compares it to NumPy."""

import dataclasses

import jax
import numpy as np
import pytest

from scmdm_jax.models.decoder import Decoder
from scmdm_jax.models.description import DecoderConfig, ModelDescription
from tests.compiling import quick_jit
from tests.models import parameters

VOCAB, LENGTH = 9, 6
CONFIG = DecoderConfig(
  VOCAB, LENGTH, 16, num_blocks=2, num_heads=4, num_kv_heads=2, mlp_dim=12
)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH)).astype(np.int32)
SIGMA = np.zeros(3, np.float32)


def params_of(config):
  description = ModelDescription(config, mask_id=None, tokenizer='')
  return parameters.random_params(description, seed=1)['backbone']


def function_of(config, params):
  model = Decoder(config)
  return quick_jit(
    lambda tokens, sigma=SIGMA: model.apply({'params': params}, tokens, sigma)
  )


@pytest.fixture(scope='module')
def causal():
  return function_of(CONFIG, params_of(CONFIG))


@pytest.mark.parametrize('position', range(LENGTH))
def test_causal_logits_never_see_later_tokens(causal, position):
  base = np.asarray(causal(TOKENS))
  tokens = TOKENS.copy()
  tokens[1, position] = (tokens[1, position] + 1) % VOCAB
  found = np.asarray(causal(tokens))
  assert np.array_equal(found[1, :position], base[1, :position])
  assert np.all(np.abs(found[1, position:] - base[1, position:]).max(-1) > 1e-4)
  assert np.array_equal(found[[0, 2]], base[[0, 2]])


def test_prefixes_stand_alone(causal):
  np.testing.assert_allclose(causal(TOKENS[:, :4]), causal(TOKENS)[:, :4], atol=1e-5)


def test_without_the_causal_mask_every_position_sees_all():
  config = dataclasses.replace(CONFIG, causal=False)
  model = function_of(config, params_of(config))
  tokens = TOKENS.copy()
  tokens[:, -1] = (tokens[:, -1] + 1) % VOCAB
  difference = np.abs(np.asarray(model(tokens)) - np.asarray(model(TOKENS)))
  assert np.all(difference.max(-1) > 1e-4)


def test_grouped_heads_equal_full_heads_with_repeated_keys(causal):
  group, size = 2, 4
  full = dataclasses.replace(CONFIG, num_kv_heads=CONFIG.num_heads)

  def repeat(path, leaf):
    if path[-2].key not in ('k_proj', 'v_proj'):
      return leaf
    # Query heads 0 and 1 read head 0, heads 2 and 3 read head 1.
    heads = leaf.reshape(leaf.shape[0], CONFIG.num_kv_heads, size)
    return np.repeat(heads, group, axis=1).reshape(leaf.shape[0], -1)

  params = jax.tree_util.tree_map_with_path(repeat, params_of(CONFIG))
  # Logits of order 1 to 10 in float32.
  np.testing.assert_allclose(
    function_of(full, params)(TOKENS), causal(TOKENS), atol=1e-4
  )


def test_there_is_no_time_input(causal):
  assert np.array_equal(causal(TOKENS, SIGMA), causal(TOKENS, SIGMA + 5))
