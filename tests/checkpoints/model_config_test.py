import pytest

from scmdm_jax.checkpoints.model_config import (
  config_from_description,
  description_from_config,
)
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import DecoderConfig, DiTConfig, ModelDescription
from tests.checkpoints.manifests import LLAMA_CONFIG, MDLM_CONFIG


def test_mdlm_config_as_published():
  # Its conventions: the mask is the last column, no time input, MLP four times wider.
  assert description_from_config(MDLM_CONFIG, 'c') == ModelDescription(
    DiTConfig(11, 12, 16, 2, 2, 8, mlp_ratio=4, time_conditioning=False), 10, '', 'none'
  )


def test_llama_config_as_published():
  assert description_from_config(LLAMA_CONFIG, 'c') == ModelDescription(
    DecoderConfig(11, 12, 16, 2, 4, 2, 24, 10000.0, 1e-5, causal=True), None, '', 'none'
  )


def test_llama_defaults_and_new_rope_field():
  config = LLAMA_CONFIG | {
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e5}
  }
  for name in ('num_key_value_heads', 'rms_norm_eps', 'rope_theta'):
    del config[name]
  arch = description_from_config(config, 'c').architecture
  assert (arch.num_kv_heads, arch.norm_eps, arch.rope_theta) == (4, 1e-6, 5e5)


@pytest.mark.parametrize(
  'description',
  [
    ModelDescription(DiTConfig(11, 12, 16, 2, 2, 8, 3, True), 4, 'qm9', 'gate'),
    ModelDescription(
      DecoderConfig(11, 12, 16, 2, 4, 2, 24, 5e5, 1e-6, False), 7, 'bytes', 'mlp'
    ),
    ModelDescription(DecoderConfig(11, 12, 16, 2, 4, 4, 24), None, '', 'none'),
  ],
)
def test_round_trip(description):
  config = config_from_description(description)
  assert description_from_config(config, 'c') == description


@pytest.mark.parametrize(
  ('base', 'changes', 'message'),
  [
    (MDLM_CONFIG, {'model_type': 'dream'}, "model_type is 'dream'; wanted 'mdlm'"),
    (MDLM_CONFIG, {'n_heads': 3}, 'hidden_dim 16 is not a multiple of num_heads 3'),
    (MDLM_CONFIG, {'n_heads': 16}, 'even head size'),
    (MDLM_CONFIG, {'n_blocks': 0}, 'n_blocks is 0; wanted a positive integer'),
    (MDLM_CONFIG, {'n_blocks': True}, 'n_blocks is True'),
    (MDLM_CONFIG, {'cond_dim': '8'}, "cond_dim is '8'"),
    (MDLM_CONFIG, {'time_conditioning': 'no'}, "time_conditioning is 'no'"),
    (MDLM_CONFIG, {'mask_token_id': 11}, 'outside the vocabulary of 11'),
    (MDLM_CONFIG, {'mask_token_id': 'x'}, "mask_token_id is 'x'"),
    (MDLM_CONFIG, {'self_conditioning': 'magic'}, "injection is 'magic'"),
    (MDLM_CONFIG, {'tokenizer': 3}, 'tokenizer is 3'),
    (LLAMA_CONFIG, {'tie_word_embeddings': True}, 'tie_word_embeddings is True'),
    (LLAMA_CONFIG, {'attention_bias': True}, 'attention_bias is True'),
    (LLAMA_CONFIG, {'rope_scaling': {'factor': 2}}, 'rope_scaling is'),
    (LLAMA_CONFIG, {'rope_parameters': {'rope_type': 'yarn'}}, "rope_type is 'yarn'"),
    (LLAMA_CONFIG, {'hidden_act': 'gelu'}, "hidden_act is 'gelu'"),
    (LLAMA_CONFIG, {'head_dim': 32}, 'head_dim is 32'),
    (
      LLAMA_CONFIG,
      {'num_key_value_heads': 3},
      'not a multiple of num_key_value_heads 3',
    ),
    (LLAMA_CONFIG, {'rms_norm_eps': 0}, 'rms_norm_eps is 0'),
    (LLAMA_CONFIG, {'self_conditioning': 'gate'}, 'needs a mask_id'),
  ],
)
def test_bad_values_name_the_field(base, changes, message):
  with pytest.raises(BadInput) as caught:
    description_from_config(base | changes, 'some/config.json')
  assert str(caught.value).startswith('some/config.json: ')
  assert message in str(caught.value)


def test_all_missing_sizes_come_at_once():
  config = {k: v for k, v in MDLM_CONFIG.items() if k not in ('cond_dim', 'n_heads')}
  with pytest.raises(BadInput, match='no n_heads, cond_dim; wanted all of vocab_size'):
    description_from_config(config, 'c')
