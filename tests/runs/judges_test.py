import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import judges


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
  params = denoiser.init_params(jax.random.key(0), description)
  network = denoiser.bind(params, description)
  texts = [[3, 1, 4, 1, 5], [9, 2]]
  padded = jnp.array([[*text, *[7] * (6 - len(text))] for text in texts])
  found = judges.last_hidden(network, padded, jnp.array([4, 1]))
  for text, vector in zip(texts, found, strict=True):
    tokens = jnp.array([text])
    alone = network.encode(tokens, jnp.zeros((1, len(text), 16)), jnp.zeros((1,)))
    # Sums of another length are rounded otherwise.
    np.testing.assert_allclose(vector, alone[0, -1], atol=1e-5)
