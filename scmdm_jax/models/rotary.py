"""Rotary positions (RoFormer, arXiv 2104.09864), half-split convention.

In an image they are axial: some pairs of a head's dimensions turn with the row, as many
with the column, and, where there are several channels, the rest with the channel. Rows
and columns are as in RoPE-ViT (arXiv 2403.13298); the channel is ours. A learned vector
for each channel would do as well, but no file of MDLM's layout has one.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.models.attention import EVERYBODY, AttentionMask
from scmdm_jax.models.family import Buffer

# What says how turns are scaled: pairs of names and values in the order of names.
Scaling = tuple[tuple[str, Any], ...]
# What each kind of scaling wants, and what it may have.
_ORIGINAL = 'original_max_position_embeddings'
_SCALINGS = {
  'linear': (('factor',), ()),
  'llama3': (('factor', 'low_freq_factor', 'high_freq_factor', _ORIGINAL), ()),
  'yarn': (
    ('factor', _ORIGINAL),
    ('attention_factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim'),
  ),
}
# Slowest turn of a coordinate: an image has tens of rows, a text thousands of tokens.
_GRID_BASE = 100.0


def rotate(
  x: jax.Array, base: float, scaling: Scaling = (), mask: AttentionMask = EVERYBODY
) -> jax.Array:
  """Rotates queries or keys `x` [B, L, H, K] by their position, as `mask` has it.

  The two halves of K form the pairs (`rotate_half`, not interleaved), as in MDLM and
  in the Llama family. Computed in float32 and returned in the dtype of `x`.
  """
  return _turn(x, _line_turns(_rows(x, mask), x.shape[-1], base, scaling), mask)


def check_scaling(scaling: Scaling) -> None:
  """Refuses a scaling that is not computed, or lacks a number.

  Raises:
    ValueError: its kind or the number, and what it should be.
  """
  values = dict(scaling)
  kind = values.pop('rope_type', '')
  values.pop('truncate', None)
  if scaling and kind not in _SCALINGS:
    raise ValueError(f'rope_type is {kind!r}; only {[*_SCALINGS]} are computed')
  wanted, others = _SCALINGS.get(kind, ((), ()))
  missing, unknown = {*wanted} - {*values}, {*values} - {*wanted, *others}
  if missing or unknown:
    raise ValueError(
      f'rope scaling {kind!r} has {sorted(values)}; wanted {sorted(wanted)}, and '
      f'perhaps some of {sorted(others)}'
    )
  for name, value in values.items():
    if type(value) not in (int, float) or not 0 < value < 3e38:
      raise ValueError(f'rope scaling: {name} is {value!r}; wanted a positive number')
  if kind == 'llama3' and values['high_freq_factor'] <= values['low_freq_factor']:
    raise ValueError(
      f'rope scaling: high_freq_factor is {values["high_freq_factor"]}; wanted more '
      f'than low_freq_factor, {values["low_freq_factor"]}'
    )


def rotate_in_grid(
  x: jax.Array, grid: tuple[int, ...], mask: AttentionMask = EVERYBODY
) -> jax.Array:
  """Rotates `x` [B, L, H, K], the first L positions of a token and the image behind it.

  The token stands at (row, column, channel) = (0, 0, 0), a value at (row + 1, column +
  1, channel). With one channel half of the pairs turn with the row and half with the
  column; with more, three eighths each, and the rest with the channel. The j-th of n
  pairs of a coordinate turns by coordinate / 100^(j / n).

  Args:
    x: as in `rotate`.
    grid: `C`, `H` and `W`; values are ordered channel, row, column.
    mask: says which positions `x` has.
  """
  return _turn(x, _grid_turns(grid, _rows(x, mask), x.shape[-1]), mask)


def _rows(x: jax.Array, mask: AttentionMask) -> int:
  """Returns how many positions an example has of which `x` has some, or copies."""
  return mask.beside or (mask.span.length if mask.span else x.shape[1])


def rotary_buffer(size: int, base: float) -> Buffer:
  """Returns the tensor `inv_freq` of files, float32 [size / 2].

  Pair j of a head of `size` turns by base^(-2j / size) with each position.
  """

  def value() -> np.ndarray:
    exponents = -np.arange(0, size, 2, dtype=np.float64) / size
    return (base**exponents).astype(np.float32)

  return Buffer((size // 2,), value, f'base {base:g} in heads of {size}')


class _Turns(NamedTuple):
  """Cosines and sines of the angles of pairs, float32 [1, L, 1, K / 2].

  Constants, since a compiler that fuses a cosine into what it is multiplied by works it
  out for every example and head (XLA on CPU: more than half of the time of attention at
  B=4, L=128), and the same arrays at every use, so that a program holds them once.
  """

  cos: np.ndarray
  sin: np.ndarray


@functools.cache
def _line_turns(length: int, size: int, base: float, scaling: Scaling) -> _Turns:
  inv_freq = np.float32(base) ** (-np.arange(0, size, 2, dtype=np.float32) / size)
  inv_freq, times = _scaled(inv_freq.astype(np.float32), size, base, dict(scaling))
  turns = _turns(np.arange(length, dtype=np.float32)[:, None] * inv_freq)
  return turns if times == 1 else _Turns(*(np.float32(times) * t for t in turns))


def _scaled(
  inv_freq: np.ndarray, size: int, base: float, scaling: dict[str, Any]
) -> tuple[np.ndarray, float]:
  """Turns per position float32 [K / 2], and what cosines and sines are multiplied by.

  'linear' (arXiv 2306.15595) turns all pairs `factor` times as slowly. 'llama3' (as in
  Llama 3.1) does so with pairs that make fewer than `low_freq_factor` turns within the
  original length, leaves those alone that make more than `high_freq_factor`, and
  goes from one to the other in between. 'yarn' (arXiv 2309.00071) does it with a ramp
  along the pairs, and makes attention sharper.
  """
  kind, factor = scaling.get('rope_type'), scaling.get('factor', 1.0)
  if kind == 'linear':
    return inv_freq / np.float32(factor), 1.0
  original = scaling.get(_ORIGINAL, 1)
  if kind == 'llama3':
    low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
    turns = original * inv_freq / (2 * math.pi)  # Within the original length.
    kept = np.clip((turns - low) / (high - low), 0, 1)
  elif kind == 'yarn':
    kept = 1 - _ramp(size, base, original, scaling)
  else:
    return inv_freq, 1.0
  mixed = inv_freq * (kept + (1 - kept) / factor)
  return mixed.astype(np.float32), _attention_factor(factor, scaling)


def _ramp(
  size: int, base: float, original: float, scaling: dict[str, Any]
) -> np.ndarray:
  """From 0 at pairs that turn `beta_fast` times to 1 at `beta_slow` times, [K / 2]."""

  def pair(times: float) -> float:
    turns = math.log(original / (times * 2 * math.pi))
    return size * turns / (2 * math.log(base))

  low = pair(scaling.get('beta_fast', 32))
  high = pair(scaling.get('beta_slow', 1))
  if scaling.get('truncate', True):
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, size - 1)
  high += 0.001 * (low == high)
  return np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)


def _attention_factor(factor: float, scaling: dict[str, Any]) -> float:
  if scaling['rope_type'] != 'yarn':
    return 1.0

  def times(scale: float) -> float:
    return 1 + 0.1 * scale * math.log(factor) if factor > 1 else 1.0

  if 'attention_factor' in scaling:
    return scaling['attention_factor']
  if 'mscale' in scaling and 'mscale_all_dim' in scaling:
    return times(scaling['mscale']) / times(scaling['mscale_all_dim'])
  return times(1)


@functools.cache
def _grid_turns(grid: tuple[int, ...], length: int, size: int) -> _Turns:
  channel, row, column = np.indices(grid).reshape(3, -1)
  places = np.zeros((1 + channel.size, 3))
  places[1:] = np.stack([row + 1, column + 1, channel], axis=1)
  pairs = size // 2
  each = pairs // 2 if grid[0] == 1 else 3 * pairs // 8
  counts = (each, each, pairs - 2 * each)
  angles = [
    place[:, None] * _GRID_BASE ** (-np.arange(count) / max(count, 1))
    for place, count in zip(places[:length].T, counts, strict=True)
  ]
  return _turns(np.concatenate(angles, axis=1).astype(np.float32))


def _turns(angles: np.ndarray) -> _Turns:
  """Of angles float32 [L, K / 2]."""
  return _Turns(np.cos(angles)[None, :, None], np.sin(angles)[None, :, None])


def _turn(x: jax.Array, turns: _Turns, mask: AttentionMask) -> jax.Array:
  cos, sin = (_of_queries(table, x.shape[1], mask) for table in turns)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _of_queries(
  table: np.ndarray, count: int, mask: AttentionMask
) -> np.ndarray | jax.Array:
  """Returns those of `table` [1, L, 1, K / 2] that `count` positions turn by."""
  if mask.beside:
    return np.tile(table, (1, 2, 1, 1))
  if mask.span is None:
    return table
  if mask.span.start.ndim:
    return jnp.asarray(table[0])[mask.queries(count)]
  return mask.span.cut(jnp.asarray(table), count)
