"""Drawing tokens from scores: exact, with few random numbers.

Legend: `N` positions, `V` vocabulary with the mask.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scmdm_jax.diffusion.masking import BANNED

# Of a vocabulary above this, blocks are of every so many columns: whole lanes of a TPU.
_LARGE = 1 << 14
_STRIDE = 1024
NOISES = ('high', 'low', 'float64')


def keep_nucleus(logits: jax.Array, top_p: float) -> jax.Array:
  """Bans all but the most probable tokens that together reach `top_p`; [..., V].

  A token stays if all that are more probable do not reach `top_p` without it (nucleus
  sampling, arXiv 1904.09751): so the most probable does, the one that crosses `top_p`,
  and whatever is exactly as probable as that one.

  The least score that stays is bisected over the bits of float32, by a sum over the row
  at each step: nothing is sorted, and columns that are spread over devices stay there.

  Args:
    logits: float32 [..., V].
    top_p: in (0, 1].
  """
  largest = logits.max(-1, keepdims=True)
  weights = jnp.exp(logits - largest)
  # float32 rounds the smallest to 0.
  least = jnp.maximum(top_p, jnp.finfo(jnp.float32).tiny)
  wanted = least * weights.sum(-1, keepdims=True)

  def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = bounds
    middle = (low & high) + ((low ^ high) >> 1)  # Their mean, without an overflow.
    above = jnp.where(logits > _of_rank(middle), weights, 0).sum(-1, keepdims=True)
    stays = above < wanted
    return jnp.where(stays, low, middle), jnp.where(stays, middle, high)

  high = _rank_of(largest)
  low = jnp.full_like(high, _rank_of(jnp.float32(-jnp.inf)))
  _, threshold = jax.lax.fori_loop(0, 32, halve, (low, high))
  return jnp.where(logits >= _of_rank(threshold), logits, BANNED)


def _rank_of(x: jax.Array) -> jax.Array:
  """Returns an int32 in the order of float32 `x`."""
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)
  return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _of_rank(rank: jax.Array) -> jax.Array:
  """Returns the float32 `x` whose `_rank_of` this is."""
  bits = rank ^ ((rank >> 31) & 0x7FFFFFFF)
  return jax.lax.bitcast_convert_type(bits, jnp.float32)


def shaping_temperature(temperature: jax.Array | float) -> jax.Array:
  """Returns what scores are divided by before a nucleus or measure is taken of them.

  0 counts as 1, as in Dream: a greedy draw divides by nothing, and at the limit all
  positions would be equally certain.
  """
  return jnp.where(temperature > 0, jnp.maximum(temperature, 1e-6), 1.0)


def shape_logits(
  logits: jax.Array, temperature: jax.Array | float, top_p: float
) -> jax.Array:
  """Bans in `logits` [N, V] what lies outside the nucleus at `temperature`.

  The temperature itself is left to the draw, which takes 0 without a division.
  """
  if top_p == 1:
    return logits
  scaled = logits / shaping_temperature(temperature)
  return jnp.where(keep_nucleus(scaled, top_p) > BANNED, logits, BANNED)


def draw_tokens(
  keys: jax.Array,
  logits: jax.Array,
  temperature: jax.Array | float = 1.0,
  vocabulary_shards: int = 1,
) -> jax.Array:
  """Draws a token per position, int32 [N], from softmax(logits / temperature).

  Gumbel-max twice over few numbers: first which block of the vocabulary, by the blocks'
  total probabilities, then which token of it. The law is exactly that of Gumbel-max
  over all V (a sum of exponentials is one of its own), for 2 % of the noise at V =
  50,000; no running sum rounds rare tokens away. Noise is float32 in `mode='high'`: the
  default mode never draws below about 1e-7.

  Args:
    keys: [N] typed keys; consumed.
    logits: float32 [N, V]; `BANNED` tokens are never drawn.
    temperature: scalar >= 0; may be traced. 0 is greedy; of equal scores the lowest id
      of the first block counts, which above 16384 tokens need not be the lowest of all.
    vocabulary_shards: see `network.Placement`; does not change the result.
  """
  vocab, blocks = logits.shape[-1], _blocks_of(logits.shape[-1])
  drawn = blocks.number + blocks.size
  noise = jax.vmap(lambda key: jax.random.gumbel(key, (drawn,), jnp.float32, 'high'))(
    keys
  )
  scores = blocks.scores(logits, temperature, vocabulary_shards)
  of_blocks = noise[:, : scores.shape[-1]]
  block = jnp.argmax(scores + temperature * of_blocks, axis=-1)
  ids = block[:, None] * blocks.jump + jnp.arange(blocks.size)[None] * blocks.step
  inside = jnp.take_along_axis(logits, jnp.minimum(ids, vocab - 1), axis=-1)
  inside += temperature * noise[:, blocks.number :]
  token = jnp.argmax(jnp.where(ids < vocab, inside, -jnp.inf), axis=-1)
  return (block * blocks.jump + token * blocks.step).astype(jnp.int32)


class _Blocks(NamedTuple):
  """How tokens form blocks: token i of block j is in column j `jump` + i `step`.

  scores: (logits [N, V], temperature, vocabulary_shards) -> T log sum exp(logits / T)
    of every block, [N, blocks]; as T falls to 0 its largest score. Where the columns
    are spread over devices, each device is filled up to whole blocks or rows: the few
    columns that change their place for it are sent, and what is summed.
  """

  number: int
  size: int
  jump: int
  step: int
  scores: Callable[..., jax.Array]


def _blocks_of(vocab: int) -> _Blocks:
  """Returns runs of about sqrt(V) columns; if V is large, every 1024th column.

  A TPU adds rows of lanes up where they are; a run begins in their midst.
  """
  if vocab > _LARGE:
    return _Blocks(_STRIDE, -(-vocab // _STRIDE), 1, _STRIDE, _strided_scores)
  size = math.ceil(math.sqrt(vocab))
  return _Blocks(size, size, size, 1, functools.partial(_run_scores, size))


def _strided_scores(
  logits: jax.Array, temperature: jax.Array | float, vocabulary_shards: int
) -> jax.Array:
  """Returns the scores of blocks of every 1024th column.

  Whole rows of 1024 are added up: slice by slice, so that no TPU has to move a column,
  and on CPUs, where that takes three times as long, as one array.
  """
  if vocabulary_shards > 1:
    return _sliced_scores(logits, temperature, vocabulary_shards)
  return jax.lax.platform_dependent(
    logits,
    cpu=lambda x: _stacked_scores(x, temperature),
    default=lambda x: _sliced_scores(x, temperature, 1),
  )


def _stacked_scores(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """Returns the scores of blocks of every 1024th column, by an array of rows."""
  whole = logits.shape[-1] // _STRIDE * _STRIDE
  rows = logits[:, :whole].reshape(len(logits), -1, _STRIDE)
  room = ((0, 0), (0, whole + _STRIDE - logits.shape[-1]))
  last = jnp.pad(logits[:, whole:], room, constant_values=BANNED)
  largest = jnp.maximum(rows.max(1), last)
  positive = jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
  total = jnp.exp((rows - largest[:, None]) / positive).sum(1)
  total += jnp.exp((last - largest) / positive)
  return largest + temperature * jnp.log(total)


def _sliced_scores(
  logits: jax.Array, temperature: jax.Array | float, vocabulary_shards: int
) -> jax.Array:
  """Returns the scores of blocks of every 1024th column, slice by slice."""
  rows = -(-logits.shape[-1] // (_STRIDE * vocabulary_shards))
  if vocabulary_shards > 1:
    padding = rows * vocabulary_shards * _STRIDE - logits.shape[-1]
    logits = jnp.pad(logits, ((0, 0), (0, padding)), constant_values=BANNED)
    logits = logits.reshape(len(logits), vocabulary_shards, -1)
  parts = [logits[..., i * _STRIDE : (i + 1) * _STRIDE] for i in range(rows)]
  room = [(0, 0)] * (logits.ndim - 1) + [(0, _STRIDE - parts[-1].shape[-1])]
  parts[-1] = jnp.pad(parts[-1], room, constant_values=BANNED)
  largest = functools.reduce(jnp.maximum, parts)
  if vocabulary_shards > 1:
    largest = largest.max(1, keepdims=True)
  positive = jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
  weights = [jnp.exp((part - largest) / positive) for part in parts]
  total = functools.reduce(jnp.add, weights)
  if vocabulary_shards > 1:
    total, largest = total.sum(1), largest[:, 0]
  return largest + temperature * jnp.log(total)


def _run_scores(
  size: int,
  logits: jax.Array,
  temperature: jax.Array | float,
  vocabulary_shards: int,
) -> jax.Array:
  """Returns the scores of blocks of `size` columns in a row."""
  vocab = logits.shape[-1]
  whole = vocab // size * size
  positive = jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)

  def scores(columns: jax.Array) -> jax.Array:
    largest = columns.max(-1, keepdims=True)
    total = jnp.exp((columns - largest) / positive).sum(-1)
    return largest[..., 0] + temperature * jnp.log(total)

  if vocabulary_shards > 1:
    count = -(-vocab // size)
    per_shard = -(-count // vocabulary_shards)
    padding = per_shard * vocabulary_shards * size - vocab
    padded = jnp.pad(logits, ((0, 0), (0, padding)), constant_values=BANNED)
    return scores(padded.reshape(len(logits), -1, size))[:, :count]
  parts = [scores(logits[:, :whole].reshape(-1, whole // size, size))]
  if whole < vocab:
    parts.append(scores(logits[:, whole:])[:, None])
  return jnp.concatenate(parts, axis=-1)


def draw_in_float64(
  keys: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
  """Draws as `draw_tokens`, by one Gumbel number in float64 for every token; int32 [N].

  What ReMDM, Duo and LLaDA do, for a hundred times the noise.

  Raises:
    ValueError: 64-bit types are off; `with jax.enable_x64(True)` around the outermost
      compiled call turns them on.
  """
  if jax.dtypes.canonicalize_dtype(jnp.float64) != jnp.float64:
    raise ValueError("noise 'float64' wants jax.enable_x64(True) around the sampler")
  scores = logits.astype(jnp.float64)
  noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float64))(
    keys
  )
  return jnp.argmax(scores + temperature * noise, axis=-1).astype(jnp.int32)


def draw_jointly(
  keys: jax.Array,
  logits: jax.Array,
  temperature: jax.Array | float,
  reveal: jax.Array,
  mask_id: int,
) -> jax.Array:
  """Draws the token, or `mask_id` for "stays masked", in one draw; int32 [N].

  What MDLM and MD4 do, in plain float32: a token competes at p times `reveal`, and
  below about 1e-7 of that it is lost, so samples are colder than the model and fewer
  positions are revealed than should be. Kept to reproduce published figures.

  Args:
    keys: [N] typed keys; consumed.
    logits: float32 [N, V] clean scores.
    temperature: scalar > 0.
    reveal: scalar or [N, 1], the probability that a masked position is revealed now.
    mask_id: its column stands for the mask.
  """
  log_probs = jax.nn.log_softmax(logits / temperature, axis=-1) + jnp.log(reveal)
  stays = jnp.arange(logits.shape[-1])[None] == mask_id
  scores = jnp.where(stays, jnp.log1p(-reveal), log_probs)
  noise = jax.vmap(
    lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float32, 'low')
  )(keys)
  return jnp.argmax(scores + noise, axis=-1).astype(jnp.int32)
