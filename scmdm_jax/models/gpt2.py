"""GPT-2: pre-norm blocks, learned positions, one table for input and output.

Parameter names follow the Hugging Face layout. Compute follows the dtype of the
embeddings; norm statistics, softmax and logits are float32. Legend: `B` batch,
`L` length, `V` vocabulary, `D` width.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.attention import attend
from scmdm_jax.models.description import GPT2Config
from scmdm_jax.models.execution import Execution


def _layer_norm(config: GPT2Config) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=config.norm_eps, use_fast_variance=False)


class Attention(nn.Module):
  """Causal attention; one product makes queries, keys and values."""

  config: GPT2Config
  execution: Execution = Execution()

  def setup(self):
    self.c_attn = nn.Dense(3 * self.config.hidden_dim)
    self.c_proj = nn.Dense(self.config.hidden_dim)

  def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
    batch, length, dim = x.shape
    heads, per_token = self.config.num_heads, self.execution.per_token
    qkv = per_token(self.c_attn, x).reshape(batch, length, 3, heads, dim // heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    q, k, v = self.execution.placement.gather_keys(q, k, v)
    mixed = attend(q, k, v, causal=True, real=real)
    return per_token(self.c_proj, mixed.reshape(batch, length, dim))


class MLP(nn.Module):
  """proj(gelu(fc x)) with the tanh form of GELU."""

  config: GPT2Config
  execution: Execution = Execution()

  def setup(self):
    self.c_fc = nn.Dense(self.config.mlp_dim)
    self.c_proj = nn.Dense(self.config.hidden_dim)

  def __call__(self, x: jax.Array) -> jax.Array:
    per_token = self.execution.per_token
    return per_token(self.c_proj, nn.gelu(per_token(self.c_fc, x), approximate=True))


class Block(nn.Module):
  """Attention and MLP, each behind a layer norm."""

  config: GPT2Config
  execution: Execution = Execution()

  def setup(self):
    self.ln_1 = _layer_norm(self.config)
    self.attn = Attention(self.config, self.execution)
    self.ln_2 = _layer_norm(self.config)
    self.mlp = MLP(self.config, self.execution)

  def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
    x = x + self.attn(self.ln_1(x), real)
    return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
  """Token embeddings in, normalised hidden states out."""

  config: GPT2Config
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    self.wte = nn.Embed(cfg.vocab_size, cfg.hidden_dim)
    self.wpe = nn.Embed(cfg.length, cfg.hidden_dim)
    block = self.execution.with_remat(Block)
    self.h = [block(cfg, self.execution) for _ in range(cfg.num_blocks)]
    self.ln_f = _layer_norm(cfg)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B, L] -> embeddings [B, L, D], without positions."""
    return self.wte(tokens)

  def encode(
    self, x: jax.Array, sigma: jax.Array, real: jax.Array | None = None
  ) -> jax.Array:
    """Embeddings [B, L, D] -> hidden states [B, L, D]; there is no time input.

    `real` bool [B, L] is False at padding.

    Raises:
      ValueError: L is above the number of learned positions.
    """
    del sigma
    length = x.shape[1]
    if length > self.config.length:
      raise ValueError(f'length is {length}; wanted at most {self.config.length}')
    x = x + self.wpe.embedding[None, :length]
    for block in self.h:
      x = self.execution.placement.constrain(block(x, real))
    return self.ln_f(x)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] -> scores float32 [..., V]."""
    return jnp.einsum(
      '...d,vd->...v', hidden, self.wte.embedding, preferred_element_type=jnp.float32
    )

  def __call__(self, tokens: jax.Array, sigma: jax.Array) -> jax.Array:
    """Raw logits float32 [B, L, V]."""
    return self.logits(self.encode(self.embed(tokens), sigma))
