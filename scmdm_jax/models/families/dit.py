"""The diffusion transformer of MDLM (arXiv 2406.07524; DiT, arXiv 2212.09748) and UDLM.

Parameter names map one to one onto MDLM's safetensors layout: `blocks.0.mlp.2.weight`
there is `blocks_0/mlp_2/kernel` here. With a `grid` its positions are those of an image
(ours; no parameter more). Compute follows the dtype of the embeddings; the
noise level, norm statistics, rotations, softmax and logits are float32. Legend: `B`
batch, `L` length, `V` vocabulary with the mask, `D` width, `C` conditioning width.
"""

import dataclasses
import functools
from typing import Any

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
  block_notes,
  block_seen,
  check_blocks,
  check_grid,
  check_heads,
  check_sizes,
)
from scmdm_jax.models.keeping import kept
from scmdm_jax.models.rotary import rotary_buffer, rotate, rotate_in_grid

_FREQUENCIES = 256
_ROTARY_BASE = 10000.0
_NORM_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Sizes of the diffusion transformer of MDLM (arXiv 2406.07524) and UDLM."""

  vocab_size: int  # Columns of the output layer, the mask among them.
  length: int  # Longest sequence, in tokens.
  hidden_dim: int
  num_blocks: int
  num_heads: int
  cond_dim: int  # Width of the conditioning vector that drives adaLN.
  mlp_ratio: int = 4
  time_conditioning: bool = False  # False: the network sees sigma = 0 always.
  num_classes: int = 0  # Above 0: a class is an input; class `num_classes` is "none".
  # Channels, height and width of what stands behind the first token, in this order: its
  # positions are those of an image. (): positions are those of a text.
  grid: tuple[int, ...] = ()
  # Above 0: a position attends to so many on either side, and to the first one, which
  # attends to all (see `attention.attend`); 0: all to all.
  window: int = 0
  block_length: int = 0  # Above 0: a position sees its own block and earlier ones.

  def __post_init__(self):
    object.__setattr__(self, 'grid', tuple(self.grid))
    check_sizes(self, from_zero=('num_classes', 'window', 'block_length'))
    check_blocks(self, ('window', 'time_conditioning'))
    check_heads(self.hidden_dim, self.num_heads)
    check_grid(self.grid, self.length)
    if self.grid and self.hidden_dim // self.num_heads < 8:
      raise ValueError(
        f'grid is {self.grid}, and hidden_dim {self.hidden_dim} over num_heads '
        f'{self.num_heads} is below 8; wanted wider heads, which turn by three '
        'coordinates'
      )

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: never."""
    return False


def _layer_norm() -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=_NORM_EPS, use_bias=False, use_fast_variance=False)


def _modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
  """`x` [B, L, D] scaled and shifted by one vector [B, D] per example."""
  return x * (1 + scale[:, None]) + shift[:, None]


def timestep_embedding(sigma: jax.Array) -> jax.Array:
  """Cosines then sines of the noise level `sigma` [B] -> [B, 256]; period 1e4."""
  half = _FREQUENCIES // 2
  freqs = jnp.exp(-jnp.log(1e4) * jnp.arange(half, dtype=jnp.float32) / half)
  angles = sigma[:, None] * freqs[None]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class SigmaMap(nn.Module):
  """Noise level [B] -> conditioning vector [B, C]."""

  cond_dim: int

  def setup(self):
    self.mlp_0 = nn.Dense(self.cond_dim)
    self.mlp_2 = nn.Dense(self.cond_dim)

  def __call__(self, sigma: jax.Array) -> jax.Array:
    return self.mlp_2(nn.silu(self.mlp_0(timestep_embedding(sigma))))


class ClassMap(nn.Module):
  """Class [B] -> conditioning vector [B, C]; the last row stands for "no class"."""

  num_classes: int
  cond_dim: int

  def setup(self):
    self.embedding_table = nn.Embed(self.num_classes + 1, self.cond_dim)

  def __call__(self, classes: jax.Array) -> jax.Array:
    return self.embedding_table(classes)


