"""A backbone in one file: what it takes to add one. No other file knows it."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from scmdm_jax.models.attention import EVERYBODY, AttentionMask
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.family import Family, Field, ModelType, Row, check_sizes


@dataclasses.dataclass(frozen=True)
class ToyConfig:
  """Sizes of rows whose tokens see the mean of all others."""

  vocab_size: int
  length: int
  hidden_dim: int
  num_blocks: int
  num_heads: int
  reach: int

  def __post_init__(self):
    check_sizes(self)

  @property
  def causal(self) -> bool:
    return False


class Mixer(nn.Module):
  """x + out(relu(in(x + mean x)))."""

  config: ToyConfig
  execution: Execution = Execution()

  def setup(self):
    self.inner = nn.Dense(self.config.reach * self.config.hidden_dim)
    self.outer = nn.Dense(self.config.hidden_dim, use_bias=False)

  def __call__(self, x: jax.Array, mask: AttentionMask) -> jax.Array:
    at = jnp.arange(x.shape[1])
    allowed = mask.allows(at[None], at)
    weights = jnp.ones((1, 1, len(at))) if allowed is None else allowed.astype(x.dtype)
    mean = (weights / weights.sum(-1, keepdims=True)) @ x
    h = nn.relu(self.execution.per_token(self.inner, x + mean))
    return x + self.execution.per_token(self.outer, h)


class Toy(nn.Module):
  """Token embeddings in, hidden states out."""

  config: ToyConfig
  execution: Execution = Execution()

  def setup(self):
    cfg = self.config
    self.words = nn.Embed(cfg.vocab_size, cfg.hidden_dim)
    self.places = nn.Embed(cfg.length, cfg.hidden_dim)
    mixer = self.execution.with_remat(Mixer)
    self.mixers = [mixer(cfg, self.execution) for _ in range(cfg.num_blocks)]
    self.scores = nn.Dense(cfg.vocab_size)

  def embed(self, tokens):
    return self.words(tokens)

  def encode(self, x, sigma, mask=EVERYBODY):
    del sigma
    x = x + self.places.embedding[None, : x.shape[1]]
    for mixer in self.mixers:
      x = self.execution.placement.constrain(mixer(x, mask))
    return x

  def logits(self, hidden):
    return self.scores(hidden).astype(jnp.float32)

  def __call__(self, tokens, sigma):
    return self.logits(self.encode(self.embed(tokens), sigma))


FAMILY = Family(
  name='toy',
  module=Toy,
  sizes=ToyConfig,
  layers={
    'words': Row('toy.words', P('tensor', 'fsdp')),
    'places': Row('toy.places', P(None, 'fsdp')),
    'mixers_*/inner': Row('toy.mixers.*.inner', P('fsdp', 'tensor'), P('tensor')),
    'mixers_*/outer': Row('toy.mixers.*.outer', P('tensor', 'fsdp')),
    'scores': Row('toy.scores', P('fsdp', 'tensor'), P('tensor')),
  },
  model_types=(ModelType('toy', 'ToyModel', mask='named'),),
  fields=(
    Field('vocab_size', 'vocab_size', int),
    Field('positions', 'length', int),
    Field('width', 'hidden_dim', int),
    Field('depth', 'num_blocks', int),
    Field('heads', 'num_heads', int, 1),
    Field('reach', 'reach', int, 2),
  ),
  table='words',
  head='scores',
  objectives=('masked',),
  new=lambda offered: {'reach': offered['mlp_ratio']},
  notes=lambda sizes: (f'Reach: {sizes.reach}',),
)
