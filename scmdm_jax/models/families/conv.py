"""A small convolutional classifier: what a row's class is, and features of the rest.

It judges samples; a masked model never sees it. The first token of a row is its class
and is never shown to it. What follows is embedded and read by strided convolutions, as
a sequence or as an image, and averaged over what is left of positions. Legend: `B`
batch, `L` length, `C` classes, `D` features, `E` width of an embedding.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.execution import Execution
from scmdm_jax.models.family import (
  Family,
  Field,
  ModelType,
  Row,
  check_grid,
  check_sizes,
)

_STRIDE = 2


@dataclasses.dataclass(frozen=True)
class ConvConfig:
  """Sizes of a convolutional classifier of rows that begin with their class."""

  vocab_size: int
  length: int  # Tokens of a row, its class among them.
  hidden_dim: int  # Features.
  num_blocks: int  # Stages, each of which halves the positions.
  embedding_dim: int
  kernel_size: int
  first_class: int  # Id of class 0; the ids of the others follow.
  num_classes: int
  # Channels, height and width of what follows the class; (): it is a sequence.
  grid: tuple[int, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'grid', tuple(self.grid))
    check_sizes(self, from_zero=('first_class',))
    last = self.first_class + self.num_classes
    if self.num_classes < 2 or last > self.vocab_size:
      raise ValueError(
        f'classes have ids {self.first_class} to {last - 1}; wanted at least two, '
        f'inside the vocabulary of {self.vocab_size}'
      )
    check_grid(self.grid, self.length)

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: never."""
    return False


class Stage(nn.Module):
  """Half the positions, then what their neighbours add."""

  config: ConvConfig

  def setup(self):
    cfg = self.config
    window = (cfg.kernel_size,) * (2 if cfg.grid else 1)
    self.down = nn.Conv(cfg.hidden_dim, window, strides=_STRIDE)
    self.norm = nn.LayerNorm(use_bias=False, use_fast_variance=False)
    self.mix = nn.Conv(cfg.hidden_dim, window)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = self.down(x)
    return x + self.mix(nn.relu(self.norm(x)))


class Conv(nn.Module):
  """Rows in, class scores out; `features` is what they are read off."""

  config: ConvConfig
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    self.embed = nn.Embed(cfg.vocab_size, cfg.embedding_dim)
    stage = self.execution.with_remat(Stage)
    self.stages = [stage(cfg) for _ in range(cfg.num_blocks)]
    self.norm_final = nn.LayerNorm(use_bias=False, use_fast_variance=False)
    self.head = nn.Dense(cfg.num_classes)

  def features(self, tokens: jax.Array) -> jax.Array:
    """Rows int32 [B, L] -> features float32 [B, D], whatever their first token is.

    The channels of an image's pixel stand side by side: [B, H, W, channels * E].
    """
    x = self.embed(tokens[:, 1:])
    if self.config.grid:
      batch, (channels, height, width) = len(x), self.config.grid
      x = jnp.moveaxis(x.reshape(batch, channels, height, width, -1), 1, 3)
      x = x.reshape(batch, height, width, -1)
    for stage in self.stages:
      x = self.execution.placement.constrain_batch(stage(x))
    x = nn.relu(self.norm_final(x))
    return x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))

  def logits(self, features: jax.Array) -> jax.Array:
    """Features [B, D] -> class scores float32 [B, C]."""
    return self.head(features).astype(jnp.float32)

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Rows int32 [B, L] -> class scores float32 [B, C]."""
    return self.logits(self.features(tokens))


# Our own files: kernels [..., in, out]. A judge is small, and whole on every device.
FAMILY = Family(
  name='conv',
  module=Conv,
  sizes=ConvConfig,
  layers={
    'embed': Row('embed'),
    'stages_*/down': Row('stages.*.down'),
    'stages_*/norm': Row('stages.*.norm'),
    'stages_*/mix': Row('stages.*.mix'),
    'norm_final': Row('norm_final'),
    'head': Row('head'),
  },
  model_types=(ModelType('conv', 'ConvClassifier'),),
  fields=(
    Field('vocab_size', 'vocab_size', int),
    Field('length', 'length', int),
    Field('hidden_dim', 'hidden_dim', int),
    Field('n_blocks', 'num_blocks', int),
    Field('embedding_dim', 'embedding_dim', int),
    Field('kernel_size', 'kernel_size', int),
    Field('first_class', 'first_class', int, 0),
    Field('n_classes', 'num_classes', int),
    Field('grid', 'grid', tuple, (), quiet=True),
  ),
  transposed=False,
  objectives=('classify',),
  new=lambda offered: {
    'first_class': offered['class_ids'][0],
    'num_classes': len(offered['class_ids']),
  },
)
