"""The one place where hidden states become decisions: tokens, measures, signals.

Work with the vocabulary is done where it is wanted only, a chunk of positions at a
time: no array of shape [B, L, V] ever exists. Legend: `B` batch, `L` length, `D` width,
`V` vocabulary with the mask, `R` positions of a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion import draws
from scmdm_jax.diffusion.masking import BANNED, clean_logits
from scmdm_jax.diffusion.network import Network

MEASURES = ('', 'log_prob', 'entropy', 'margin')

# Float32 scores of one chunk: about what keeps a matrix unit busy at V = 50,000.
_CHUNK_BYTES = 128 << 20
# Below this, gathering costs more than the positions it saves.
_WHOLE_BYTES = 16 << 20


def chunk_size(network: Network, total: int) -> int:
  """Of `total` positions, how many to read at a time; by the size of the vocabulary.

  All of them if their scores are small. Else a quarter, so that there is something to
  skip, in whole 64s, since each chunk reads all weights of the vocabulary; at most what
  fits 128 MiB.
  """
  row = jax.ShapeDtypeStruct((1, network.signal_dim), jnp.float32)
  bytes_per_row = 4 * jax.eval_shape(network.logits, row).shape[-1]
  if total * bytes_per_row <= _WHOLE_BYTES:
    return total
  most = max(_CHUNK_BYTES // bytes_per_row // 16 * 16, 16)
  return min(-(-total // 256) * 64, most)


def over_wanted(
  read: Callable[..., Any],
  wanted: jax.Array,
  inputs: Any,
  chunk: int,
  shards: int = 1,
  constrain_groups: Callable[[jax.Array], jax.Array] = lambda x: x,
  parts: int = 1,
  constrain: Callable[[jax.Array], jax.Array] = lambda x: x,
  first: jax.Array | None = None,
) -> Any:
  """Applies `read` at wanted positions, `chunk` of them at a time; zeros elsewhere.

  Wanted positions are gathered to the front; a chunk without any is skipped, so the
  work is proportional to their number, and the result does not depend on `chunk`.
  Differentiable: chunks are recomputed backward. If all fit one chunk, all are read.
  A position never leaves its device; a chunk is skipped where no device wants it.

  Args:
    read: maps a tree of [R, ...] to a tree of [R, ...].
    wanted: bool [B, L].
    inputs: tree of [B, L, ...].
    chunk: positions of a device at a time; R is S P times that.
    shards: S; see `network.Network`.
    constrain_groups: of its placement.
    parts: its P.
    constrain: its `constrain`.
    first: bool [B, L]; wanted positions that are to be met before the others, so that
      `read` may find chunks of one kind. None: in their own order.

  Returns:
    What `read` returns, as a tree of [B, L, ...].
  """
  batch, length = wanted.shape
  devices = shards * parts
  total = wanted.size // devices

  def split(x: jax.Array) -> jax.Array:
    """[B, L, ...] to [S P, positions of a device, ...]."""
    x = jnp.asarray(x)
    if parts > 1:
      x = x.reshape(shards, batch // shards, parts, length // parts, *x.shape[2:])
      x = jnp.swapaxes(x, 1, 2)
      return constrain_groups(x.reshape(devices, total, *x.shape[4:]))
    return constrain_groups(x.reshape(shards, total, *x.shape[2:]))

  def joined(x: jax.Array) -> jax.Array:
    """The inverse, zeros where nothing is wanted."""
    if parts > 1:
      x = x.reshape(shards, parts, batch // shards, length // parts, *x.shape[2:])
      x = jnp.swapaxes(x, 1, 2).reshape(batch, length, *x.shape[4:])
    else:
      x = x.reshape(batch, length, *x.shape[2:])
    return _kept(wanted, constrain(x))

  if chunk >= total:
    flat = jax.tree.map(lambda x: split(x).reshape(wanted.size, *x.shape[2:]), inputs)
    return jax.tree.map(
      lambda x: joined(x.reshape(devices, total, *x.shape[1:])), read(flat)
    )
  groups = split(wanted)
  count = groups.sum(-1).max()
  # Stable, so that equal inputs meet in equal chunks.
  rank = (~groups).astype(jnp.int8) * 2
  if first is not None:
    rank += ~split(first)
  order = jnp.argsort(rank, axis=-1)
  padded = jnp.pad(order, ((0, 0), (0, -total % chunk)))
  starts = jnp.arange(0, total, chunk)

  def gather(x: jax.Array) -> jax.Array:
    rows = jax.vmap(lambda x, i: x[i])(split(x), padded)
    rows = rows.reshape(devices, len(starts), chunk, *rows.shape[2:])
    if devices > 1:  # To `jax_debug_key_reuse` this is a use of keys.
      rows = jnp.swapaxes(rows, 0, 1)
    return rows.reshape(len(starts), devices * chunk, *rows.shape[3:])

  rows = jax.tree.map(gather, inputs)
  read = jax.checkpoint(read, prevent_cse=False)
  first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
  empty = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(read, first)
  )

  # Around the branch, too: else backward keeps what `read` closes over, such as the
  # kernel of the head, once per chunk.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def step(_, chunk_rows):
    start, rows = chunk_rows
    rows = jax.tree.map(constrain_groups, rows)
    return None, jax.lax.cond(start < count, read, lambda _: empty, rows)

  _, results = jax.lax.scan(step, None, (starts, rows))

  def scatter(values: jax.Array) -> jax.Array:
    values = values.reshape(len(starts), devices, chunk, *values.shape[2:])
    values = jnp.swapaxes(values, 0, 1)
    values = constrain_groups(
      values.reshape(devices, len(padded[0]), *values.shape[3:])
    )
    values = values[:, :total]
    values = jax.vmap(lambda v, i: jnp.zeros_like(v).at[i].set(v))(values, order)
    return joined(values)

  return jax.tree.map(scatter, results)


def _over_network(
  network: Network,
  read: Callable[..., Any],
  wanted: jax.Array,
  inputs: Any,
  chunk: int | None,
  first: jax.Array | None = None,
) -> Any:
  """`over_wanted` as the positions of `network` are spread; None chooses `chunk`."""
  placement = network.placement
  shards, parts = placement.batch_shards, placement.sequence_shards
  size = chunk or chunk_size(network, wanted.size // (shards * parts))
  return over_wanted(
    read,
    wanted,
    inputs,
    size,
    shards,
    placement.constrain_groups,
    parts,
    placement.constrain,
    first,
  )


def _kept(wanted: jax.Array, values: jax.Array) -> jax.Array:
  """`values` [B, L, ...] where `wanted` [B, L], zeros elsewhere."""
  return jnp.where(wanted.reshape(*wanted.shape, *[1] * (values.ndim - 2)), values, 0)


class Guidance(NamedTuple):
  """Classifier-free guidance: scores u + (1 + w) (c - u) of two evaluations.

  c is the network's, u the `unconditional` one's (LLaDA; Ho and Salimans,
  arXiv 2207.12598). Each evaluation has a signal of its own, [B, L, 2 D] carried:
  its own prediction, as in training, or with `shared_signal` the guided one for both.
  """

  unconditional: Network
  weight: jax.Array | float
  shared_signal: bool = False


class Reading(NamedTuple):
  """What is read off [B, L] positions; zero where nothing was asked."""

  tokens: jax.Array  # int32 [B, L]; drawn, or the given one at visible positions.
  measure: jax.Array  # float32 [B, L]; larger is more certain.
  signal: jax.Array  # float32 [B, L, D], for the next evaluation; see `read_signal`.


def read_logits(network: Network, hidden: jax.Array, mask_id: int) -> jax.Array:
  """Scores over clean tokens, float32 [..., V], from hidden states [..., D]."""
  return clean_logits(network.logits(hidden), mask_id)


def read_signal(network: Network, logits: jax.Array) -> jax.Array:
  """The signal [..., D] of a prediction given by clean `logits` [..., V].

  Always the model's own distribution, before carry-over, temperature or top-p: that is
  what training shows the network. No gradient flows into the prediction.
  """
  # Signals are linear in the probabilities, so D numbers are normalised, not V.
  logits = jax.lax.stop_gradient(logits)
  weights = jnp.exp(logits - logits.max(-1, keepdims=True))
  return network.signal(weights) / weights.sum(-1, keepdims=True)


def measure_of(
  name: str, logits: jax.Array, tokens: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
  """How certain softmax(logits / temperature) is, float32 [R]; larger is more.

  'log_prob': of `tokens` int32 [R]. 'entropy': minus the entropy, nats. 'margin': the
  largest probability minus the second. '': zeros.

  Args:
    name: one of MEASURES.
    logits: float32 [R, V].
    tokens: int32 [R].
    temperature: scalar >= 0; 0 counts as 1, see `draws.shaping_temperature`.
  """
  if not name:
    return jnp.zeros(tokens.shape, jnp.float32)
  positive = draws.shaping_temperature(temperature)
  log_probs = jax.nn.log_softmax(logits / positive, axis=-1)
  if name == 'log_prob':
    return jnp.take_along_axis(log_probs, tokens[:, None], axis=-1)[:, 0]
  if name == 'entropy':
    return (jnp.exp(log_probs) * jnp.maximum(log_probs, BANNED)).sum(-1)
  best, token = log_probs.max(-1), log_probs.argmax(-1)
  others = jnp.arange(logits.shape[-1])[None] != token[:, None]
  second = jnp.where(others, log_probs, BANNED).max(-1)
  return jnp.exp(best) - jnp.exp(second)


def read(
  keys: jax.Array,
  network: Network,
  hidden: jax.Array,
  x_t: jax.Array,
  wanted: jax.Array,
  *,
  mask_id: int,
  told: jax.Array | None = None,
  measure: str = '',
  shaped: bool = False,
  temperature: jax.Array | float = 1.0,
  top_p: float = 1.0,
  noise: str = 'high',
  reveal: jax.Array | None = None,
  guidance: Guidance | None = None,
  chunk: int | None = None,
) -> Reading:
  """Reads [B, L] positions off hidden states [B, L, D].

  A position costs one product with the vocabulary whatever is asked of it, a signal
  another; the noise of a draw and the signal are left out of chunks that want none.

  Args:
    keys: [B, L] typed keys, one per position; consumed.
    network: see `network.Network`.
    hidden: [B, L, D]; with `guidance` both networks' side by side, [B, L, 2 D].
    x_t: int32 [B, L]. A visible position keeps its token, which `measure` is taken of.
    wanted: bool [B, L]; where tokens and measures are wanted.
    mask_id: the mask token; never drawn.
    told: bool [B, L]; where signals are wanted. None: nowhere.
    measure: one of MEASURES.
    shaped: whether the measure sees temperature and top-p, as Dream's does.
    temperature: scalar >= 0; shapes the draw, never the signal.
    top_p: in (0, 1]; shapes the draw, never the signal.
    noise: 'high', 'float64', or 'low' for the joint draw over tokens and mask, which
      may return `mask_id`; see `draws`.
    reveal: with 'low', the probability that a masked position is revealed now.
    guidance: see `Guidance`.
    chunk: positions at a time; None chooses by the size of the vocabulary.
  """
  streams = [network, guidance.unconditional] if guidance else [network]

  def logits_of(stream: Network, hidden: jax.Array) -> jax.Array:
    return read_logits(stream, hidden, mask_id)

  def guided(scores: list[jax.Array]) -> jax.Array:
    if guidance is None:
      return scores[0]
    return scores[1] + (1 + guidance.weight) * (scores[0] - scores[1])

  def draw(keys: jax.Array, logits: jax.Array) -> jax.Array:
    if noise == 'low':
      assert reveal is not None
      return draws.draw_jointly(keys, logits, temperature, reveal, mask_id)
    if noise == 'float64':
      return draws.draw_in_float64(keys, logits, temperature)
    return draws.draw_tokens(
      keys, logits, temperature, network.placement.vocabulary_shards
    )

  def decide(keys, x, logits) -> tuple[jax.Array, jax.Array]:
    candidates = draws.shape_logits(logits, temperature, top_p)
    tokens = jnp.where(x == mask_id, draw(keys, candidates), x)
    if shaped:
      return tokens, measure_of(measure, candidates, tokens, temperature)
    return tokens, measure_of(measure, logits, tokens)

  def tell(scores: list[jax.Array], logits: jax.Array) -> jax.Array:
    shared = guidance is not None and guidance.shared_signal
    said = [logits] * len(streams) if shared else scores
    signals = [read_signal(s, p) for s, p in zip(streams, said, strict=True)]
    return jnp.concatenate(signals, axis=-1)

  def rows(inputs) -> Reading:
    keys, hidden, x, decided, telling = inputs
    parts = jnp.split(hidden, len(streams), axis=-1)
    scores = [logits_of(s, h) for s, h in zip(streams, parts, strict=True)]
    logits = guided(scores)
    if told is None:
      return Reading(*decide(keys, x, logits), jnp.zeros((len(x), 0), jnp.float32))
    tokens, certainty = _where_any(decided, decide, keys, x, logits)
    return Reading(tokens, certainty, _where_any(telling, tell, scores, logits))

  telling = jnp.zeros_like(wanted) if told is None else told
  inputs = (keys, hidden, x_t, wanted, telling)
  reading = _over_network(network, rows, wanted | telling, inputs, chunk, first=wanted)
  return Reading(
    _kept(wanted, reading.tokens),
    _kept(wanted, reading.measure),
    _kept(telling, reading.signal),
  )


def _where_any(wanted: jax.Array, do: Callable[..., Any], *arguments: Any) -> Any:
  """`do(*arguments)` if any of `wanted` [R] is; otherwise zeros, and no work."""
  shapes = jax.eval_shape(do, *arguments)
  empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.cond(wanted.any(), do, lambda *_: empty, *arguments)


def read_nll(
  network: Network,
  hidden: jax.Array,
  x_0: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> jax.Array:
  """-log p(x_0) at the `wanted` positions, 0 elsewhere, float32 [B, L]; nats."""

  def rows(inputs) -> jax.Array:
    hidden, x_0 = inputs
    return _nll(read_logits(network, hidden, mask_id), x_0)

  return _over_network(network, rows, wanted, (hidden, x_0), chunk)


def read_prediction(
  network: Network,
  source: Network,
  hidden: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> jax.Array:
  """The signal of what `source` predicts at the `wanted` positions, [B, L, D].

  `source` turns its hidden states [B, L, D] into scores, `network` those into the
  signal. Zero elsewhere, where no signal is ever looked at.
  """

  def rows(hidden: jax.Array) -> jax.Array:
    return read_signal(network, read_logits(source, hidden, mask_id))

  return _over_network(source, rows, wanted, hidden, chunk)


def read_nll_and_signal(
  network: Network,
  hidden: jax.Array,
  x_0: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`read_nll` and `read_prediction` for one product with the vocabulary."""

  def rows(inputs) -> tuple[jax.Array, jax.Array]:
    hidden, x_0 = inputs
    logits = read_logits(network, hidden, mask_id)
    return _nll(logits, x_0), read_signal(network, logits)

  return _over_network(network, rows, wanted, (hidden, x_0), chunk)


def _nll(logits: jax.Array, x_0: jax.Array) -> jax.Array:
  """-log softmax(logits)[x_0], [R], of `logits` [R, V]."""
  picked = jnp.take_along_axis(logits, x_0[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked
