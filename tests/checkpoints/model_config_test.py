import dataclasses
import json

import pytest

from scmdm_jax.checkpoints.model_config import (
  config_from_description,
  description_from_config,
)
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.gpt2 import GPT2Config
from scmdm_jax.models.families.llama import DecoderConfig
from tests.checkpoints.manifests import (
  CASES,
  DREAM_CONFIG,
  GPT2_CONFIG,
  LLADA_CONFIG,
  LLAMA_CONFIG,
  MDLM_CONFIG,
  QWEN2_CONFIG,
  TIED_LLAMA_CONFIG,
  UDLM_CONFIG,
)

DIT = DiTConfig(11, 12, 16, 2, 2, 8)
LLAMA = DecoderConfig(11, 12, 16, 2, 4, 2, 24, 10000.0, 1e-5)
QWEN2 = dataclasses.replace(LLAMA, rope_theta=1e6, norm_eps=1e-6, qkv_bias=True)
DREAM = dataclasses.replace(QWEN2, causal=False, shifted=True)
LLADA = DecoderConfig(11, 12, 16, 2, 4, 4, 24, 5e5, 1e-5, causal=False)
GPT2 = GPT2Config(11, 12, 16, 2, 2, 64)


@pytest.mark.parametrize(
  ('config', 'description'),
  [
    # The mask is the last column, no time input, the MLP four times wider.
    (MDLM_CONFIG, ModelDescription(DIT, 10, '')),
    # Neither has a mask, and the second was trained with classes.
    (
      UDLM_CONFIG | {'cfg': False, 'cfg_num_classes': -1},
      ModelDescription(
        dataclasses.replace(DIT, time_conditioning=True), None, '', noise='uniform'
      ),
    ),
    (
      UDLM_CONFIG,
      ModelDescription(
        dataclasses.replace(DIT, time_conditioning=True, num_classes=3),
        None,
        '',
        noise='uniform',
      ),
    ),
    (LLAMA_CONFIG, ModelDescription(LLAMA, None, '')),
    (
      TIED_LLAMA_CONFIG,
      ModelDescription(dataclasses.replace(LLAMA, tied=True), None, ''),
    ),
    (QWEN2_CONFIG, ModelDescription(QWEN2, None, '', family='qwen2')),
    (DREAM_CONFIG, ModelDescription(DREAM, 9, '', family='dream')),
    (LLADA_CONFIG, ModelDescription(LLADA, 9, '', family='llada')),
    (GPT2_CONFIG, ModelDescription(GPT2, None, '')),
  ],
  ids=lambda x: x['model_type'] if isinstance(x, dict) else '',
)
def test_configs_as_published(config, description):
  assert description_from_config(config, 'c') == description
  # `null` says as little as nothing.
  nulls = {name: config.get(name) for name in ('rope_parameters', 'head_dim', 'cfg')}
  assert description_from_config(config | nulls, 'c') == description


def test_llama_defaults_and_new_rope_field():
  config = LLAMA_CONFIG | {
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e5}
  }
  for name in ('num_key_value_heads', 'rms_norm_eps', 'rope_theta'):
    del config[name]
  arch = description_from_config(config, 'c').architecture
  assert (arch.num_kv_heads, arch.norm_eps, arch.rope_theta) == (4, 1e-6, 5e5)


