"""What each `model_type` calls its sizes in `config.json`, as tables."""

from typing import Any, NamedTuple

from scmdm_jax.models.description import (
  ConvConfig,
  DecoderConfig,
  DiTConfig,
  GPT2Config,
)

REQUIRED = object()


class Same(NamedTuple):
  """Default of a field: some times the value of another one."""

  name: str
  times: int = 1


class Kind(NamedTuple):
  """What one `model_type` means."""

  layout: str  # One of description.LAYOUTS.
  class_name: str  # Of the PyTorch model, for `architectures`.
  architecture: type
  # (name in the file, name in `architecture`, type, default), ...; with two names in
  # the file for one of ours the last decides, and both are written.
  fields: tuple[tuple[str, str, type, Any], ...]
  # What is computed; a file that says otherwise would give wrong numbers.
  fixed: dict[str, Any]
  # What every model of this kind has, by our names.
  always: dict[str, Any]


_MDLM = Kind(
  'mdlm',
  'MDLM',
  DiTConfig,
  (
    ('vocab_size', 'vocab_size', int, REQUIRED),
    ('model_length', 'length', int, REQUIRED),
    ('hidden_dim', 'hidden_dim', int, REQUIRED),
    ('n_blocks', 'num_blocks', int, REQUIRED),
    ('n_heads', 'num_heads', int, REQUIRED),
    ('cond_dim', 'cond_dim', int, REQUIRED),
    ('mlp_ratio', 'mlp_ratio', int, 4),
    ('time_conditioning', 'time_conditioning', bool, False),
    ('cfg_num_classes', 'num_classes', int, 0),
    # Ours: positions of an image, and how far a position sees.
    ('grid', 'grid', tuple, ()),
    ('window', 'window', int, 0),
  ),
  {},
  {},
)
_LLAMA = Kind(
  'llama',
  'LlamaForCausalLM',
  DecoderConfig,
  (
    ('vocab_size', 'vocab_size', int, REQUIRED),
    ('max_position_embeddings', 'length', int, REQUIRED),
    ('hidden_size', 'hidden_dim', int, REQUIRED),
    ('num_hidden_layers', 'num_blocks', int, REQUIRED),
    ('num_attention_heads', 'num_heads', int, REQUIRED),
    ('intermediate_size', 'mlp_dim', int, REQUIRED),
    ('num_key_value_heads', 'num_kv_heads', int, Same('num_attention_heads')),
    # Absent from the oldest files: the defaults of Hugging Face's class.
    ('rms_norm_eps', 'norm_eps', float, 1e-6),
    ('rope_theta', 'rope_theta', float, 10000.0),
    ('tie_word_embeddings', 'tied', bool, False),
    ('causal', 'causal', bool, True),
  ),
  {
    'hidden_act': 'silu',
    'attention_bias': False,
    'mlp_bias': False,
    'rope_scaling': None,
  },
  {},
)
_QWEN2 = _LLAMA._replace(
  layout='qwen2',
  class_name='Qwen2ForCausalLM',
  fixed={'hidden_act': 'silu', 'use_sliding_window': False, 'rope_scaling': None},
  always={'qkv_bias': True},
)
_DREAM = _QWEN2._replace(
  layout='dream',
  class_name='DreamModel',
  fields=_LLAMA.fields[:-1],
  fixed=_QWEN2.fixed | {'use_mrope': False},
  always={'qkv_bias': True, 'causal': False, 'shifted': True},
)
_LLADA = Kind(
  'llada',
  'LLaDAModelLM',
  DecoderConfig,
  (
    ('vocab_size', 'vocab_size', int, REQUIRED),
    ('embedding_size', 'vocab_size', int, Same('vocab_size')),
    ('max_sequence_length', 'length', int, REQUIRED),
    ('d_model', 'hidden_dim', int, REQUIRED),
    ('n_layers', 'num_blocks', int, REQUIRED),
    ('n_heads', 'num_heads', int, REQUIRED),
    ('n_kv_heads', 'num_kv_heads', int, Same('n_heads')),
    ('mlp_hidden_size', 'mlp_dim', int, REQUIRED),
    ('rms_norm_eps', 'norm_eps', float, REQUIRED),
    ('rope_theta', 'rope_theta', float, REQUIRED),
    ('weight_tying', 'tied', bool, REQUIRED),
    ('include_qkv_bias', 'qkv_bias', bool, False),
  ),
  {
    'block_type': 'llama',
    'activation_type': 'silu',
    'layer_norm_type': 'rms',
    'layer_norm_with_affine': True,
    'attention_layer_norm': False,
    'include_bias': False,
    'bias_for_layer_norm': False,
    'multi_query_attention': None,
    'input_emb_norm': False,
    'scale_logits': False,
    'alibi': False,
    'rope': True,
    'rope_scaling': None,
    'clip_qkv': None,
  },
  {'causal': False},
)
_GPT2 = Kind(
  'gpt2',
  'GPT2LMHeadModel',
  GPT2Config,
  (
    ('vocab_size', 'vocab_size', int, REQUIRED),
    ('n_positions', 'length', int, REQUIRED),
    ('n_embd', 'hidden_dim', int, REQUIRED),
    ('n_layer', 'num_blocks', int, REQUIRED),
    ('n_head', 'num_heads', int, REQUIRED),
    ('n_inner', 'mlp_dim', int, Same('n_embd', 4)),
    ('layer_norm_epsilon', 'norm_eps', float, 1e-5),
  ),
  {
    'activation_function': 'gelu_new',
    'scale_attn_weights': True,
    'scale_attn_by_inverse_layer_idx': False,
    'reorder_and_upcast_attn': False,
    'add_cross_attention': False,
    'tie_word_embeddings': True,
  },
  {},
)
_CONV = Kind(
  'conv',
  'ConvClassifier',
  ConvConfig,
  (
    ('vocab_size', 'vocab_size', int, REQUIRED),
    ('length', 'length', int, REQUIRED),
    ('hidden_dim', 'hidden_dim', int, REQUIRED),
    ('n_blocks', 'num_blocks', int, REQUIRED),
    ('embedding_dim', 'embedding_dim', int, REQUIRED),
    ('kernel_size', 'kernel_size', int, REQUIRED),
    ('first_class', 'first_class', int, 0),
    ('n_classes', 'num_classes', int, REQUIRED),
    ('grid', 'grid', tuple, ()),
  ),
  {},
  {},
)
KINDS = {
  'mdlm': _MDLM,
  'udlm': _MDLM._replace(class_name='UDLM'),
  'llama': _LLAMA,
  'qwen2': _QWEN2,
  'Dream': _DREAM,
  'llada': _LLADA,
  'gpt2': _GPT2,
  'conv': _CONV,
}
