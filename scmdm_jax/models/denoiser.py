"""Binds parameters into the three plain functions the diffusion floor works with."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.tree_util import Partial

from scmdm_jax.models import lora
from scmdm_jax.models.attention import EVERYBODY, AttentionMask, Span
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.injection import INJECTIONS, make_injection
from scmdm_jax.models.keeping import CACHE
from scmdm_jax.parallel import rules
from scmdm_jax.parallel.placement import Placement

Params = dict[str, Any]

# Far below any score, and its exponential is an exact zero.
_BANNED = -1e30


class Encode(Protocol):
  """Tokens under a signal to hidden states; see `Denoiser`."""

  def __call__(
    self,
    x_t: jax.Array,
    signal: jax.Array,
    sigma: jax.Array,
    mask: AttentionMask = EVERYBODY,
  ) -> jax.Array: ...


class Cached(NamedTuple):
  """A network that keeps keys and values, as a tree of arrays [B, L, ...].

  start: (B, L) -> a cache that keeps nothing yet.
  encode: (x_t int32 [B, M], signal [B, M, D], sigma [B], cache, start, fresh[, mask])
    -> hidden [B, M, D] of the M positions from `start` on, and the cache, where from
    `fresh` on their keys and values now are; both int32 [], or [B] of every example.
  """

  start: Callable[..., Any]
  encode: Callable[..., tuple[jax.Array, Any]]


class Denoiser(NamedTuple):
  """A network with its parameters bound.

  Legend: `B` batch, `L` length, `V` vocabulary with the mask, `D` width.

  encode: (x_t int32 [B, L], signal [B, L, D], sigma [B][, mask]) -> hidden [B, L, D].
    The signal is read at masked positions only; a zero vector is the null signal. The
    `AttentionMask` gives lengths or segments; the architecture adds its own numbers.
  logits: hidden [..., D] -> raw scores float32 [..., V], the mask column among them;
    -1e30 for ids that no token has. Like `signal` a pytree of what it reads.
  signal: probabilities [..., V] -> float32 [..., D], what the next evaluation sees.
  signal_dim: D.
  placement: keeps examples, positions and scores on their devices; see `Placement`.
  block_length: of its architecture; 0: a position sees all others.
  beside: `encode` of rows [B, 2 L], a clean example and a noised copy; None without
    blocks.
  cached: see `Cached`; None: it cannot be given a cache.
  of: (int32 [N]) -> the same for those examples of a batch; None: it is for all alike.
  """

  encode: Encode
  logits: Callable[[jax.Array], jax.Array]
  signal: Callable[[jax.Array], jax.Array]
  signal_dim: int
  placement: Placement
  block_length: int = 0
  beside: Callable[..., jax.Array] | None = None
  cached: Cached | None = None
  of: Callable[[jax.Array], 'Denoiser'] | None = None


def _backbone(
  description: ModelDescription, execution: Execution | None = None
) -> nn.Module:
  make: Any = description.record.module
  return make(description.architecture, execution or Execution())


def _injection(description: ModelDescription) -> nn.Module | None:
  arch = description.architecture
  return make_injection(description.injection, arch.vocab_size, arch.hidden_dim)


def _table(weights: Params, description: ModelDescription) -> jax.Array:
  """The token embeddings [V, D]."""
  node: Any = weights
  for part in description.record.table.split('/'):
    node = node[part]
  return node['embedding'] if isinstance(node, dict) else node


def _of_head(weights: Params, description: ModelDescription) -> Params:
  """The parameters of the backbone that scores are made of."""
  record = description.record

  def below(node: Params, parts: list[str]) -> Params | None:
    if not parts:
      return node
    found = below(node[parts[0]], parts[1:]) if parts[0] in node else None
    return None if found is None else {parts[0]: found}

  head = below(weights, record.head.split('/')) if record.head else None
  found = head or below(weights, record.table.split('/'))
  assert found is not None, record.name
  return found


def _init(module: nn.Module, key: jax.Array, *args: jax.Array) -> Params:
  variables: Any = module.init(key, *args)
  return variables['params']


def _apply(
  module: nn.Module,
  weights: Params,
  *args: jax.Array | AttentionMask | int | None,
  method: str = '__call__',
  adapter: lora.Adapter | None = None,
  cache: Any = None,
) -> Any:
  """Returns what a method of `module` does; with a cache, the cache as it is then."""
  with lora.applied(adapter):
    if cache is None:
      return module.apply({'params': weights}, *args, method=method)
    variables = {'params': weights, CACHE: cache}
    found: Any = module.apply(variables, *args, method=method, mutable=[CACHE])
  return found[0], found[1][CACHE]


def init_params(key: jax.Array, description: ModelDescription) -> Params:
  """Fresh float32 parameters of all that is described; the key is consumed.

  Raises:
    ValueError: an adapter that fits no layer.
  """
  if description.adapter is not None:
    base = init_params(key, dataclasses.replace(description, adapter=None))
    fresh = lora.init_factors(
      jax.random.fold_in(key, 1), base['backbone'], description.adapter
    )
    return lora.joined(base, {'backbone': fresh})
  key_backbone, key_injection = jax.random.split(key)
  inputs = (jnp.zeros((1, 2), jnp.int32), jnp.zeros((1,)))
  if description.objective == 'classify':
    inputs = (jnp.zeros((1, description.architecture.length), jnp.int32),)
  return {
    'backbone': _init(_backbone(description), key_backbone, *inputs),
    'self_conditioning': init_self_conditioning(key_injection, description),
  }


def init_self_conditioning(key: jax.Array, description: ModelDescription) -> Params:
  """Fresh parameters of the injection alone: the identity; the key is consumed."""
  module = _injection(description)
  if module is None:
    return {}
  return _init(module, key, jnp.zeros((1, description.architecture.hidden_dim)))


def abstract_params(description: ModelDescription) -> Params:
  """Shapes and dtypes of `init_params`, nothing computed."""
  return jax.eval_shape(lambda: init_params(jax.random.key(0), description))


def _without_undefined(scores: jax.Array, description: ModelDescription) -> jax.Array:
  """The scores [..., V] with `_BANNED` for ids that no token has."""
  if not description.undefined_ids:
    return scores
  undefined = np.zeros(scores.shape[-1], bool)
  for start, stop in description.undefined_ids:
    undefined[start:stop] = True
  return jnp.where(jnp.broadcast_to(undefined, scores.shape), _BANNED, scores)


def _as_computed(params: Params, execution: Execution) -> Params:
  """The parameters in the dtype of the compute, and split as it wants them."""
  if execution.dtype:
    params = jax.tree.map(lambda p: p.astype(execution.dtype), params)
  mesh = execution.placement.mesh
  if mesh is not None and mesh.size > 1:
    params = rules.gather_vocabulary(mesh, params)
  return params


def _columns(description: ModelDescription, placement: Placement) -> int:
  """Returns how many columns the vocabulary is computed with, of them V are tokens.

  GPUs multiply bfloat16 by whole 8s, and would copy head and table to fill them up for
  every chunk of positions.
  """
  vocab = description.architecture.vocab_size
  on_gpu = placement.platform in ('gpu', 'cuda') and placement.vocabulary_shards == 1
  # Their width must not be taken for the vocabulary.
  on_gpu = on_gpu and description.architecture.hidden_dim != vocab
  return -(-vocab // 8) * 8 if on_gpu else vocab


def _filled_up(tree: Any, vocab: int, columns: int) -> Any:
  """Returns a tree with zeros behind every axis of size V, up to `columns`."""

  def fill(x: jax.Array) -> jax.Array:
    return jnp.pad(x, [(0, (columns - vocab) * (size == vocab)) for size in x.shape])

  return jax.tree.map(fill, tree) if columns > vocab else tree


def _refuse(description: ModelDescription, classes: jax.Array | None) -> None:
  """Raises ValueError for what `bind` cannot bind."""
  if description.objective == 'classify':
    raise ValueError('a classifier is no denoiser; wanted classifier.bind')
  if classes is not None and not getattr(description.architecture, 'num_classes', 0):
    raise ValueError('classes are given, but the model has none; wanted None')


def bind(
  params: Params,
  description: ModelDescription,
  classes: jax.Array | None = None,
  execution: Execution | None = None,
) -> Denoiser:
  """Plain functions of `params`; see `Denoiser`.

  Args:
    params: `init_params`' tree of arrays; compute follows their dtype.
    description: what they are parameters of; factors are read if it has an `adapter`.
    classes: int32 [B], one class per example, for a model that has classes;
      `num_classes`, like None for the whole batch, means "no class".
    execution: see `Execution`; None: on one device, nothing recomputed.

  Raises:
    ValueError: classes for a model without, or a classifier (`classifier.bind`).
  """
  _refuse(description, classes)
  arch, conditioning = description.architecture, () if classes is None else (classes,)
  execution = execution or Execution()
  params, placement = _as_computed(params, execution), execution.placement
  weights, network = params['backbone'], _backbone(description, execution)
  backbone = functools.partial(_apply, network, weights, adapter=description.adapter)
  module, injection = _injection(description), params['self_conditioning']
  embedded = _embedded(backbone, module, injection, description, placement)

  def encode(
    x_t: jax.Array,
    signal: jax.Array,
    sigma: jax.Array,
    mask: AttentionMask = EVERYBODY,
  ) -> jax.Array:
    inputs = (embedded(x_t, signal), sigma, mask, *conditioning)
    return backbone(*inputs, method='encode')

  logits, signal = _of_vocabulary(params, description, execution)
  bound = Denoiser(encode, logits, signal, arch.hidden_dim, placement)
  return _with_blocks(
    bound, description, _cached(bound, embedded, backbone, conditioning)
  )


def _of_vocabulary(
  params: Params, description: ModelDescription, execution: Execution
) -> tuple[Partial, Partial]:
  """Returns the `logits` and the `signal` of a `Denoiser`."""
  weights, injection = params['backbone'], params['self_conditioning']
  arch, vocab = description.architecture, description.architecture.vocab_size
  columns = _columns(description, execution.placement)
  wide = description.with_vocabulary(columns) if columns > vocab else description
  record, network = INJECTIONS[description.injection], _backbone(wide, execution)
  # Only what has a row per token is wider: V is a number that others reckon with.
  module = _injection(wide if record and record.per_token else description)

  def logits(own: Params, hidden: jax.Array) -> jax.Array:
    scores = _apply(network, own, hidden, method='logits', adapter=description.adapter)
    return _without_undefined(scores[..., :vocab], description)

  def signal(own: Params, table: jax.Array, probs: jax.Array) -> jax.Array:
    if module is None:
      return jnp.zeros((*probs.shape[:-1], arch.hidden_dim), jnp.float32)
    if columns > vocab:
      probs = jnp.pad(probs, [(0, 0)] * (probs.ndim - 1) + [(0, columns - vocab)])
    return _apply(module, own, probs, table, description.mask_id, method='signal')

  # The model's own table is shared with the token input, which trains it: read as a
  # constant here, the signal costs no backward product with the vocabulary.
  table = jax.lax.stop_gradient(_table(weights, description))
  per_token = {n: injection[n] for n in record.per_token} if record else {}
  return (
    Partial(logits, _filled_up(_of_head(weights, description), vocab, columns)),
    Partial(signal, *_filled_up((per_token, table), vocab, columns)),
  )


def _with_blocks(
  bound: Denoiser, description: ModelDescription, cached: Cached
) -> Denoiser:
  """Returns a network with what its attention allows: blocks and a cache."""
  keeps = description.keeps_keys and bound.placement.sequence_shards == 1
  return bound._replace(
    block_length=description.block_length,
    beside=_beside(bound.encode) if description.block_length else None,
    cached=cached if keeps else None,
  )


def _embedded(
  backbone: Callable[..., Any],
  module: nn.Module | None,
  injection: Params,
  description: ModelDescription,
  placement: Placement,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns what makes embeddings of tokens and their signals."""

  def embedded(x_t: jax.Array, signal: jax.Array) -> jax.Array:
    x = placement.constrain(backbone(x_t, method='embed'))
    if module is not None:
      masked = (x_t == description.mask_id)[..., None]
      addend = _apply(module, injection, signal).astype(x.dtype)
      x = jnp.where(masked, x + addend, x)
    return x

  return embedded