@pytest.mark.parametrize(
  ('config', 'changes', 'field', 'value'),
  [
    (LLAMA_CONFIG, {'num_key_value_heads': None}, 'num_kv_heads', 4),
    (LLAMA_CONFIG, {'head_dim': 4}, 'num_kv_heads', 2),
    (LLAMA_CONFIG, {'rope_theta': 100000}, 'rope_theta', 100000.0),
    (LLAMA_CONFIG, {'rope_parameters': {'rope_theta': 3e5}}, 'rope_theta', 3e5),
    (LLAMA_CONFIG, {'causal': False}, 'causal', False),
    (QWEN2_CONFIG, {'layer_types': ['full_attention'] * 2}, 'num_blocks', 2),
    (LLADA_CONFIG, {'n_kv_heads': None}, 'num_kv_heads', 4),
    (LLADA_CONFIG, {'n_kv_heads': 2}, 'num_kv_heads', 2),
    (LLADA_CONFIG, {'multi_query_attention': False}, 'num_kv_heads', 4),
    (LLADA_CONFIG, {'include_qkv_bias': True}, 'qkv_bias', True),
    (LLADA_CONFIG, {'weight_tying': True}, 'tied', True),
    (LLADA_CONFIG, {'embedding_size': None}, 'vocab_size', 11),
    (LLADA_CONFIG, {'rope_theta': 12345.5}, 'rope_theta', 12345.5),
    (LLADA_CONFIG, {'rms_norm_eps': 1e-3}, 'norm_eps', 1e-3),
    (GPT2_CONFIG, {'n_inner': 40}, 'mlp_dim', 40),
    (GPT2_CONFIG, {'n_inner': None}, 'mlp_dim', 64),
    (GPT2_CONFIG, {'n_positions': None, 'n_ctx': 7}, 'length', 7),
    (GPT2_CONFIG, {'layer_norm_epsilon': 1e-3}, 'norm_eps', 1e-3),
    (GPT2_CONFIG, {'activation_function': 'gelu_pytorch_tanh'}, 'num_blocks', 2),
    (UDLM_CONFIG, {'time_conditioning': None}, 'time_conditioning', True),
    (MDLM_CONFIG, {'time_conditioning': None}, 'time_conditioning', False),
  ],
)
def test_fields_mean_what_they_mean_there(config, changes, field, value):
  found = getattr(description_from_config(config | changes, 'c').architecture, field)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  ('config', 'mask_id', 'wanted'),
  [
    (MDLM_CONFIG, None, 10),
    (MDLM_CONFIG, 0, 0),
    (UDLM_CONFIG, None, None),
    (UDLM_CONFIG, 2, 2),
    (LLAMA_CONFIG, None, None),
    (DREAM_CONFIG, 3, 3),
    (LLADA_CONFIG, 3, 3),
  ],
)
def test_mask(config, mask_id, wanted):
  found = description_from_config(config | {'mask_token_id': mask_id}, 'c')
  assert found.mask_id == wanted


@pytest.mark.parametrize('config', [LLADA_CONFIG, DREAM_CONFIG])
def test_mask_is_never_guessed(config):
  for changes in ({'mask_token_id': None}, {}):
    config = {k: v for k, v in config.items() if k != 'mask_token_id'} | changes
    with pytest.raises(BadInput, match='c: no mask_token_id'):
      description_from_config(config, 'c')


def test_how_rows_were_framed_is_said_where_it_is_known():
  assert description_from_config(MDLM_CONFIG, 'c').framing == ''
  found = description_from_config(MDLM_CONFIG | {'framing': 'start_end'}, 'c')
  assert found.framing == 'start_end'
  assert config_from_description(found, 'float32')['framing'] == 'start_end'
  plain = dataclasses.replace(found, framing='')
  assert 'framing' not in config_from_description(plain, 'float32')
  with pytest.raises(BadInput, match="c: framing is 'chat'; wanted one of"):
    description_from_config(MDLM_CONFIG | {'framing': 'chat'}, 'c')


def test_rows_beyond_the_vocabulary_are_undefined():
  found = description_from_config(LLADA_CONFIG | {'embedding_size': 16}, 'c')
  assert found.architecture.vocab_size == 16
  assert found.undefined_ids == ((11, 16),)


OF_OURS = [
  ModelDescription(DiTConfig(11, 12, 16, 2, 2, 8, 3, True), 4, 'qm9', 'gate'),
  ModelDescription(dataclasses.replace(DIT, num_classes=2), 4, ''),
  ModelDescription(DIT, 4, '', 'mlp', noise='uniform'),
  ModelDescription(DIT, 4, '', framing='start_end'),
  ModelDescription(LLAMA, None, '', framing='none'),
  ModelDescription(DIT, 4, '', undefined_ids=((2, 3), (7, 11))),
  ModelDescription(LLADA, 3, '', family='llada', undefined_ids=((8, 11),)),
  ModelDescription(dataclasses.replace(GPT2, tied=False), None, ''),
  ModelDescription(dataclasses.replace(LLAMA, causal=False), 7, 'bytes', 'mlp'),
  ModelDescription(dataclasses.replace(LLADA, num_kv_heads=2), 7, '', family='llada'),
]
PUBLISHED = [description_from_config(config, 'c') for config, _ in CASES.values()]


