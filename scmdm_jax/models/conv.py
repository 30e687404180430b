"""A small convolutional classifier: what a row's class is, and features of the rest.

It judges samples; a masked model never sees it. The first token of a row is its class
and is never shown to it. What follows is embedded and read by strided convolutions, as
a sequence or as an image, and averaged over what is left of positions. Legend: `B`
batch, `L` length, `C` classes, `D` features, `E` width of an embedding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.description import ConvConfig, ModelDescription
from scmdm_jax.models.execution import Execution

_STRIDE = 2


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


class Classifier(NamedTuple):
  """A classifier with its parameters bound.

  features: rows int32 [B, L] -> float32 [B, D].
  logits: rows int32 [B, L] -> class scores float32 [B, C].
  """

  features: Callable[[jax.Array], jax.Array]
  logits: Callable[[jax.Array], jax.Array]


def bind(
  params: Any, description: ModelDescription, execution: Execution | None = None
) -> Classifier:
  """Plain functions of `params`, the tree of `denoiser.init_params`.

  Raises:
    ValueError: not a classifier.
  """
  arch = description.architecture
  if not isinstance(arch, ConvConfig):
    raise ValueError(f'found a {type(arch).__name__}; wanted a ConvConfig')
  execution = execution or Execution()
  weights = params['backbone']
  if execution.dtype:
    weights = jax.tree.map(lambda p: p.astype(execution.dtype), weights)
  module = Conv(arch, execution)

  def apply(tokens: jax.Array, method: str) -> jax.Array:
    result: Any = module.apply({'params': weights}, tokens, method=method)
    return result

  return Classifier(
    lambda tokens: apply(tokens, 'features'), lambda tokens: apply(tokens, '__call__')
  )
