"""Properties of the decoder; `tests/checkpoints` compares it to NumPy."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import Decoder, DecoderConfig, RMSNorm
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


def test_shifted_hidden_states_belong_to_the_next_position():
  config = dataclasses.replace(CONFIG, causal=False)
  params = params_of(config)
  plain = np.asarray(function_of(config, params)(TOKENS))
  shifted = function_of(dataclasses.replace(config, shifted=True), params)(TOKENS)
  wanted = np.concatenate([plain[:, :1], plain[:, :-1]], axis=1)
  # The same product on other rows.
  np.testing.assert_allclose(shifted, wanted, atol=1e-5)


def test_tied_logits_are_the_product_with_the_input_table():
  tied = dataclasses.replace(CONFIG, tied=True)
  params = params_of(tied)
  assert 'lm_head' not in params
  head = {'kernel': params['embed_tokens']['embedding'].T}
  wanted = function_of(CONFIG, params | {'lm_head': head})(TOKENS)
  np.testing.assert_allclose(function_of(tied, params)(TOKENS), wanted, atol=1e-5)


def test_biases_only_on_queries_keys_and_values():
  params = params_of(dataclasses.replace(CONFIG, qkv_bias=True))
  paths = jax.tree_util.tree_leaves_with_path(params)
  biased = {keys[-2].key for keys, _ in paths if keys[-1].key == 'bias'}
  assert biased == {'q_proj', 'k_proj', 'v_proj'}


def test_norm_rounds_as_hugging_face():
  # Normalised in float32, rounded to bfloat16, then multiplied by the weight there.
  rng = np.random.default_rng(3)
  x = (100 * rng.standard_normal((4, 8, 32))).astype(ml_dtypes.bfloat16)
  scale = rng.standard_normal(32).astype(ml_dtypes.bfloat16)
  found = RMSNorm(1e-6).apply({'params': {'scale': scale}}, x)
  wide = x.astype(np.float32)
  wide = wide / np.sqrt(np.mean(wide * wide, -1, keepdims=True) + np.float32(1e-6))
  wanted = wide.astype(ml_dtypes.bfloat16) * scale
  assert found.dtype == ml_dtypes.bfloat16
  assert np.mean(np.asarray(found) == wanted) > 0.99  # A tie may round either way.
  np.testing.assert_allclose(
    np.asarray(found, np.float32), wanted.astype(np.float32), rtol=2**-6
  )