@pytest.mark.parametrize('description', OF_OURS + PUBLISHED)
def test_round_trip(description):
  config = config_from_description(description, 'bfloat16')
  assert json.loads(json.dumps(config)) == config
  assert config['torch_dtype'] == 'bfloat16'
  assert description_from_config(config, 'c') == description


@pytest.mark.parametrize('config', [config for config, _ in CASES.values()])
def test_export_says_what_the_import_said(config):
  found = config_from_description(description_from_config(config, 'c'), 'float32')
  # Of the source's own fields those that say something about the network.
  silent = {
    *('auto_map', 'dropout', 'max_window_layers', 'sliding_window', 'mlp_ratio'),
    *('alibi_bias_max', 'attention_dropout', 'attention_layer_norm_with_affine'),
    *('block_group_size', 'embedding_dropout', 'flash_attention', 'precision'),
    *('residual_dropout', 'rope_full_precision', 'attn_pdrop', 'n_ctx'),
    *('bos_token_id', 'eos_token_id', 'pad_token_id'),
  }
  assert {k: found.get(k) for k in config if k not in silent} == {
    k: v for k, v in config.items() if k not in silent
  }


@pytest.mark.parametrize(
  'description',
  [
    # Biases only on queries, keys and values; Dream without its shift; a mask less.
    ModelDescription(dataclasses.replace(LLAMA, qkv_bias=True), None, ''),
    ModelDescription(dataclasses.replace(DREAM, shifted=False), 9, '', family='dream'),
    ModelDescription(LLADA, 9, '', family='llada', noise='uniform'),
  ],
)
def test_what_a_layout_cannot_say_is_no_export(description):
  with pytest.raises(BadInput, match='layout cannot say what this model is'):
    config_from_description(description, 'float32')


def test_the_fingerprint_stays_behind():
  description = ModelDescription(
    LLADA, 9, '', family='llada', fingerprint='abc', undefined_ids=((10, 11),)
  )
  found = description_from_config(config_from_description(description, 'float32'), 'c')
  assert found == dataclasses.replace(description, fingerprint='')


