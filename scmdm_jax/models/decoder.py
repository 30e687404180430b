"""A decoder of the Llama family; causal here, as an autoregressive judge.

Parameter names map one to one onto the Hugging Face layout. Legend: `B` batch,
`L` length, `V` vocabulary, `D` width.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.description import DecoderConfig
from scmdm_jax.models.rotary import rotate


class Attention(nn.Module):
  """Grouped-query attention with rotary positions."""

  config: DecoderConfig

  def setup(self):
    cfg = self.config
    size = cfg.hidden_dim // cfg.num_heads
    self.q_proj = nn.Dense(cfg.num_heads * size, use_bias=False)
    self.k_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=False)
    self.v_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=False)
    self.o_proj = nn.Dense(cfg.hidden_dim, use_bias=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    cfg = self.config
    batch, length, dim = x.shape
    size = dim // cfg.num_heads
    group = cfg.num_heads // cfg.num_kv_heads
    q = self.q_proj(x).reshape(batch, length, cfg.num_heads, size)
    k = self.k_proj(x).reshape(batch, length, cfg.num_kv_heads, size)
    v = self.v_proj(x).reshape(batch, length, cfg.num_kv_heads, size)
    q, k = rotate(q, cfg.rope_theta), rotate(k, cfg.rope_theta)
    q = q.reshape(batch, length, cfg.num_kv_heads, group, size)
    scores = jnp.einsum('blngk,bmnk->bnglm', q, k).astype(jnp.float32) * size**-0.5
    if cfg.causal:
      allowed = jnp.tril(jnp.ones((length, length), bool))
      scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
    mixed = jnp.einsum('bnglm,bmnk->blngk', weights, v)
    return self.o_proj(mixed.reshape(batch, length, dim))


class GatedMLP(nn.Module):
  """down(silu(gate x) * up x)."""

  config: DecoderConfig

  def setup(self):
    self.gate_proj = nn.Dense(self.config.mlp_dim, use_bias=False)
    self.up_proj = nn.Dense(self.config.mlp_dim, use_bias=False)
    self.down_proj = nn.Dense(self.config.hidden_dim, use_bias=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
  """Attention and gated MLP, each behind an RMS norm."""

  config: DecoderConfig

  def setup(self):
    eps = self.config.norm_eps
    self.input_layernorm = nn.RMSNorm(epsilon=eps)
    self.self_attn = Attention(self.config)
    self.post_attention_layernorm = nn.RMSNorm(epsilon=eps)
    self.mlp = GatedMLP(self.config)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = x + self.self_attn(self.input_layernorm(x))
    return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
  """Token embeddings in, normalised hidden states out."""

  config: DecoderConfig

  def setup(self):
    cfg = self.config
    self.embed_tokens = nn.Embed(cfg.vocab_size, cfg.hidden_dim)
    self.layers = [Layer(cfg) for _ in range(cfg.num_blocks)]
    self.norm = nn.RMSNorm(epsilon=cfg.norm_eps)
    self.lm_head = nn.Dense(cfg.vocab_size, use_bias=False)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B, L] -> embeddings [B, L, D]."""
    return self.embed_tokens(tokens)

  def encode(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """Embeddings [B, L, D] -> hidden states [B, L, D]; there is no time input."""
    del sigma
    for layer in self.layers:
      x = layer(x)
    return self.norm(x)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] -> scores [..., V]."""
    return self.lm_head(hidden)

  def __call__(self, tokens: jax.Array, sigma: jax.Array) -> jax.Array:
    """Raw logits [B, L, V]."""
    return self.logits(self.encode(self.embed(tokens), sigma))
