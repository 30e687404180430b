"""A decoder of the Llama family: Llama, Qwen2 and, seeing both ways, LLaDA and Dream.

Parameter names follow the Hugging Face layout of Llama. Compute follows the dtype of
the embeddings; norms, rotations and softmax are float32 inside, and so are the logits.
Legend: `B` batch, `L` length, `V` vocabulary, `D` width.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.attention import attend
from scmdm_jax.models.description import DecoderConfig
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.rotary import rotate


class RMSNorm(nn.Module):
  """x / rms(x) * scale, rounded as in Hugging Face: normalised, cast, then scaled."""

  eps: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    return y.astype(x.dtype) * jnp.broadcast_to(scale, x.shape)


class Attention(nn.Module):
  """Grouped-query attention with rotary positions."""

  config: DecoderConfig
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    size = cfg.hidden_dim // cfg.num_heads
    self.q_proj = nn.Dense(cfg.num_heads * size, use_bias=cfg.qkv_bias)
    self.k_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=cfg.qkv_bias)
    self.v_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=cfg.qkv_bias)
    self.o_proj = nn.Dense(cfg.hidden_dim, use_bias=False)

  def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
    cfg = self.config
    batch, length, dim = x.shape
    size = dim // cfg.num_heads
    x = self.execution.flat(x)
    q = self.q_proj(x).reshape(batch, length, cfg.num_heads, size)
    k = self.k_proj(x).reshape(batch, length, cfg.num_kv_heads, size)
    v = self.v_proj(x).reshape(batch, length, cfg.num_kv_heads, size)
    q, k = rotate(q, cfg.rope_theta), rotate(k, cfg.rope_theta)
    q, k, v = self.execution.meet(q, k, v)
    mixed = attend(q, k, v, causal=cfg.causal, real=real)
    mixed = self.execution.flat(mixed.reshape(batch, length, dim))
    return self.o_proj(mixed).reshape(batch, length, dim)


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
  execution: Execution = Execution()

  def setup(self):
    eps = self.config.norm_eps
    self.input_layernorm = RMSNorm(eps)
    self.self_attn = Attention(self.config, self.execution)
    self.post_attention_layernorm = RMSNorm(eps)
    self.mlp = GatedMLP(self.config)

  def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
    x = x + self.self_attn(self.input_layernorm(x), real)
    h = self.execution.flat(self.post_attention_layernorm(x))
    return x + self.mlp(h).reshape(x.shape)


class Decoder(nn.Module):
  """Token embeddings in, normalised hidden states out."""

  config: DecoderConfig
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    self.embed_tokens = nn.Embed(cfg.vocab_size, cfg.hidden_dim)
    layer = self.execution.block(Layer)
    self.layers = [layer(cfg, self.execution) for _ in range(cfg.num_blocks)]
    self.norm = RMSNorm(cfg.norm_eps)
    if not cfg.tied:
      product = functools.partial(
        jax.lax.dot_general, preferred_element_type=jnp.float32
      )
      self.lm_head = nn.Dense(cfg.vocab_size, use_bias=False, dot_general=product)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B, L] -> embeddings [B, L, D]."""
    return self.embed_tokens(tokens)

  def encode(
    self, x: jax.Array, sigma: jax.Array, real: jax.Array | None = None
  ) -> jax.Array:
    """Embeddings [B, L, D] -> hidden states [B, L, D]; there is no time input.

    `real` bool [B, L] is False at padding. With `shifted` the hidden state at i is the
    one computed at i - 1, which predicts the token at i, so that `logits` stays a
    function of one position; position 0 is read off itself.
    """
    del sigma
    for layer in self.layers:
      x = self.execution.spread(layer(x, real))
    x = self.norm(x)
    return jnp.concatenate([x[:, :1], x[:, :-1]], 1) if self.config.shifted else x

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] -> scores float32 [..., V]."""
    if self.config.tied:
      table = self.embed_tokens.embedding
      return jnp.einsum(
        '...d,vd->...v', hidden, table, preferred_element_type=jnp.float32
      )
    return self.lm_head(hidden)

  def __call__(self, tokens: jax.Array, sigma: jax.Array) -> jax.Array:
    """Raw logits float32 [B, L, V]."""
    return self.logits(self.encode(self.embed(tokens), sigma))
