"""A Llama-family decoder: Llama, Qwen2, Qwen3 and, both ways, LLaDA, Dream and SDAR.

Parameter names follow the Hugging Face layout of Llama. Compute follows the dtype of
the embeddings; norms, rotations and softmax are float32 inside, and so are the logits.
Legend: `B` batch, `L` length, `V` vocabulary, `D` width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
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
  block_notes,
  block_seen,
  check_blocks,
  check_heads,
  check_sizes,
)
from scmdm_jax.models.keeping import kept, shifted
from scmdm_jax.models.rotary import check_scaling, rotary_buffer, rotate


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes of a Llama-family decoder."""

  vocab_size: int
  length: int
  hidden_dim: int
  num_blocks: int
  num_heads: int
  num_kv_heads: int
  mlp_dim: int
  rope_theta: float = 10000.0
  norm_eps: float = 1e-5
  causal: bool = True
  qkv_bias: bool = False  # Qwen2 and Dream.
  tied: bool = False  # The embedding table is the vocabulary product, too.
  shifted: bool = False  # Dream: position i is read off the hidden state of i - 1.
  head_dim: int = 0  # Of a head; 0: hidden_dim / num_heads.
  qk_norm: bool = False  # Qwen3: an RMS norm of each query and key, shared by heads.
  rope_scaling: tuple = ()  # See `rotary.Scaling`.
  block_length: int = 0  # Above 0: a position sees its own block and earlier ones.

  def __post_init__(self):
    check_sizes(self, from_zero=('head_dim', 'block_length'))
    check_blocks(self, ('causal',))
    if self.head_dim * self.num_heads == self.hidden_dim:
      object.__setattr__(self, 'head_dim', 0)  # One way to say it.
    width = self.head_dim * self.num_heads or self.hidden_dim
    check_heads(width, self.num_heads, self.num_kv_heads)
    pairs = tuple(sorted((str(n), value) for n, value in self.rope_scaling))
    object.__setattr__(self, 'rope_scaling', pairs)
    check_scaling(pairs)

  @property
  def head_size(self) -> int:
    """K."""
    return self.head_dim or self.hidden_dim // self.num_heads


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
    size = cfg.head_size
    self.q_proj = nn.Dense(cfg.num_heads * size, use_bias=cfg.qkv_bias)
    self.k_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=cfg.qkv_bias)
    self.v_proj = nn.Dense(cfg.num_kv_heads * size, use_bias=cfg.qkv_bias)
    self.o_proj = nn.Dense(cfg.hidden_dim, use_bias=False)
    if cfg.qk_norm:
      self.q_norm, self.k_norm = RMSNorm(cfg.norm_eps), RMSNorm(cfg.norm_eps)

  def __call__(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    cfg = self.config
    batch, length = x.shape[:2]
    size, per_token = cfg.head_size, self.execution.per_token
    q = per_token(self.q_proj, x).reshape(batch, length, cfg.num_heads, size)
    k = per_token(self.k_proj, x).reshape(batch, length, cfg.num_kv_heads, size)
    v = per_token(self.v_proj, x).reshape(batch, length, cfg.num_kv_heads, size)
    if cfg.qk_norm:
      q, k = self.q_norm(q), self.k_norm(k)
    q, k = (rotate(x, cfg.rope_theta, cfg.rope_scaling, mask) for x in (q, k))
    k, v = kept(self, {'keys': k, 'values': v}, mask)
    mask = dataclasses.replace(mask, causal=cfg.causal, block_length=cfg.block_length)
    mixed = self.execution.attend(q, k, v, mask)
    return per_token(self.o_proj, mixed.reshape(batch, length, -1))


class GatedMLP(nn.Module):
  """down(silu(gate x) * up x)."""

  config: DecoderConfig
  execution: Execution = Execution()

  def setup(self):
    self.gate_proj = nn.Dense(self.config.mlp_dim, use_bias=False)
    self.up_proj = nn.Dense(self.config.mlp_dim, use_bias=False)
    self.down_proj = nn.Dense(self.config.hidden_dim, use_bias=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    per_token = self.execution.per_token
    gate, up = per_token(self.gate_proj, x), per_token(self.up_proj, x)
    return per_token(self.down_proj, nn.silu(gate) * up)


class Layer(nn.Module):
  """Attention and gated MLP, each behind an RMS norm."""

  config: DecoderConfig
  execution: Execution = Execution()

  def setup(self):
    eps = self.config.norm_eps
    self.input_layernorm = RMSNorm(eps)
    self.self_attn = Attention(self.config, self.execution)
    self.post_attention_layernorm = RMSNorm(eps)
    self.mlp = GatedMLP(self.config, self.execution)

  def __call__(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    x = x + self.self_attn(self.input_layernorm(x), mask)
    return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
  """Token embeddings in, normalised hidden states out."""

  config: DecoderConfig
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    self.embed_tokens = nn.Embed(cfg.vocab_size, cfg.hidden_dim)
    layer = self.execution.with_remat(Layer)
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
    self, x: jax.Array, sigma: jax.Array, mask: AttentionMask = EVERYBODY
  ) -> jax.Array:
    """Embeddings [B, L, D] -> hidden states [B, L, D]; there is no time input.

    `mask` is who attends to whom, causal where the sizes say so. With `shifted` the
    hidden state at i is the one computed at i - 1, which predicts the token at i, so
    that `logits` stays a function of one position; position 0 is read off itself.
    """
    del sigma
    x = self.execution.through(self.layers, x, mask)
    x = self.norm(x)
    return shifted(self, x, mask) if self.config.shifted else x

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


_SPLITS = {
  'embed_tokens': P('tensor', 'fsdp'),
  'layers_*/input_layernorm': P(),
  'layers_*/self_attn/q_proj': P('fsdp', 'tensor'),
  'layers_*/self_attn/k_proj': P('fsdp', 'tensor'),
  'layers_*/self_attn/v_proj': P('fsdp', 'tensor'),
  'layers_*/self_attn/o_proj': P('tensor', 'fsdp'),
  'layers_*/post_attention_layernorm': P(),
  'layers_*/mlp/gate_proj': P('fsdp', 'tensor'),
  'layers_*/mlp/up_proj': P('fsdp', 'tensor'),
  'layers_*/mlp/down_proj': P('tensor', 'fsdp'),
  'norm': P(),
  'lm_head': P('fsdp', 'tensor'),
}
# Of the same layers, in the same order.
_LLADA_NAMES = (
  'model.transformer.wte',
  'model.transformer.blocks.*.attn_norm',
  'model.transformer.blocks.*.q_proj',
  'model.transformer.blocks.*.k_proj',
  'model.transformer.blocks.*.v_proj',
  'model.transformer.blocks.*.attn_out',
  'model.transformer.blocks.*.ff_norm',
  'model.transformer.blocks.*.ff_proj',
  'model.transformer.blocks.*.up_proj',
  'model.transformer.blocks.*.ff_out',
  'model.transformer.ln_f',
  'model.transformer.ff_out',
)


def _layers(names: dict[str, str]) -> dict[str, Row]:
  """Rows of our layers by what a project calls them; only q, k and v have a bias."""
  return {ours: Row(names[ours], split, P('tensor')) for ours, split in _SPLITS.items()}


def _hugging_face(ours: str) -> str:
  name = ours.replace('_*/', '.*.').replace('/', '.')
  return name if ours == 'lm_head' else f'model.{name}'


def _buffers(sizes: DecoderConfig) -> dict[str, Buffer]:
  """Those of old files."""
  inv_freq = rotary_buffer(sizes.head_size, sizes.rope_theta)
  layers = [f'layers.{i}.self_attn.' for i in range(sizes.num_blocks)]
  return {f'model.{layer}rotary_emb.inv_freq': inv_freq for layer in ['', *layers]}


def _plain_llada(config: dict, model_type: str) -> dict:
  del model_type
  if config.get('multi_query_attention') is False:
    del config['multi_query_attention']
  return config


_FIELDS = (
  Field('vocab_size', 'vocab_size', int),
  Field('max_position_embeddings', 'length', int),
  Field('hidden_size', 'hidden_dim', int),
  Field('num_hidden_layers', 'num_blocks', int),
  Field('num_attention_heads', 'num_heads', int),
  Field('intermediate_size', 'mlp_dim', int),
  Field('num_key_value_heads', 'num_kv_heads', int, Same('num_attention_heads')),
  # Absent from the oldest files: the defaults of Hugging Face's class.
  Field('rms_norm_eps', 'norm_eps', float, 1e-6),
  Field('rope_theta', 'rope_theta', float, 10000.0),
  Field('rope_scaling', 'rope_scaling', dict, {}, quiet=True),
  Field('tie_word_embeddings', 'tied', bool, False),
  Field('head_dim', 'head_dim', int, 0, quiet=True),
  Field('block_length', 'block_length', int, 0, quiet=True),
)
LLAMA = Family(
  name='llama',
  module=Decoder,
  sizes=DecoderConfig,
  layers=_layers({ours: _hugging_face(ours) for ours in _SPLITS}),
  model_types=(ModelType('llama', 'LlamaForCausalLM'),),
  # The last two are ours: of a base that was made of a causal model.
  fields=(
    *_FIELDS,
    Field('causal', 'causal', bool, True),
    Field('shifted', 'shifted', bool, False, quiet=True),
  ),
  fixed={'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False},
  table='embed_tokens',
  head='lm_head',
  masked_form='llama',
  objectives=('causal',),
  new=lambda offered: {
    'num_kv_heads': offered['num_heads'],
    'mlp_dim': offered['mlp_ratio'] * offered['hidden_dim'],
  },
  head_copy='lm_head.weight',
  buffers=_buffers,
  notes=block_notes,
  seen=block_seen,
)
QWEN2 = dataclasses.replace(
  LLAMA,
  name='qwen2',
  model_types=(ModelType('qwen2', 'Qwen2ForCausalLM'),),
  fixed={'hidden_act': 'silu', 'use_sliding_window': False},
  always={'qkv_bias': True},
  masked_form='dream',
  objectives=(),
)
QWEN3 = dataclasses.replace(
  QWEN2,
  name='qwen3',
  layers={
    **LLAMA.layers,
    **{
      f'layers_*/self_attn/{name}': Row(f'model.layers.*.self_attn.{name}')
      for name in ('q_norm', 'k_norm')
    },
  },
  model_types=(ModelType('qwen3', 'Qwen3ForCausalLM'),),
  fields=tuple(
    f._replace(default=128) if f.ours == 'head_dim' else f for f in LLAMA.fields
  ),
  extra=lambda sizes: {'head_dim': sizes.head_size},
  fixed={**QWEN2.fixed, 'attention_bias': False},
  always={'qk_norm': True},
  masked_form='qwen3',
)
# Trained within blocks (arXiv 2510.06303), whose length its files call `block_size`;
# in those that do not say, a position sees all.
SDAR = dataclasses.replace(
  QWEN3,
  name='sdar',
  model_types=(ModelType('sdar', 'SDARForCausalLM', mask='named'),),
  fields=QWEN3.fields[:-2],
  extra=lambda sizes: {
    'head_dim': sizes.head_size,
    **({'block_size': sizes.block_length} if sizes.block_length else {}),
  },
  plain=lambda config, _: {'block_length': config.get('block_size', 0), **config},
  always={'qk_norm': True, 'causal': False},
  masked_form='',
)
DREAM = dataclasses.replace(
  QWEN2,
  name='dream',
  model_types=(ModelType('Dream', 'DreamModel', mask='named'),),
  fields=_FIELDS,
  fixed={**QWEN2.fixed, 'use_mrope': False},
  always={'qkv_bias': True, 'causal': False, 'shifted': True},
  masked_form='',
  objectives=('masked',),
)
LLADA = dataclasses.replace(
  LLAMA,
  name='llada',
  masked_form='',
  layers=_layers(dict(zip(_SPLITS, _LLADA_NAMES, strict=True))),
  model_types=(ModelType('llada', 'LLaDAModelLM', mask='named'),),
  fields=(
    Field('vocab_size', 'vocab_size', int),
    Field('embedding_size', 'vocab_size', int, Same('vocab_size')),
    Field('max_sequence_length', 'length', int),
    Field('d_model', 'hidden_dim', int),
    Field('n_layers', 'num_blocks', int),
    Field('n_heads', 'num_heads', int),
    Field('n_kv_heads', 'num_kv_heads', int, Same('n_heads')),
    Field('mlp_hidden_size', 'mlp_dim', int),
    Field('rms_norm_eps', 'norm_eps', float),
    Field('rope_theta', 'rope_theta', float),
    Field('weight_tying', 'tied', bool),
    Field('include_qkv_bias', 'qkv_bias', bool, False),
    Field('block_length', 'block_length', int, 0, quiet=True),
  ),
  fixed={
    'block_type': 'llama',
    'activation_type': 'silu',
    'layer_norm_type': 'rms',
    'layer_norm_with_affine': True,
    'attention_layer_norm': False,
    'include_bias': False,
    'bias_for_layer_norm': False,
    'multi_query_attention': None,
    'input_emb_norm': False,
    'scale_logits': False,
    'alibi': False,
    'rope': True,
    'rope_scaling': None,
    'clip_qkv': None,
  },
  always={'causal': False},
  objectives=(),
  plain=_plain_llada,
  head_copy='model.transformer.ff_out.weight',
)
