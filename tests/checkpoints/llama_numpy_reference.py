"""The Llama forward pass in float64 NumPy, written from the Hugging Face layout.

One head and one position at a time where that is clearer; knows nothing of the package
under test.
"""

import numpy as np


def rms_norm(x, weight, eps):
  return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, theta):
  """x [L, K]: pair (k, k + K/2) turns by the angle position * theta^(-2k/K)."""
  length, size = x.shape
  out = np.empty_like(x)
  for position in range(length):
    for k in range(size // 2):
      angle = position * theta ** (-2 * k / size)
      a, b = x[position, k], x[position, k + size // 2]
      out[position, k] = a * np.cos(angle) - b * np.sin(angle)
      out[position, k + size // 2] = b * np.cos(angle) + a * np.sin(angle)
  return out


def attend(q, k, v, causal):
  """q, k, v [L, K] of one head."""
  out = np.empty_like(q)
  for position in range(len(q)):
    seen = position + 1 if causal else len(q)
    scores = k[:seen] @ q[position] / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max())
    out[position] = weights / weights.sum() @ v[:seen]
  return out


def forward(tensors, config, ids, causal=True):
  """Logits [L, V] of one sequence of ids [L]."""
  w = {name: value.astype(np.float64) for name, value in tensors.items()}
  heads, kv_heads = config['num_attention_heads'], config['num_key_value_heads']
  eps, theta = config['rms_norm_eps'], config['rope_theta']
  x = w['model.embed_tokens.weight'][ids]
  for i in range(config['num_hidden_layers']):
    p = f'model.layers.{i}.'
    h = rms_norm(x, w[p + 'input_layernorm.weight'], eps)
    q, k, v = (h @ w[f'{p}self_attn.{n}_proj.weight'].T for n in 'qkv')
    q = np.split(q, heads, axis=-1)
    k, v = np.split(k, kv_heads, axis=-1), np.split(v, kv_heads, axis=-1)
    mixed = []
    for head in range(heads):
      shared = head // (heads // kv_heads)
      mixed.append(
        attend(rotate(q[head], theta), rotate(k[shared], theta), v[shared], causal)
      )
    x = x + np.concatenate(mixed, axis=-1) @ w[p + 'self_attn.o_proj.weight'].T
    h = rms_norm(x, w[p + 'post_attention_layernorm.weight'], eps)
    gate = h @ w[p + 'mlp.gate_proj.weight'].T
    up = h @ w[p + 'mlp.up_proj.weight'].T
    x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + 'mlp.down_proj.weight'].T
  return rms_norm(x, w['model.norm.weight'], eps) @ w['lm_head.weight'].T
