"""MDLM's transformer and vanilla ancestral sampler in PyTorch, to be measured against.

Written from the published layout (kuleshov-group/mdlm-owt) on its tensor names; shares
nothing with the JAX code. Scores and noise for every position at every step, one draw
over tokens and mask, as MDLM's `_ddpm_update`.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F


class TorchMDLM:
  """The network as a function of tokens; float32 weights, no gradients."""

  def __init__(
    self, tensors: Mapping[str, np.ndarray], num_heads: int, device: str = 'cpu'
  ):
    self.w = {
      name.removeprefix('backbone.'): torch.from_numpy(np.array(value)).to(device)
      for name, value in tensors.items()
    }
    self.num_heads = num_heads
    self.num_blocks = sum(name.endswith('.norm1.weight') for name in self.w)

  def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
    return F.linear(x, self.w[f'{name}.weight'], self.w.get(f'{name}.bias'))

  def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], self.w[f'{name}.weight'], None, 1e-5)

  def __call__(self, ids: torch.Tensor) -> torch.Tensor:
    """Raw logits [B, L, V] of ids [B, L], without time conditioning."""
    device = ids.device
    level = torch.cat([torch.ones(1, 128), torch.zeros(1, 128)], -1).to(device)
    cond = F.silu(self._linear(level, 'sigma_map.mlp.0'))
    cond = F.silu(self._linear(cond, 'sigma_map.mlp.2'))
    x = self.w['vocab_embed.embedding'][ids]
    batch, length, dim = x.shape
    size = dim // self.num_heads
    freqs = 10000.0 ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(length).float(), freqs).repeat(1, 2)
    cos, sin = angles.cos().to(device), angles.sin().to(device)

    def rotate(y: torch.Tensor) -> torch.Tensor:
      first, second = y.chunk(2, -1)
      return y * cos + torch.cat([-second, first], -1) * sin

    for i in range(self.num_blocks):
      p = f'blocks.{i}.'
      chunks = self._linear(cond, p + 'adaLN_modulation')[:, None].chunk(6, -1)
      shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = chunks
      h = self._norm(x, p + 'norm1') * (1 + scale_a) + shift_a
      qkv = self._linear(h, p + 'attn_qkv').view(batch, length, 3, self.num_heads, size)
      q, k, v = qkv.permute(2, 0, 3, 1, 4)
      h = F.scaled_dot_product_attention(rotate(q), rotate(k), v)
      h = h.transpose(1, 2).reshape(batch, length, dim)
      x = x + gate_a * self._linear(h, p + 'attn_out')
      h = self._norm(x, p + 'norm2') * (1 + scale_m) + shift_m
      h = F.gelu(self._linear(h, p + 'mlp.0'), approximate='tanh')
      x = x + gate_m * self._linear(h, p + 'mlp.2')
    shift, scale = self._linear(cond, 'output_layer.adaLN_modulation')[:, None].chunk(
      2, -1
    )
    x = self._norm(x, 'output_layer.norm_final') * (1 + scale) + shift
    return self._linear(x, 'output_layer.linear')


@torch.no_grad()
def sample(
  network: TorchMDLM,
  batch: int,
  length: int,
  mask_id: int,
  num_steps: int,
  eps: float = 1e-3,
) -> torch.Tensor:
  """MDLM's `ddpm` sampler with the log-linear schedule; ids [B, L]."""
  x = torch.full((batch, length), mask_id)
  for i in range(num_steps):
    t, s = 1 - i / num_steps, 1 - (i + 1) / num_steps
    move_t, move_s = (1 - eps) * t, (1 - eps) * s
    if i == num_steps - 1:
      move_s = 0.0
    logits = network(x)
    logits[..., mask_id] = -math.inf
    probs = logits.softmax(-1) * (move_t - move_s)
    probs[..., mask_id] = move_s
    noise = 1e-10 - (torch.rand_like(probs) + 1e-10).log()
    drawn = (probs / noise).argmax(-1)
    x = torch.where(x == mask_id, drawn, x)
  return x
