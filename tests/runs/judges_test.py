import jax.numpy as jnp
import numpy as np

from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import judges
from tests.compiling import quick_jit
from tests.models.parameters import random_params


def test_last_hidden_is_that_of_the_bare_text():
  config = DecoderConfig(
    vocab_size=11,
    length=8,
    hidden_dim=16,
    num_blocks=2,
    num_heads=2,
    num_kv_heads=2,
    mlp_dim=32,
    causal=True,
  )
  description = ModelDescription(config, mask_id=None, tokenizer='', injection='none')
  params = random_params(description)
  texts = [[3, 1, 4, 1, 5], [9, 2]]
  padded = jnp.array([[*text, *[7] * (6 - len(text))] for text in texts])

  # Operation by operation, each would be compiled alone.
  @quick_jit
  def hidden(params, tokens, ends):
    return judges.last_hidden(denoiser.bind(params, description), tokens, ends)

  @quick_jit
  def encoded(params, tokens):
    nothing = jnp.zeros((*tokens.shape, 16))
    return denoiser.bind(params, description).encode(tokens, nothing, jnp.zeros(1))

  found = hidden(params, padded, jnp.array([4, 1]))
  for text, vector in zip(texts, found, strict=True):
    alone = encoded(params, jnp.array([text]))
    # Sums of another length are rounded otherwise.
    np.testing.assert_allclose(vector, alone[0, -1], atol=1e-5)
