"""Names and shapes of the two layouts, written down apart from the package's tables.

The 'mdlm' list follows the published kuleshov-group/mdlm-owt file: with its sizes it
counts 131 tensors and, without the buffer `inv_freq`, 169,627,218 parameters.
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
LLAMA_CONFIG = {
  'model_type': 'llama',
  'architectures': ['LlamaForCausalLM'],
  'hidden_act': 'silu',
  'hidden_size': 16,
  'intermediate_size': 24,
  'max_position_embeddings': 12,
  'num_attention_heads': 4,
  'num_hidden_layers': 2,
  'num_key_value_heads': 2,
  'rms_norm_eps': 1e-5,
  'rope_theta': 10000.0,
  'tie_word_embeddings': False,
  'vocab_size': 11,
}


def mdlm(V=50258, d=768, L=12, h=12, c=128, ff=4):
  k = {
    'backbone.vocab_embed.embedding': (V, d),
    'backbone.sigma_map.mlp.0.weight': (c, 256),
    'backbone.sigma_map.mlp.0.bias': (c,),
    'backbone.sigma_map.mlp.2.weight': (c, c),
    'backbone.sigma_map.mlp.2.bias': (c,),
    'backbone.rotary_emb.inv_freq': (d // h // 2,),
  }
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


def llama(V, d, L, ff, kv):
  k = {
    'model.embed_tokens.weight': (V, d),
    'model.norm.weight': (d,),
    'lm_head.weight': (V, d),
  }
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


SMALL_MDLM = mdlm(V=11, d=16, L=2, h=2, c=8)
SMALL_LLAMA = llama(V=11, d=16, L=2, ff=24, kv=8)


def random_tensors(shapes, seed=0, scale=0.5):
  """Every value random, norms and zero-initialised layers too."""
  rng = np.random.default_rng(seed)
  return {
    name: (scale * rng.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def write_directory(path, config, tensors):
  path.mkdir(parents=True)
  (path / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  return path