@pytest.mark.parametrize(
  ('base', 'changes', 'message'),
  [
    (MDLM_CONFIG, {'model_type': 'dream'}, "model_type is 'dream'; wanted one of"),
    (MDLM_CONFIG, {'model_type': ['mdlm']}, "model_type is ['mdlm']"),
    (MDLM_CONFIG, {'n_heads': 3}, 'hidden_dim 16 is not a multiple of num_heads 3'),
    (MDLM_CONFIG, {'n_heads': 16}, 'even head size'),
    (MDLM_CONFIG, {'n_blocks': 0}, 'n_blocks is 0; wanted a positive integer'),
    (MDLM_CONFIG, {'n_blocks': True}, 'n_blocks is True'),
    (MDLM_CONFIG, {'cond_dim': '8'}, "cond_dim is '8'"),
    (MDLM_CONFIG, {'time_conditioning': 'no'}, "time_conditioning is 'no'"),
    (MDLM_CONFIG, {'mask_token_id': 11}, 'outside the vocabulary of 11'),
    (MDLM_CONFIG, {'mask_token_id': 'x'}, "mask_token_id is 'x'"),
    (DREAM_CONFIG, {'mask_token_id': 8}, 'pad_token_id is 8, and so is the mask'),
    (LLADA_CONFIG, {'eos_token_id': [3, 9]}, 'eos_token_id is [3, 9], and so is'),
    (MDLM_CONFIG, {'mask_token_id': True}, 'mask_token_id is True'),
    (MDLM_CONFIG, {'self_conditioning': 'magic'}, "injection is 'magic'"),
    (MDLM_CONFIG, {'tokenizer': 3}, 'tokenizer is 3'),
    (UDLM_CONFIG, {'cfg_num_classes': -1}, 'cfg_num_classes is -1'),
    (UDLM_CONFIG, {'cfg': 1}, 'cfg is 1'),
    (UDLM_CONFIG, {'self_conditioning': 'gate'}, 'needs a mask_id'),
    (LLAMA_CONFIG, {'tie_word_embeddings': 1}, 'tie_word_embeddings is 1'),
    (LLAMA_CONFIG, {'attention_bias': True}, 'attention_bias is True'),
    (LLAMA_CONFIG, {'mlp_bias': True}, 'mlp_bias is True'),
    (LLAMA_CONFIG, {'rope_scaling': {'factor': 2}}, "has ['factor'] without"),
    (
      LLAMA_CONFIG,
      {'rope_parameters': {'rope_type': 'yarn'}},
      "rope scaling 'yarn' has",
    ),
    (
      LLAMA_CONFIG,
      {'rope_scaling': {'type': 'longrope', 'factor': 1}},
      "'longrope'; only",
    ),
    (LLAMA_CONFIG, {'rope_scaling': {'type': 'yarn', 'factor': 0}}, 'factor is 0'),
    (
      LLADA_CONFIG,
      {'rope_scaling': {'type': 'linear', 'factor': 2}},
      'none is computed in the llada layout',
    ),
    (MDLM_CONFIG, {'undefined_ids': [[3, 99]]}, 'undefined_ids has [3, 99)'),
    (MDLM_CONFIG, {'undefined_ids': [3]}, 'undefined_ids is [3]; wanted pairs'),
    (MDLM_CONFIG, {'undefined_ids': [['a', None]]}, 'invalid literal'),
    (
      LLAMA_CONFIG,
      {'rope_parameters': {'full_attention': {'rope_theta': 1e4}}},
      "rope_parameters has ['full_attention']",
    ),
    (LLAMA_CONFIG, {'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5'),
    (LLAMA_CONFIG, {'hidden_act': 'gelu'}, "hidden_act is 'gelu'"),
    (LLADA_CONFIG, {'head_dim': 32}, 'head_dim is 32'),
    (LLAMA_CONFIG, {'head_dim': 3}, 'rotary positions want an even head size'),
    (LLAMA_CONFIG, {'num_key_value_heads': 3}, 'num_kv_heads 3 does not divide'),
    (LLAMA_CONFIG, {'rms_norm_eps': 0}, 'rms_norm_eps is 0'),
    (LLAMA_CONFIG, {'rope_theta': float('inf')}, 'rope_theta is inf'),
    (LLAMA_CONFIG, {'rope_theta': float('nan')}, 'rope_theta is nan'),
    (LLAMA_CONFIG, {'rope_theta': 10**400}, 'rope_theta is 1000'),
    (LLAMA_CONFIG, {'self_conditioning': 'gate'}, 'needs a mask_id'),
    (QWEN2_CONFIG, {'use_sliding_window': True}, 'use_sliding_window is True'),
    (
      QWEN2_CONFIG,
      {'layer_types': ['full_attention', 'sliding_attention']},
      "layer_types is ['full_attention', 'sliding_attention']",
    ),
    (DREAM_CONFIG, {'use_mrope': True}, 'use_mrope is True'),
    (DREAM_CONFIG, {'mask_token_id': 11}, 'outside the vocabulary of 11'),
    (LLADA_CONFIG, {'activation_type': 'swiglu'}, "activation_type is 'swiglu'"),
    (LLADA_CONFIG, {'block_type': 'sequential'}, "block_type is 'sequential'"),
    (LLADA_CONFIG, {'layer_norm_type': 'default'}, "layer_norm_type is 'default'"),
    (LLADA_CONFIG, {'rope': False}, 'rope is False'),
    (LLADA_CONFIG, {'alibi': True}, 'alibi is True'),
    (LLADA_CONFIG, {'include_bias': True}, 'include_bias is True'),
    (LLADA_CONFIG, {'bias_for_layer_norm': True}, 'bias_for_layer_norm is True'),
    (LLADA_CONFIG, {'attention_layer_norm': True}, 'attention_layer_norm is True'),
    (LLADA_CONFIG, {'multi_query_attention': True}, 'multi_query_attention is True'),
    (LLADA_CONFIG, {'scale_logits': True}, 'scale_logits is True'),
    (LLADA_CONFIG, {'input_emb_norm': True}, 'input_emb_norm is True'),
    (LLADA_CONFIG, {'embedding_size': 10}, 'embedding_size is 10; wanted at least'),
    (LLADA_CONFIG, {'weight_tying': None}, 'no weight_tying'),
    (LLADA_CONFIG, {'rope_theta': None}, 'no rope_theta'),
    (LLADA_CONFIG, {'rms_norm_eps': None}, 'no rms_norm_eps'),
    (LLADA_CONFIG, {'mlp_hidden_size': None}, 'no mlp_hidden_size'),
    (GPT2_CONFIG, {'activation_function': 'gelu'}, "activation_function is 'gelu'"),
    (GPT2_CONFIG, {'scale_attn_weights': False}, 'scale_attn_weights is False'),
    (
      GPT2_CONFIG,
      {'scale_attn_by_inverse_layer_idx': True},
      'scale_attn_by_inverse_layer_idx is True',
    ),
    (GPT2_CONFIG, {'reorder_and_upcast_attn': True}, 'reorder_and_upcast_attn is True'),
    (GPT2_CONFIG, {'add_cross_attention': True}, 'add_cross_attention is True'),
    (GPT2_CONFIG, {'n_head': 3}, 'hidden_dim 16 is not a multiple of num_heads 3'),
  ],
)
def test_bad_values_name_the_field(base, changes, message):
  with pytest.raises(BadInput) as caught:
    description_from_config(base | changes, 'some/config.json')
  assert str(caught.value).startswith('some/config.json: ')
  assert '\n' not in str(caught.value)
  assert message in str(caught.value)


def test_all_missing_sizes_come_at_once():
  config = {k: v for k, v in MDLM_CONFIG.items() if k not in ('cond_dim', 'n_heads')}
  with pytest.raises(BadInput, match='no n_heads, cond_dim; wanted all of vocab_size'):
    description_from_config(config, 'c')


GRID = dataclasses.replace(DIT, length=13, grid=(3, 2, 2))


def test_positions_of_an_image_are_written_and_read():
  description = ModelDescription(GRID, 10, '')
  config = json.loads(json.dumps(config_from_description(description, 'float32')))
  assert config['grid'] == [3, 2, 2]
  assert description_from_config(config, 'p') == description
  assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == (
    description
  )
  # A text's file is what it always was.
  text = config_from_description(ModelDescription(DIT, 10, ''), 'float32')
  assert 'grid' not in text


def test_a_window_is_written_and_read():
  windowed = ModelDescription(dataclasses.replace(DIT, window=3), 10, '')
  config = config_from_description(windowed, 'float32')
  assert config['window'] == 3
  assert description_from_config(config, 'p') == windowed
  assert 'window' not in config_from_description(ModelDescription(DIT, 10, ''), 'x')
  with pytest.raises(BadInput, match='window is -1'):
    description_from_config(config | {'window': -1}, 'p')


@pytest.mark.parametrize('grid', [[3, 2], [3, 2, 3], [0, 2, 2], [3.0, 2, 2], 'abc', 7])
def test_positions_that_do_not_fill_the_length_are_refused(grid):
  config = config_from_description(ModelDescription(GRID, 10, ''), 'float32')
  with pytest.raises(BadInput, match=r'grid is .*; wanted'):
    description_from_config(config | {'grid': grid}, 'p')


@pytest.mark.parametrize(
  'spelt',
  [
    {'rope_scaling': {'rope_type': 'default'}},
    {'rope_scaling': {'type': 'default', 'rope_type': 'default'}},
    {'rope_scaling': {'type': 'linear', 'factor': 1.0}},
    {'rope_scaling': {'rope_type': 'linear', 'factor': 1}},
    {'rope_scaling': {'rope_type': 'default', 'factor': None}},
    {'rope_scaling': {}},
    {'rope_parameters': {'rope_type': 'default', 'factor': None}},
    {'rope_parameters': {'type': 'linear', 'factor': 1.0, 'rope_theta': 10000.0}},
  ],
)
def test_rotary_positions_that_are_not_scaled_in_any_spelling(spelt):
  wanted = description_from_config(LLAMA_CONFIG, 'config.json')
  assert description_from_config(LLAMA_CONFIG | spelt, 'config.json') == wanted


@pytest.mark.parametrize(
  'spelt',
  [
    {'rope_scaling': {'type': 'linear', 'rope_type': 'dynamic', 'factor': 1.0}},
    {'rope_scaling': {'rope_type': 'dynamic', 'factor': 2.0}},
    {'rope_scaling': {'type': 'linear'}},
    {'rope_scaling': {'type': 'linear', 'factor': 2.0, 'mscale': 1.0}},
    {'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}},
    {'rope_scaling': {'rope_type': 'default', 'rope_theta': 5e5}},
    {'rope_parameters': {'rope_type': 'default', 'factor': 2.0}},
  ],
)
def test_rotary_positions_that_are_scaled_in_other_ways_are_refused(spelt):
  with pytest.raises(BadInput, match='rope'):
    description_from_config(LLAMA_CONFIG | spelt, 'config.json')
