"""The Llama family's forward pass in PyTorch, written from the published layouts alone.

Works on the tensors of a safetensors file by their names there, LLaDA's or Hugging
Face's; knows nothing of the package under test.
"""

import torch
import torch.nn.functional as F

HUGGING_FACE = {
  'embed': 'model.embed_tokens',
  'block': 'model.layers.{}.',
  'norm1': 'input_layernorm',
  'q': 'self_attn.q_proj',
  'k': 'self_attn.k_proj',
  'v': 'self_attn.v_proj',
  'out': 'self_attn.o_proj',
  'norm2': 'post_attention_layernorm',
  'gate': 'mlp.gate_proj',
  'up': 'mlp.up_proj',
  'down': 'mlp.down_proj',
  'norm': 'model.norm',
  'head': 'lm_head',
}
LLADA = {
  'embed': 'model.transformer.wte',
  'block': 'model.transformer.blocks.{}.',
  'norm1': 'attn_norm',
  'q': 'q_proj',
  'k': 'k_proj',
  'v': 'v_proj',
  'out': 'attn_out',
  'norm2': 'ff_norm',
  'gate': 'ff_proj',
  'up': 'up_proj',
  'down': 'ff_out',
  'norm': 'model.transformer.ln_f',
  'head': 'model.transformer.ff_out',
}


def rotary(x, theta):
  """Turns x [B, H, L, K] as complex numbers: component k pairs with k + K / 2."""
  length, size = x.shape[-2:]
  speed = theta ** (-torch.arange(0, size, 2).double() / size)
  angles = torch.outer(torch.arange(length).double(), speed)
  first, second = x.double().chunk(2, dim=-1)
  turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
  return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


@torch.no_grad()
def forward(
  tensors, ids, *, names, heads, kv_heads, theta, eps, causal, shifted=False, real=None
):
  """Logits [B, L, V] for ids [B, L]; `real` bool [B, L] is False at padding."""

  def linear(x, name):
    return F.linear(x, tensors[f'{name}.weight'], tensors.get(f'{name}.bias'))

  def norm(x, name):
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return x * tensors[f'{name}.weight']

  def split(x, count):
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)

  x = tensors[names['embed'] + '.weight'][ids]
  length = ids.shape[1]
  allowed = torch.ones(length, length, dtype=torch.bool)
  allowed = (allowed.tril() if causal else allowed)[None, None]
  if real is not None:
    allowed = allowed & real[:, None, None]
  block = 0
  while names['block'].format(block) + names['q'] + '.weight' in tensors:
    p = names['block'].format(block)
    h = norm(x, p + names['norm1'])
    q = rotary(split(linear(h, p + names['q']), heads), theta)
    k = rotary(split(linear(h, p + names['k']), kv_heads), theta)
    v = split(linear(h, p + names['v']), kv_heads)
    h = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)
    x = x + linear(h.transpose(1, 2).reshape(x.shape), p + names['out'])
    h = norm(x, p + names['norm2'])
    h = F.silu(linear(h, p + names['gate'])) * linear(h, p + names['up'])
    x = x + linear(h, p + names['down'])
    block += 1
  x = norm(x, names['norm'])
  head = names['head'] if names['head'] + '.weight' in tensors else names['embed']
  logits = F.linear(x, tensors[head + '.weight'])
  return torch.cat([logits[:, :1], logits[:, :-1]], dim=1) if shifted else logits
