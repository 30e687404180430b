"""Properties of GPT-2; `tests/checkpoints` compares it to PyTorch."""

import jax
import numpy as np
import pytest

from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.gpt2 import GPT2, GPT2Config
from tests.compiling import quick_jit
from tests.models import parameters

VOCAB, LENGTH = 9, 6
CONFIG = GPT2Config(VOCAB, LENGTH, 16, num_blocks=2, num_heads=4, mlp_dim=12)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH)).astype(np.int32)
SIGMA = np.zeros(3, np.float32)


@pytest.fixture(scope='module')
def params():
  description = ModelDescription(CONFIG, mask_id=None, tokenizer='')
  return {'params': parameters.random_params(description, seed=1)['backbone']}


@pytest.fixture(scope='module')
def model(params):
  return quick_jit(lambda tokens: GPT2(CONFIG).apply(params, tokens, SIGMA))


@pytest.mark.parametrize('position', range(LENGTH))
def test_causal_logits_never_see_later_tokens(model, position):
  base = np.asarray(model(TOKENS))
  tokens = TOKENS.copy()
  tokens[1, position] = (tokens[1, position] + 1) % VOCAB
  found = np.asarray(model(tokens))
  assert np.array_equal(found[1, :position], base[1, :position])
  assert np.all(np.abs(found[1, position:] - base[1, position:]).max(-1) > 1e-4)
  assert np.array_equal(found[[0, 2]], base[[0, 2]])


def test_positions_enter_after_the_embedding(params):
  # So that a signal is added to token embeddings alone, as in every architecture.
  found = GPT2(CONFIG).apply(params, TOKENS, method='embed')
  assert np.array_equal(found, params['params']['wte']['embedding'][TOKENS])


def test_more_tokens_than_positions_are_refused(params):
  tokens = np.zeros((1, LENGTH + 1), np.int32)
  with pytest.raises(ValueError, match='length is 7; wanted at most 6'):
    jax.eval_shape(lambda: GPT2(CONFIG).apply(params, tokens, SIGMA[:1]))
