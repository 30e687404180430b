"""GPT-2: pre-norm blocks, learned positions, mostly one table for input and output.

Parameter names follow the Hugging Face layout. Compute follows the dtype of the
embeddings; norm statistics, softmax and logits are float32. Legend: `B` batch,
`L` length, `V` vocabulary, `D` width.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from scmdm_jax.models.attention import EVERYBODY, AttentionMask
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.family import (
  Buffer,
  Family,
  Field,
  ModelType,
  Row,
  Same,
  check_heads,
  check_sizes,
)


@dataclasses.dataclass(frozen=True)
class GPT2Config:
  """Sizes of GPT-2: causal, learned positions."""

  vocab_size: int
  length: int
  hidden_dim: int
  num_blocks: int
  num_heads: int
  mlp_dim: int
  norm_eps: float = 1e-5
  tied: bool = True  # The embedding table is the vocabulary product, too.

  def __post_init__(self):
    check_sizes(self)
    check_heads(self.hidden_dim, self.num_heads, rotary=False)

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: always."""
    return True


def _layer_norm(config: GPT2Config) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=config.norm_eps, use_fast_variance=False)


class Attention(nn.Module):
  """Causal attention; one product makes queries, keys and values."""

  config: GPT2Config
  execution: Execution = Execution()

  def setup(self):
    self.c_attn = nn.Dense(3 * self.config.hidden_dim)
    self.c_proj = nn.Dense(self.config.hidden_dim)

  def __call__(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    batch, length, dim = x.shape
    heads, per_token = self.config.num_heads, self.execution.per_token
    qkv = per_token(self.c_attn, x).reshape(batch, length, 3, heads, dim // heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    mixed = self.execution.attend(q, k, v, dataclasses.replace(mask, causal=True))
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

  def __call__(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    x = x + self.attn(self.ln_1(x), mask)
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
    if not cfg.tied:
      self.vocab_head = nn.Embed(cfg.vocab_size, cfg.hidden_dim)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B, L] -> embeddings [B, L, D], without positions."""
    return self.wte(tokens)

  def encode(
    self, x: jax.Array, sigma: jax.Array, mask: AttentionMask = EVERYBODY
  ) -> jax.Array:
    """Embeddings [B, L, D] -> hidden states [B, L, D]; there is no time input.

    `mask` is who attends to whom, besides that all of it is causal.

    Raises:
      ValueError: L is above the number of learned positions.
    """
    del sigma
    length = x.shape[1]
    if length > self.config.length:
      raise ValueError(f'length is {length}; wanted at most {self.config.length}')
    x = x + self.wpe.embedding[None, :length]
    x = self.execution.through(self.h, x, mask)
    return self.ln_f(x)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] -> scores float32 [..., V]."""
    table = (self.wte if self.config.tied else self.vocab_head).embedding
    return jnp.einsum(
      '...d,vd->...v', hidden, table, preferred_element_type=jnp.float32
    )

  def __call__(self, tokens: jax.Array, sigma: jax.Array) -> jax.Array:
    """Raw logits float32 [B, L, V]."""
    return self.logits(self.encode(self.embed(tokens), sigma))


def _plain(config: dict, model_type: str) -> dict:
  """Another name of the tanh form of GELU, and the old name of the length."""
  del model_type
  if config.get('activation_function') == 'gelu_pytorch_tanh':
    del config['activation_function']
  if 'n_ctx' in config:
    config.setdefault('n_positions', config['n_ctx'])
  return config


def _buffers(sizes: GPT2Config) -> dict[str, Buffer]:
  """What old files have of attention: who sees whom, and the score of the unseen."""
  length = sizes.length
  seen = Buffer(
    (1, 1, length, length),
    lambda: np.tri(length, dtype=bool)[None, None],
    'causal attention',
  )
  unseen = Buffer((), lambda: np.array(-1e4, np.float32), 'causal attention')
  both = {'bias': seen, 'masked_bias': unseen}
  return {
    f'h.{i}.attn.{name}': buffer
    for i in range(sizes.num_blocks)
    for name, buffer in both.items()
  }


FAMILY = Family(
  name='gpt2',
  module=GPT2,
  sizes=GPT2Config,
  layers={
    # The vocabulary of 50257 divides by no useful number.
    'wte': Row('wte', P(None, 'fsdp')),
    'wpe': Row('wpe', P(None, 'fsdp')),
    'h_*/ln_1': Row('h.*.ln_1'),
    'h_*/attn/c_attn': Row('h.*.attn.c_attn', P('fsdp', None)),
    'h_*/attn/c_proj': Row('h.*.attn.c_proj', P('fsdp', None)),
    'h_*/ln_2': Row('h.*.ln_2'),
    'h_*/mlp/c_fc': Row('h.*.mlp.c_fc', P('fsdp', 'tensor'), P('tensor')),
    'h_*/mlp/c_proj': Row('h.*.mlp.c_proj', P('tensor', 'fsdp')),
    'ln_f': Row('ln_f'),
    'vocab_head': Row('lm_head', P(None, 'fsdp')),
  },
  model_types=(ModelType('gpt2', 'GPT2LMHeadModel'),),
  fields=(
    Field('vocab_size', 'vocab_size', int),
    Field('n_positions', 'length', int),
    Field('n_embd', 'hidden_dim', int),
    Field('n_layer', 'num_blocks', int),
    Field('n_head', 'num_heads', int),
    Field('n_inner', 'mlp_dim', int, Same('n_embd', 4)),
    Field('layer_norm_epsilon', 'norm_eps', float, 1e-5),
    Field('tie_word_embeddings', 'tied', bool, True),
  ),
  fixed={
    'activation_function': 'gelu_new',
    'scale_attn_weights': True,
    'scale_attn_by_inverse_layer_idx': False,
    'reorder_and_upcast_attn': False,
    'add_cross_attention': False,
  },
  table='wte',
  head='vocab_head',
  head_copy='lm_head.weight',
  transposed=False,  # Conv1D.
  prefix='transformer.',  # Of files that hold more than the bare model.
  plain=_plain,
  buffers=_buffers,
)