class Block(nn.Module):
  """Attention and MLP, each behind adaLN and a gate."""

  config: DiTConfig
  execution: Execution = Execution()

  def setup(self):
    dim = self.config.hidden_dim
    zeros = nn.initializers.zeros_init()
    self.norm1 = _layer_norm()
    self.attn_qkv = nn.Dense(3 * dim, use_bias=False)
    self.attn_out = nn.Dense(dim, use_bias=False)
    self.norm2 = _layer_norm()
    self.mlp_0 = nn.Dense(self.config.mlp_ratio * dim)
    self.mlp_2 = nn.Dense(dim)
    self.adaLN_modulation = nn.Dense(6 * dim, kernel_init=zeros)

  def _attend(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    batch, length, dim = x.shape
    heads, per_token = self.config.num_heads, self.execution.per_token
    qkv = per_token(self.attn_qkv, x).reshape(batch, length, 3, heads, dim // heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    if self.config.grid:
      q, k = (rotate_in_grid(y, self.config.grid, mask) for y in (q, k))
    else:
      q, k = (rotate(y, _ROTARY_BASE, mask=mask) for y in (q, k))
    k, v = kept(self, {'keys': k, 'values': v}, mask)
    window, block_length = self.config.window, self.config.block_length
    mask = dataclasses.replace(mask, window=window, block_length=block_length)
    mixed = self.execution.attend(q, k, v, mask)
    return per_token(self.attn_out, mixed.reshape(batch, length, dim))

  def __call__(self, x: jax.Array, cond: jax.Array, mask: AttentionMask) -> jax.Array:
    per_token = self.execution.per_token
    modulation = self.adaLN_modulation(cond)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, -1)
    h = _modulate(self.norm1(x), shift_a, scale_a)
    x = x + gate_a[:, None] * self._attend(h, mask)
    h = per_token(self.mlp_0, _modulate(self.norm2(x), shift_m, scale_m))
    h = nn.gelu(h, approximate=True)
    return x + gate_m[:, None] * per_token(self.mlp_2, h)


class OutputLayer(nn.Module):
  """Final adaLN norm (`normalize`) and the untied vocabulary product (`logits`)."""

  config: DiTConfig

  def setup(self):
    zeros = nn.initializers.zeros_init()
    self.norm_final = _layer_norm()
    product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    self.linear = nn.Dense(
      self.config.vocab_size, kernel_init=zeros, dot_general=product
    )
    self.adaLN_modulation = nn.Dense(2 * self.config.hidden_dim, kernel_init=zeros)

  def normalize(self, x: jax.Array, cond: jax.Array) -> jax.Array:
    shift, scale = jnp.split(self.adaLN_modulation(cond), 2, -1)
    return _modulate(self.norm_final(x), shift, scale)

  def logits(self, hidden: jax.Array) -> jax.Array:
    return self.linear(hidden)


class DiT(nn.Module):
  """Token embeddings in, hidden states out; `logits` turns those into scores."""

  config: DiTConfig
  execution: Execution = Execution()

  def setup(self):
    # MDLM's embedding init: uniform within +-1/sqrt(D).
    init = nn.initializers.variance_scaling(
      1 / 3, 'fan_in', 'uniform', in_axis=-1, out_axis=-2
    )
    self.vocab_embed = nn.Embed(
      self.config.vocab_size, self.config.hidden_dim, embedding_init=init
    )
    self.sigma_map = SigmaMap(self.config.cond_dim)
    if self.config.num_classes:
      self.cond_map = ClassMap(self.config.num_classes, self.config.cond_dim)
    block = self.execution.with_remat(Block)
    self.blocks = [
      block(self.config, self.execution) for _ in range(self.config.num_blocks)
    ]
    self.output_layer = OutputLayer(self.config)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Tokens int32 [B, L] -> embeddings [B, L, D]."""
    return self.vocab_embed(tokens)

  def encode(
    self,
    x: jax.Array,
    sigma: jax.Array,
    mask: AttentionMask = EVERYBODY,
    classes: jax.Array | None = None,
  ) -> jax.Array:
    """Embeddings [B, L, D] and noise levels [B] -> normalised hidden states [B, L, D].

    Without time conditioning every example shares the vector of sigma = 0.

    Args:
      x: [B, L, D].
      sigma: float32 [B].
      mask: who attends to whom; its window is that of the sizes.
      classes: int32 [B], `num_classes` meaning "none"; None: none for all. Read only by
        a model that has classes.
    """
    cfg = self.config
    if not cfg.time_conditioning:
      sigma = jnp.zeros_like(sigma)
    cond = nn.silu(self.sigma_map(sigma))
    if cfg.num_classes:
      if classes is None:
        classes = jnp.full(sigma.shape, cfg.num_classes, jnp.int32)
      cond = cond + nn.silu(self.cond_map(classes))
    cond = cond.astype(x.dtype)
    x = self.execution.through(self.blocks, x, cond, mask)
    return self.output_layer.normalize(x, cond)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] -> raw scores float32 [..., V], the mask among them."""
    return self.output_layer.logits(hidden)

  def __call__(self, tokens: jax.Array, sigma: jax.Array) -> jax.Array:
    """Raw logits [B, L, V]: what MDLM's `forward` returns."""
    return self.logits(self.encode(self.embed(tokens), sigma))


def _plain(config: dict[str, Any], model_type: str) -> dict[str, Any]:
  """UDLM's default, and no classes without classifier-free guidance."""
  if model_type == 'udlm':
    config.setdefault('time_conditioning', True)
  guided = config.get('cfg', False)
  if not isinstance(guided, bool):
    raise ValueError(f'cfg is {guided!r}; wanted a bool')
  if not guided:
    config['cfg_num_classes'] = 0
  return config


def _buffers(sizes: DiTConfig) -> dict[str, Buffer]:
  inv_freq = rotary_buffer(sizes.hidden_dim // sizes.num_heads, _ROTARY_BASE)
  return {'backbone.rotary_emb.inv_freq': inv_freq._replace(written=True)}


def _notes(sizes: DiTConfig) -> tuple[str, ...]:
  if not sizes.grid:
    return block_notes(sizes)
  return (
    *block_notes(sizes),
    f'Positions: of an image, {" x ".join(map(str, sizes.grid))} (channels, rows, '
    'columns) behind the first token; code that does not know `grid` reads a text',
  )


def _seen(sizes: DiTConfig, length: int) -> int:
  """With a window, blocks see three of themselves and the first position."""
  if sizes.window:
    return min(length, 3 * sizes.window + 1)
  return block_seen(sizes, length)


# The names of kuleshov-group's MDLM and UDLM.
FAMILY = Family(
  name='mdlm',
  module=DiT,
  sizes=DiTConfig,
  layers={
    'vocab_embed/embedding': Row('backbone.vocab_embed.embedding', P('tensor', 'fsdp')),
    'sigma_map/mlp_0': Row('backbone.sigma_map.mlp.0'),
    'sigma_map/mlp_2': Row('backbone.sigma_map.mlp.2'),
    'cond_map/embedding_table/embedding': Row(
      'backbone.cond_map.embedding_table.weight'
    ),
    'blocks_*/norm1': Row('backbone.blocks.*.norm1'),
    'blocks_*/attn_qkv': Row('backbone.blocks.*.attn_qkv', P('fsdp', None)),
    'blocks_*/attn_out': Row('backbone.blocks.*.attn_out', P('fsdp', None)),
    'blocks_*/norm2': Row('backbone.blocks.*.norm2'),
    'blocks_*/mlp_0': Row('backbone.blocks.*.mlp.0', P('fsdp', 'tensor'), P('tensor')),
    'blocks_*/mlp_2': Row('backbone.blocks.*.mlp.2', P('tensor', 'fsdp')),
    'blocks_*/adaLN_modulation': Row(
      'backbone.blocks.*.adaLN_modulation', P(None, 'fsdp')
    ),
    'output_layer/norm_final': Row('backbone.output_layer.norm_final'),
    'output_layer/linear': Row(
      'backbone.output_layer.linear', P('fsdp', 'tensor'), P('tensor')
    ),
    'output_layer/adaLN_modulation': Row(
      'backbone.output_layer.adaLN_modulation', P(None, 'fsdp')
    ),
  },
  model_types=(
    ModelType('mdlm', 'MDLM', mask='last'),
    # Trained without a mask; a file may name one.
    ModelType('udlm', 'UDLM', noise='uniform'),
  ),
  fields=(
    Field('vocab_size', 'vocab_size', int),
    Field('model_length', 'length', int),
    Field('hidden_dim', 'hidden_dim', int),
    Field('n_blocks', 'num_blocks', int),
    Field('n_heads', 'num_heads', int),
    Field('cond_dim', 'cond_dim', int),
    Field('mlp_ratio', 'mlp_ratio', int, 4),
    Field('time_conditioning', 'time_conditioning', bool, False),
    Field('cfg_num_classes', 'num_classes', int, 0),
    Field('grid', 'grid', tuple, (), quiet=True),
    Field('window', 'window', int, 0, quiet=True),
    Field('block_length', 'block_length', int, 0, quiet=True),
  ),
  table='vocab_embed/embedding',
  head='output_layer/linear',
  per_example=('adaLN_modulation', 'sigma_map', 'cond_map'),
  objectives=('masked',),
  plain=_plain,
  extra=lambda sizes: {'cfg': sizes.num_classes > 0, 'dropout': 0.0},
  buffers=_buffers,
  notes=_notes,
  seen=_seen,
)
