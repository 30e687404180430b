"""The forward pass of MDLM and UDLM in PyTorch, written from the layouts alone.

Works on the tensors of a safetensors file by their names there; knows nothing of the
package under test.
"""

import math

import torch
import torch.nn.functional as F


def timestep_embedding(sigma, size=256, max_period=10000):
  half = size // 2
  freqs = torch.exp(-math.log(max_period) * torch.arange(half).float() / half)
  args = sigma[:, None].float() * freqs[None]
  return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def rotate_half(x):
  x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
  return torch.cat((-x2, x1), dim=-1)


def rotary(x):
  """Rotates x [B, H, L, K]."""
  length, size = x.shape[-2:]
  inv_freq = 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))
  freqs = torch.outer(torch.arange(length).float(), inv_freq)
  emb = torch.cat((freqs, freqs), dim=-1)
  return x * emb.cos() + rotate_half(x) * emb.sin()


def modulate(x, shift, scale):
  return x * (1 + scale[:, None]) + shift[:, None]


@torch.no_grad()
def forward(
  tensors,
  ids,
  sigma,
  *,
  num_heads,
  time_conditioning,
  classes=None,
  real=None,
  embed=None,
):
  """Raw logits [B, L, V] for ids [B, L] and noise levels sigma [B].

  `classes` [B] are rows of UDLM's class table; `real` bool [B, L] is False at padding;
  `embed` replaces the lookup of embeddings.
  """
  w = {name.removeprefix('backbone.'): value for name, value in tensors.items()}

  def linear(x, name, bias=True):
    return F.linear(x, w[f'{name}.weight'], w[f'{name}.bias'] if bias else None)

  def norm(x, name):
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], None, 1e-5)

  if not time_conditioning:
    sigma = torch.zeros_like(sigma)
  c = linear(timestep_embedding(sigma), 'sigma_map.mlp.0')
  c = F.silu(linear(F.silu(c), 'sigma_map.mlp.2'))
  if classes is not None:
    c = c + F.silu(F.embedding(classes, w['cond_map.embedding_table.weight']))
  allowed = None if real is None else real[:, None, None]
  x = w['vocab_embed.embedding'][ids] if embed is None else embed(ids)
  batch, length, dim = x.shape
  for i in range(sum(name.endswith('.norm1.weight') for name in w)):
    p = f'blocks.{i}.'
    chunks = linear(c, p + 'adaLN_modulation').chunk(6, dim=-1)
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = chunks
    h = modulate(norm(x, p + 'norm1'), shift_msa, scale_msa)
    qkv = linear(h, p + 'attn_qkv', bias=False)
    qkv = qkv.view(batch, length, 3, num_heads, dim // num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(rotary(q), rotary(k), v, attn_mask=allowed)
    h = h.transpose(1, 2).reshape(batch, length, dim)
    x = x + gate_msa[:, None] * linear(h, p + 'attn_out', bias=False)
    h = modulate(norm(x, p + 'norm2'), shift_mlp, scale_mlp)
    h = F.gelu(linear(h, p + 'mlp.0'), approximate='tanh')
    x = x + gate_mlp[:, None] * linear(h, p + 'mlp.2')
  shift, scale = linear(c, 'output_layer.adaLN_modulation').chunk(2, dim=-1)
  x = modulate(norm(x, 'output_layer.norm_final'), shift, scale)
  return linear(x, 'output_layer.linear')
