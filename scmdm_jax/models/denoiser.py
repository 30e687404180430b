"""Binds parameters into the three plain functions the diffusion floor works with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from scmdm_jax.models.decoder import Decoder
from scmdm_jax.models.description import DiTConfig, ModelDescription
from scmdm_jax.models.dit import DiT
from scmdm_jax.models.injection import make_injection

Params = dict[str, Any]


class Denoiser(NamedTuple):
  """A network with its parameters bound.

  Legend: `B` batch, `L` length, `V` vocabulary with the mask, `D` width.

  encode: (x_t int32 [B, L], signal [B, L, D], sigma [B]) -> hidden [B, L, D]. The
    signal is read at masked positions only; a zero vector is the null signal.
  logits: hidden [..., D] -> raw scores [..., V], the mask column among them.
  signal: probabilities [..., V] -> the signal [..., D] the next evaluation sees.
  signal_dim: D.
  """

  encode: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  logits: Callable[[jax.Array], jax.Array]
  signal: Callable[[jax.Array], jax.Array]
  signal_dim: int


def _backbone(description: ModelDescription) -> nn.Module:
  arch = description.architecture
  return DiT(arch) if isinstance(arch, DiTConfig) else Decoder(arch)


def _init(module: nn.Module, key: jax.Array, *args: jax.Array) -> Params:
  variables: Any = module.init(key, *args)
  return variables['params']


def _apply(
  module: nn.Module, weights: Params, *args: jax.Array, method: str = '__call__'
) -> jax.Array:
  result: Any = module.apply({'params': weights}, *args, method=method)
  return result


def _embedding_table(backbone: Params) -> jax.Array:
  embed = backbone.get('vocab_embed') or backbone['embed_tokens']
  return embed['embedding']


def init_params(key: jax.Array, description: ModelDescription) -> Params:
  """Fresh float32 parameters of backbone and injection; the key is consumed."""
  key_backbone, key_injection = jax.random.split(key)
  tokens = jnp.zeros((1, 2), jnp.int32)
  return {
    'backbone': _init(_backbone(description), key_backbone, tokens, jnp.zeros((1,))),
    'self_conditioning': init_self_conditioning(key_injection, description),
  }


def init_self_conditioning(key: jax.Array, description: ModelDescription) -> Params:
  """Fresh parameters of the injection alone: the identity; the key is consumed."""
  if description.injection == 'none':
    return {}
  arch = description.architecture
  module = make_injection(description.injection, arch.vocab_size, arch.hidden_dim)
  return _init(module, key, jnp.zeros((1, arch.hidden_dim)))


def abstract_params(description: ModelDescription) -> Params:
  """Shapes and dtypes of `init_params`, nothing computed."""
  return jax.eval_shape(lambda: init_params(jax.random.key(0), description))


def bind(params: Params, description: ModelDescription) -> Denoiser:
  """Plain functions of `params`; see `Denoiser`."""
  arch = description.architecture
  backbone, weights = _backbone(description), params['backbone']
  module, injection = None, params['self_conditioning']
  if description.injection != 'none':
    module = make_injection(description.injection, arch.vocab_size, arch.hidden_dim)
  # The model's own table is shared with the token input, which trains it: read as a
  # constant here, the signal costs no backward product with the vocabulary.
  table = jax.lax.stop_gradient(_embedding_table(weights))

  def signal(probs: jax.Array) -> jax.Array:
    if module is None:
      return jnp.zeros((*probs.shape[:-1], arch.hidden_dim), probs.dtype)
    if description.injection == 'table':
      return _apply(module, injection, probs, method='lookup')
    if description.injection == 'gate':
      return probs @ (table - table[description.mask_id][None])
    return probs @ table

  def encode(x_t: jax.Array, signal: jax.Array, sigma: jax.Array) -> jax.Array:
    x = _apply(backbone, weights, x_t, method='embed')
    if module is not None:
      masked = (x_t == description.mask_id)[..., None]
      x = jnp.where(masked, x + _apply(module, injection, signal), x)
    return _apply(backbone, weights, x, sigma, method='encode')

  def logits(hidden: jax.Array) -> jax.Array:
    return _apply(backbone, weights, hidden, method='logits')

  return Denoiser(encode, logits, signal, arch.hidden_dim)
