"""The one place where hidden states become decisions: tokens, measures, signals.

Work with the vocabulary is done where it is wanted only, a chunk of positions at a
time: no array of shape [B, L, V] ever exists. Legend: `B` batch, `L` length, `D` width,
`V` vocabulary with the mask, `R` positions of a chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from scmdm_jax.diffusion import draws
from scmdm_jax.diffusion.checks import check
from scmdm_jax.diffusion.gathering import (
  keep,
  over_wanted,
  where_any,
  where_any_if_it_pays,
)
from scmdm_jax.diffusion.guidance import Predictor
from scmdm_jax.diffusion.masking import BANNED, clean_logits
from scmdm_jax.diffusion.network import Network

MEASURES = ('', 'log_prob', 'entropy', 'margin')

# Float32 scores of one chunk: about what keeps a matrix unit busy at V = 50,000.
_CHUNK_BYTES = 128 << 20
# Below this, gathering costs more than the positions it saves.
_WHOLE_BYTES = 16 << 20


def chunk_size(network: Network, total: int) -> int:
  """Returns how many of `total` positions to read at a time, by the vocabulary's size.

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


def _over_network(
  network: Network,
  read: Callable[..., Any],
  wanted: jax.Array,
  inputs: Any,
  chunk: int | None,
  first: jax.Array | None = None,
  shared: tuple[Callable[..., jax.Array], ...] = (),
) -> Any:
  """Applies `read` by `over_wanted` on the placement of `network`; None: any chunk.

  What is `shared` are functions of a network, with their parameters.
  """
  placement = network.placement
  devices = placement.batch_shards * placement.sequence_shards
  size = chunk or chunk_size(network, wanted.size // devices)
  trees = tuple(f if isinstance(f, Partial) else Partial(f) for f in shared)
  return over_wanted(read, wanted, inputs, placement, size, first, trees)


class Decoding(NamedTuple):
  """How scores become tokens and measures.

  mask_id: the mask token; never drawn.
  measure: one of MEASURES.
  shaped: whether the measure sees temperature and top-p, as Dream's does.
  edits: whether a visible position has its likeliest token, which is measured, and not
    the one it has.
  temperature: scalar >= 0; shapes the draw, never the signal.
  top_p: in (0, 1]; shapes the draw, never the signal.
  noise: 'high', 'float64', or 'low' for the joint draw over tokens and mask, which may
    return `mask_id`; see `draws`.
  reveal: with 'low', the probability that a masked position is revealed now; a scalar,
    or [B, 1] where examples differ.
  """

  mask_id: int
  measure: str = ''
  shaped: bool = False
  edits: bool = False
  temperature: jax.Array | float = 1.0
  top_p: float = 1.0
  noise: str = 'high'
  reveal: jax.Array | float = 1.0


class Reading(NamedTuple):
  """What is read off [B, L] positions; zero where nothing was asked."""

  tokens: jax.Array  # int32 [B, L]; drawn, or at visible positions see `Decoding`.
  measure: jax.Array  # float32 [B, L]; larger is more certain.
  signal: jax.Array  # float32 [B, L, M D], for the next evaluation; see `read_signal`.


def read_logits(network: Network, hidden: jax.Array, mask_id: int) -> jax.Array:
  """Returns scores over clean tokens, float32 [..., V], of hidden states [..., D]."""
  return clean_logits(network.logits(hidden), mask_id)


def read_signal(network: Network, logits: jax.Array) -> jax.Array:
  """Returns `signal_of` the `network`."""
  return signal_of(network.signal, logits)


def signal_of(signal: Callable[[jax.Array], jax.Array], logits: jax.Array) -> jax.Array:
  """Returns the signal [..., D] of a prediction given by clean `logits` [..., V].

  Always the model's own distribution, before carry-over, temperature or top-p: that is
  what training shows the network. No gradient flows into the prediction.
  """
  # Signals are linear in the probabilities, so D numbers are normalised, not V.
  logits = jax.lax.stop_gradient(logits)
  weights = jnp.exp(logits - logits.max(-1, keepdims=True))
  return signal(weights) / weights.sum(-1, keepdims=True)


def measure_of(
  name: str, logits: jax.Array, tokens: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
  """Returns how certain softmax(logits / temperature) is, float32 [R]; more is surer.

  'log_prob': of `tokens` int32 [R]. 'entropy': minus the entropy, nats. 'margin': the
  largest probability minus the second. '': zeros.

  Args:
    name: one of MEASURES.
    logits: float32 [R, V].
    tokens: int32 [R].
    temperature: scalar >= 0; 0 counts as 1, see `draws.shaping_temperature`.

  Raises:
    ValueError: no such measure.
  """
  check(name in MEASURES, 'measure', name, f'one of {", ".join(MEASURES[1:])}')
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


def _decide(
  decoding: Decoding, shards: int, keys: jax.Array, x: jax.Array, logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Draws tokens int32 [R] where `x` int32 [R] is masked, and measures all, [R]."""
  shaped = draws.shape_logits(logits, decoding.temperature, decoding.top_p)
  if decoding.noise == 'low':
    drawn = draws.draw_jointly(
      keys, shaped, decoding.temperature, jnp.asarray(decoding.reveal), decoding.mask_id
    )
  elif decoding.noise == 'float64':
    drawn = draws.draw_in_float64(keys, shaped, decoding.temperature)
  else:
    drawn = draws.draw_tokens(keys, shaped, decoding.temperature, shards)
  seen = logits.argmax(-1).astype(x.dtype) if decoding.edits else x
  tokens = jnp.where(x == decoding.mask_id, drawn, seen)
  if decoding.shaped:
    return tokens, measure_of(decoding.measure, shaped, tokens, decoding.temperature)
  return tokens, measure_of(decoding.measure, logits, tokens)


def read(
  keys: jax.Array,
  predictor: Predictor,
  hidden: jax.Array,
  x_t: jax.Array,
  decoding: Decoding,
  wanted: jax.Array,
  carried: jax.Array | None = None,
  chunk: int | None = None,
) -> Reading:
  """Reads [B, L] positions off hidden states [B, L, M D].

  A position costs one product with the vocabulary whatever is asked of it, a signal
  another; the noise of a draw and the signal are left out of chunks that want none.

  Args:
    keys: [B, L] typed keys, one per position; consumed.
    predictor: the networks, M of them.
    hidden: [B, L, M D], of `predictor.encode`.
    x_t: int32 [B, L]. A visible token stays and is measured, unless `decoding` edits.
    decoding: see `Decoding`.
    wanted: bool [B, L]; where tokens and measures are wanted.
    carried: bool [B, L]; where signals are wanted. None: nowhere.
    chunk: positions at a time; None chooses by the size of the vocabulary.
  """
  networks, mask_id = predictor.networks, decoding.mask_id
  shards = networks[0].placement.vocabulary_shards

  def decide(keys, x, logits, reveal) -> tuple[jax.Array, jax.Array]:
    own = decoding if reveal is None else decoding._replace(reveal=reveal[:, None])
    return _decide(own, shards, keys, x, logits)

  def signals(scores: list[jax.Array], logits: jax.Array) -> jax.Array:
    shown = predictor.predictions(scores, logits)
    each = [read_signal(n, p) for n, p in zip(networks, shown, strict=True)]
    return jnp.concatenate(each, axis=-1)

  def rows(inputs) -> Reading:
    keys, hidden, x, decided, signalled, reveal = inputs
    states = jnp.split(hidden, len(networks), axis=-1)
    scores = [read_logits(n, h, mask_id) for n, h in zip(networks, states, strict=True)]
    logits = predictor.guided(scores)
    if carried is None:
      nothing = jnp.zeros((len(x), 0), jnp.float32)
      return Reading(*decide(keys, x, logits, reveal), nothing)
    tokens, measure = where_any(decided, decide, keys, x, logits, reveal)
    signal = where_any_if_it_pays(signalled, signals, scores, logits)
    return Reading(tokens, measure, signal)

  signalled, reveal = jnp.zeros_like(wanted) if carried is None else carried, None
  if decoding.noise == 'low' and jnp.ndim(decoding.reveal):
    reveal = jnp.broadcast_to(decoding.reveal, wanted.shape)
  inputs = (keys, hidden, x_t, wanted, signalled, reveal)
  either = wanted | signalled
  reading = _over_network(networks[0], rows, either, inputs, chunk, first=wanted)
  return Reading(
    keep(wanted, reading.tokens),
    keep(wanted, reading.measure),
    keep(signalled, reading.signal),
  )


def read_nll(
  network: Network,
  hidden: jax.Array,
  x_0: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> jax.Array:
  """Returns -log p(x_0) at `wanted` positions, 0 elsewhere, float32 [B, L]; nats."""

  def rows(logits: Callable[..., jax.Array], inputs) -> jax.Array:
    hidden, x_0 = inputs
    return _nll(clean_logits(logits(hidden), mask_id), x_0)

  shared = (network.logits,)
  return _over_network(network, rows, wanted, (hidden, x_0), chunk, shared=shared)


def read_prediction(
  network: Network,
  source: Network,
  hidden: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> jax.Array:
  """Returns the signal of what `source` predicts at `wanted` positions, [B, L, D].

  `source` turns its hidden states [B, L, D] into scores, `network` those into the
  signal. Zero elsewhere, where no signal is ever looked at.
  """

  def rows(
    logits: Callable[..., jax.Array], signal: Callable[..., jax.Array], hidden
  ) -> jax.Array:
    return signal_of(signal, clean_logits(logits(hidden), mask_id))

  shared = (source.logits, network.signal)
  return _over_network(source, rows, wanted, hidden, chunk, shared=shared)


def read_nll_and_signal(
  network: Network,
  hidden: jax.Array,
  x_0: jax.Array,
  wanted: jax.Array,
  mask_id: int,
  chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns `read_nll` and `read_prediction` for one product with the vocabulary."""

  def rows(
    logits: Callable[..., jax.Array], signal: Callable[..., jax.Array], inputs
  ) -> tuple[jax.Array, jax.Array]:
    hidden, x_0 = inputs
    scores = clean_logits(logits(hidden), mask_id)
    return _nll(scores, x_0), signal_of(signal, scores)

  shared = (network.logits, network.signal)
  return _over_network(network, rows, wanted, (hidden, x_0), chunk, shared=shared)


def _nll(logits: jax.Array, x_0: jax.Array) -> jax.Array:
  """Returns -log softmax(logits)[x_0], [R], of `logits` [R, V]."""
  picked = jnp.take_along_axis(logits, x_0[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked
