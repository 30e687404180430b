"""GPT-2's forward pass in PyTorch, written from the published layout alone."""

import torch
import torch.nn.functional as F


@torch.no_grad()
def forward(tensors, ids, *, heads, real=None):
  """Logits [B, L, V] for ids [B, L]; `real` bool [B, L] is False at padding."""

  def norm(x, name):
    weight, bias = tensors[f'{name}.weight'], tensors[f'{name}.bias']
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)

  def conv1d(x, name):  # Matrices are [in, out].
    return x @ tensors[f'{name}.weight'] + tensors[f'{name}.bias']

  length = ids.shape[1]
  allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
  if real is not None:
    allowed = allowed & real[:, None, None]
  x = tensors['wte.weight'][ids] + tensors['wpe.weight'][:length]
  for i in range(sum(name.endswith('.ln_1.weight') for name in tensors)):
    qkv = conv1d(norm(x, f'h.{i}.ln_1'), f'h.{i}.attn.c_attn')
    q, k, v = (
      part.view(*ids.shape, heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1)
    )
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~allowed, float('-inf')).softmax(-1)
    h = (weights @ v).transpose(1, 2).reshape(x.shape)
    x = x + conv1d(h, f'h.{i}.attn.c_proj')
    h = conv1d(norm(x, f'h.{i}.ln_2'), f'h.{i}.mlp.c_fc')
    cubic = 0.7978845608028654 * (h + 0.044715 * h**3)  # sqrt(2 / pi)
    x = x + conv1d(0.5 * h * (1 + torch.tanh(cubic)), f'h.{i}.mlp.c_proj')
  return norm(x, 'ln_f') @ tensors['wte.weight'].T