def _beside(encode: Encode) -> Encode:
  """Returns `encode` of clean examples and noised copies behind them."""

  def encode_both(
    x_t: jax.Array,
    signal: jax.Array,
    sigma: jax.Array,
    mask: AttentionMask = EVERYBODY,
  ) -> jax.Array:
    mask = dataclasses.replace(mask, beside=x_t.shape[1] // 2)
    return encode(x_t, signal, sigma, mask)

  return encode_both


def _cached(
  bound: Denoiser,
  embedded: Callable[[jax.Array, jax.Array], jax.Array],
  backbone: Callable[..., Any],
  conditioning: tuple[jax.Array, ...],
) -> Cached:
  """Returns how `backbone` is evaluated on a part of the positions; see `Cached`."""

  def encode(
    x_t: jax.Array,
    signal: jax.Array,
    sigma: jax.Array,
    cache: Any,
    start: jax.Array,
    fresh: jax.Array,
    mask: AttentionMask = EVERYBODY,
  ) -> tuple[jax.Array, Any]:
    length = jax.tree.leaves(cache)[0].shape[1] if cache else x_t.shape[1]
    mask = dataclasses.replace(mask, span=Span(start, fresh, length))
    inputs = (embedded(x_t, signal), sigma, mask, *conditioning)
    hidden, cache = backbone(*inputs, method='encode', cache=cache)
    return hidden, jax.tree.map(bound.placement.constrain_kept, cache)

  def start(batch: int, length: int) -> Any:
    tokens, nowhere = jnp.zeros((batch, length), jnp.int32), jnp.int32(0)
    signal = jnp.zeros((batch, length, bound.signal_dim))
    sigma = jnp.zeros((batch,))
    _, cache = jax.eval_shape(encode, tokens, signal, sigma, {}, nowhere, nowhere)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), cache)
    return jax.tree.map(bound.placement.constrain_kept, empty)

  return Cached(start, encode)
