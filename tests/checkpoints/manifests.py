"""Names and shapes of the layouts, written down apart from the package's tables.

With the published sizes they count, without the buffer `inv_freq`: mdlm-owt 130 tensors
of 169,627,218 numbers, LLaDA-8B 291 of 8,015,581,184, Dream-7B 339 of 7,615,616,512,
gpt2-large 774,030,080.
"""

import json

import numpy as np
import safetensors.numpy

MDLM_CONFIG = {
  'model_type': 'mdlm',
  'auto_map': {'AutoModelForMaskedLM': 'modeling_mdlm.MDLM'},
  'cond_dim': 8,
  'dropout': 0.1,
  'hidden_dim': 16,
  'model_length': 12,
  'n_blocks': 2,
  'n_heads': 2,
  'time_conditioning': False,
  'vocab_size': 11,
}
UDLM_CONFIG = MDLM_CONFIG | {
  'model_type': 'udlm',
  'auto_map': {'AutoModelForMaskedLM': 'modeling_udlm.UDLM'},
  'time_conditioning': True,
  'cfg': True,
  'cfg_num_classes': 3,
}
LLAMA_CONFIG = {
  'model_type': 'llama',
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'hidden_act': 'silu',
  'hidden_size': 16,
  'intermediate_size': 24,
  'max_position_embeddings': 12,
  'mlp_bias': False,
  'num_attention_heads': 4,
  'num_hidden_layers': 2,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-5,
  'rope_scaling': None,
  'rope_theta': 10000.0,
  'tie_word_embeddings': False,
  'vocab_size': 11,
}
# As SmolLM2 and the small Qwen2 models.
TIED_LLAMA_CONFIG = LLAMA_CONFIG | {'tie_word_embeddings': True}
QWEN2_CONFIG = {
  'model_type': 'qwen2',
  'architectures': ['Qwen2ForCausalLM'],
  'hidden_act': 'silu',
  'hidden_size': 16,
  'intermediate_size': 24,
  'max_position_embeddings': 12,
  'max_window_layers': 2,
  'num_attention_heads': 4,
  'num_hidden_layers': 2,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1000000.0,
  'sliding_window': 12,
  'tie_word_embeddings': False,
  'use_sliding_window': False,
  'vocab_size': 11,
}
DREAM_CONFIG = QWEN2_CONFIG | {
  'model_type': 'Dream',
  'architectures': ['DreamModel'],
  'auto_map': {'AutoModel': 'modeling_dream.DreamModel'},
  'mask_token_id': 9,
  'pad_token_id': 8,
  'rope_scaling': None,
  'sliding_window': None,
  'use_mrope': False,
}
LLADA_CONFIG = {
  'activation_type': 'silu',
  'alibi': False,
  'alibi_bias_max': 8.0,
  'architectures': ['LLaDAModelLM'],
  'attention_dropout': 0.0,
  'attention_layer_norm': False,
  'attention_layer_norm_with_affine': True,
  'auto_map': {'AutoModel': 'modeling_llada.LLaDAModelLM'},
  'bias_for_layer_norm': False,
  'block_group_size': 1,
  'block_type': 'llama',
  'd_model': 16,
  'embedding_dropout': 0.0,
  'embedding_size': 11,
  'eos_token_id': 7,
  'flash_attention': False,
  'include_bias': False,
  'include_qkv_bias': False,
  'input_emb_norm': False,
  'layer_norm_type': 'rms',
  'layer_norm_with_affine': True,
  'mask_token_id': 9,
  'max_sequence_length': 12,
  'mlp_hidden_size': 24,
  'mlp_ratio': 4,
  'model_type': 'llada',
  'multi_query_attention': None,
  'n_heads': 4,
  'n_kv_heads': 4,
  'n_layers': 2,
  'pad_token_id': 7,
  'precision': 'amp_bf16',
  'residual_dropout': 0.0,
  'rms_norm_eps': 1e-5,
  'rope': True,
  'rope_full_precision': True,
  'rope_theta': 500000.0,
  'scale_logits': False,
  'vocab_size': 11,
  'weight_tying': False,
}
GPT2_CONFIG = {
  'activation_function': 'gelu_new',
  'architectures': ['GPT2LMHeadModel'],
  'attn_pdrop': 0.1,
  'bos_token_id': 10,
  'eos_token_id': 10,
  'layer_norm_epsilon': 1e-5,
  'model_type': 'gpt2',
  'n_ctx': 12,
  'n_embd': 16,
  'n_head': 2,
  'n_layer': 2,
  'n_positions': 12,
  'vocab_size': 11,
}


def mdlm(V=50258, d=768, L=12, h=12, c=128, ff=4, classes=None):
  k = {
    'backbone.vocab_embed.embedding': (V, d),
    'backbone.sigma_map.mlp.0.weight': (c, 256),
    'backbone.sigma_map.mlp.0.bias': (c,),
    'backbone.sigma_map.mlp.2.weight': (c, c),
    'backbone.sigma_map.mlp.2.bias': (c,),
    'backbone.rotary_emb.inv_freq': (d // h // 2,),
  }
  if classes:
    k['backbone.cond_map.embedding_table.weight'] = (classes + 1, c)
  for i in range(L):
    p = f'backbone.blocks.{i}.'
    k |= {
      p + 'norm1.weight': (d,),
      p + 'attn_qkv.weight': (3 * d, d),
      p + 'attn_out.weight': (d, d),
      p + 'norm2.weight': (d,),
      p + 'mlp.0.weight': (ff * d, d),
      p + 'mlp.0.bias': (ff * d,),
      p + 'mlp.2.weight': (d, ff * d),
      p + 'mlp.2.bias': (d,),
      p + 'adaLN_modulation.weight': (6 * d, c),
      p + 'adaLN_modulation.bias': (6 * d,),
    }
  o = 'backbone.output_layer.'
  return k | {
    o + 'norm_final.weight': (d,),
    o + 'linear.weight': (V, d),
    o + 'linear.bias': (V,),
    o + 'adaLN_modulation.weight': (2 * d, c),
    o + 'adaLN_modulation.bias': (2 * d,),
  }


def llama(V, d, L, ff, kv, tied=False):
  k = {'model.embed_tokens.weight': (V, d), 'model.norm.weight': (d,)}
  if not tied:
    k['lm_head.weight'] = (V, d)
  for i in range(L):
    p = f'model.layers.{i}.'
    k |= {
      p + 'input_layernorm.weight': (d,),
      p + 'post_attention_layernorm.weight': (d,),
      p + 'self_attn.q_proj.weight': (d, d),
      p + 'self_attn.k_proj.weight': (kv, d),
      p + 'self_attn.v_proj.weight': (kv, d),
      p + 'self_attn.o_proj.weight': (d, d),
      p + 'mlp.gate_proj.weight': (ff, d),
      p + 'mlp.up_proj.weight': (ff, d),
      p + 'mlp.down_proj.weight': (d, ff),
    }
  return k


def dream(V=152064, d=3584, L=28, ff=18944, kv=512):
  """Dream-7B; Qwen2 has the same names."""
  k = llama(V, d, L, ff, kv)
  for i in range(L):
    p = f'model.layers.{i}.self_attn.'
    k |= {p + 'q_proj.bias': (d,), p + 'k_proj.bias': (kv,), p + 'v_proj.bias': (kv,)}
  return k


def llada(V=126464, d=4096, L=32, ff=12288):
  k = {
    'model.transformer.wte.weight': (V, d),
    'model.transformer.ln_f.weight': (d,),
    'model.transformer.ff_out.weight': (V, d),
  }
  for i in range(L):
    p = f'model.transformer.blocks.{i}.'
    k |= {p + 'attn_norm.weight': (d,), p + 'ff_norm.weight': (d,)}
    for n in ('q_proj', 'k_proj', 'v_proj', 'attn_out'):
      k[f'{p}{n}.weight'] = (d, d)
    k |= {p + 'ff_proj.weight': (ff, d), p + 'up_proj.weight': (ff, d)}
    k[p + 'ff_out.weight'] = (d, ff)
  return k


def gpt2(V=50257, L=36, d=1280, length=1024):
  """gpt2-large by default; matrices of blocks are [in, out]."""
  k = {
    'wte.weight': (V, d),
    'wpe.weight': (length, d),
    'ln_f.weight': (d,),
    'ln_f.bias': (d,),
  }
  for i in range(L):
    p = f'h.{i}.'
    for n in ('ln_1', 'ln_2'):
      k |= {f'{p}{n}.weight': (d,), f'{p}{n}.bias': (d,)}
    k |= {p + 'attn.c_attn.weight': (d, 3 * d), p + 'attn.c_attn.bias': (3 * d,)}
    k |= {p + 'attn.c_proj.weight': (d, d), p + 'attn.c_proj.bias': (d,)}
    k |= {p + 'mlp.c_fc.weight': (d, 4 * d), p + 'mlp.c_fc.bias': (4 * d,)}
    k |= {p + 'mlp.c_proj.weight': (4 * d, d), p + 'mlp.c_proj.bias': (d,)}
  return k


SMALL_MDLM = mdlm(V=11, d=16, L=2, h=2, c=8)
SMALL_UDLM = mdlm(V=11, d=16, L=2, h=2, c=8, classes=3)
SMALL_LLAMA = llama(V=11, d=16, L=2, ff=24, kv=8)
SMALL_TIED_LLAMA = llama(V=11, d=16, L=2, ff=24, kv=8, tied=True)
SMALL_DREAM = dream(V=11, d=16, L=2, ff=24, kv=8)
SMALL_LLADA = llada(V=11, d=16, L=2, ff=24)
SMALL_GPT2 = gpt2(V=11, L=2, d=16, length=12)
# One of every kind of file, with tensors that fit it.
CASES = {
  'mdlm': (MDLM_CONFIG, SMALL_MDLM),
  'udlm': (UDLM_CONFIG, SMALL_UDLM),
  'llama': (LLAMA_CONFIG, SMALL_LLAMA),
  'tied_llama': (TIED_LLAMA_CONFIG, SMALL_TIED_LLAMA),
  'qwen2': (QWEN2_CONFIG, SMALL_DREAM),
  'dream': (DREAM_CONFIG, SMALL_DREAM),
  'llada': (LLADA_CONFIG, SMALL_LLADA),
  'gpt2': (GPT2_CONFIG, SMALL_GPT2),
}


def random_tensors(shapes, seed=0, scale=0.5):
  """Every parameter random, norms and zero-initialised layers too."""
  rng = np.random.default_rng(seed)
  values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
  tensors = {name: (scale * v).astype(np.float32) for name, v in values.items()}
  for name in tensors:
    if name.endswith('inv_freq'):  # No parameter: 10000^(-2j / size).
      tensors[name] = np.geomspace(1, 1e-4, shapes[name][0], endpoint=False, dtype='f4')
  return tensors


def write_directory(path, config, tensors):
  path.mkdir(parents=True)
  (path / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  return path
