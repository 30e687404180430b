"""Attention against one query at a time in NumPy."""

import dataclasses
import math
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models.attention import AttentionMask, attend
from tests.compiling import quick_jit

BATCH, LENGTH, HEADS, SIZE = 2, 5, 4, 6
attend_quickly = quick_jit(attend)


def random_inputs(key_heads=HEADS, seed=0):
  rng = np.random.default_rng(seed)
  shapes = [(BATCH, LENGTH, heads, SIZE) for heads in (HEADS, key_heads, key_heads)]
  return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def by_hand(q, k, v, seen=lambda b, i, j: True):
  """NaN where a query `i` of example `b` has no key `j` to attend to."""
  out = np.full(q.shape, np.nan)
  for b, i, h in np.ndindex(*q.shape[:3]):
    head = h // (q.shape[2] // k.shape[2])
    keys = [j for j in range(q.shape[1]) if seen(b, i, j)]
    if keys:
      scores = k[b, keys, head] @ q[b, i, h] / np.sqrt(q.shape[3])
      weights = np.exp(scores - scores.max())
      out[b, i, h] = weights / weights.sum() @ v[b, keys, head]
  return out


LENGTHS = np.int32([3, 5])
SEGMENTS = np.int32([[0, 0, 1, 1, 1], [7, 2, 2, 7, 2]])
MASKS = {
  'all': (AttentionMask(), lambda b, i, j: True),
  'causal': (AttentionMask(causal=True), lambda b, i, j: j <= i),
  'blocks': (AttentionMask(block_length=2), lambda b, i, j: j // 2 <= i // 2),
}
DATA = {
  'whole': ({}, lambda b, i, j: True),
  'padded': ({'lengths': LENGTHS}, lambda b, i, j: j < LENGTHS[b]),
  'packed': ({'segments': SEGMENTS}, lambda b, i, j: SEGMENTS[b, i] == SEGMENTS[b, j]),
}


@pytest.mark.parametrize('key_heads', [4, 2, 1])
@pytest.mark.parametrize('data', list(DATA))
@pytest.mark.parametrize('name', list(MASKS))
def test_against_numpy(key_heads, name, data):
  q, k, v = random_inputs(key_heads)
  (mask, seen), (arrays, shown) = MASKS[name], DATA[data]
  found = attend_quickly(q, k, v, dataclasses.replace(mask, **arrays))
  wanted = by_hand(q, k, v, lambda *at: seen(*at) and shown(*at))
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_no_gradient_is_nan_where_nobody_is_seen():
  q, k, v = random_inputs()
  mask = AttentionMask(lengths=np.zeros(BATCH, np.int32))
  gradients = quick_jit(jax.grad(lambda *x: attend(*x, mask).sum(), argnums=(0, 1, 2)))(
    q, k, v
  )
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize('name', list(MASKS))
def test_padding_leaves_no_trace(name):
  q, k, v = random_inputs()
  inside = np.arange(LENGTH) < LENGTHS[:, None]
  other = [np.where(inside[..., None, None], x, 1e4) for x in random_inputs()]
  mask = dataclasses.replace(MASKS[name][0], lengths=LENGTHS)
  found = attend_quickly(q, k, v, mask)
  assert np.array_equal(found, attend_quickly(q, *other[1:], mask))


def test_bfloat16_rounds_only_what_enters_and_leaves():
  q, k, v = (x.astype(ml_dtypes.bfloat16) for x in random_inputs())
  found = attend_quickly(8 * q, k, v)
  assert found.dtype == ml_dtypes.bfloat16
  wide = [x.astype(np.float32) for x in (8 * q, k, v)]
  # Scores of order 10 kept to 8 bits would be wrong by 0.03, and the result too; the
  # weights and the result themselves are rounded to 2^-9.
  np.testing.assert_allclose(
    found.astype(np.float32), by_hand(*wide), atol=0.01, rtol=2**-8
  )


def band(length, window):
  """Who sees whom, bool [L, L]: neighbours, and everybody with the first."""
  i, j = np.indices((length, length))
  return (np.abs(i - j) <= window) | (i == 0) | (j == 0)


def masked(q, k, v, seen):
  """Full attention in float64 where `seen` [B or 1, L, L] allows it."""
  scores = np.einsum('bihk,bjhk->bhij', q.astype(float), k) / np.sqrt(q.shape[-1])
  scores = np.where(seen[:, None], scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return np.einsum('bhij,bjhk->bihk', weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
  # Blocks that fill the length and that do not, one block, and more than enough.
  ('length', 'window'),
  [(12, 3), (13, 4), (13, 1), (9, 8), (9, 7), (9, 20)],
)
@pytest.mark.parametrize('data', list(DATA))
def test_a_window_is_a_mask_over_full_attention(length, window, data):
  rng = np.random.default_rng(length + window)
  q, k, v = rng.standard_normal((3, 2, length, 2, 4)).astype(np.float32)
  mask, seen = AttentionMask(window=window), band(length, window)[None]
  if data == 'padded':
    lengths = np.int32([length - 3, length])
    mask = dataclasses.replace(mask, lengths=lengths)
    seen = seen & (np.arange(length) < lengths[:, None])[:, None]
  if data == 'packed':
    segments = rng.integers(0, 2, (2, length)).astype(np.int32)
    mask = dataclasses.replace(mask, segments=segments)
    seen = seen & (segments[:, :, None] == segments[:, None])
  found = attend_quickly(q, k, v, mask)
  wanted = masked(q, k, v, seen)
  np.testing.assert_allclose(found, wanted, atol=1e-5)  # float32 against float64.


@pytest.mark.slow
def test_gradients_through_a_window():
  rng = np.random.default_rng(0)
  q, k, v, seen = *rng.standard_normal((3, 1, 11, 2, 4)).astype(np.float32), band(11, 3)
  weight = rng.standard_normal((1, 11, 2, 4)).astype(np.float32)

  def full(q, k, v):
    scores = jax.numpy.einsum('bihk,bjhk->bhij', q, k) / 2
    scores = jax.numpy.where(seen, scores, -1e9)
    mixed = jax.numpy.einsum('bhij,bjhk->bihk', jax.nn.softmax(scores), v)
    return (mixed * weight).sum()

  def windowed(q, k, v):
    return (attend(q, k, v, AttentionMask(window=3)) * weight).sum()

  found, wanted = (jax.grad(f, argnums=(0, 1, 2))(q, k, v) for f in (windowed, full))
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def largest_array(window, length):
  """Elements of the largest array in the compiled forward and backward pass."""
  x = jax.ShapeDtypeStruct((1, length, 1, 8), np.float32)

  def loss(q, k, v):
    return attend(q, k, v, AttentionMask(window=window)).sum()

  text = quick_jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().as_text()
  shapes = re.findall(r'\b(?:f32|bf16|s32|pred)\[([\d,]+)\]', text)
  return max(math.prod(map(int, shape.split(','))) for shape in shapes)


def test_a_window_has_no_array_of_all_pairs():
  assert largest_array(0, 512) == 512**2
  # Three blocks of keys per query, and the first one.
  assert largest_array(16, 512) <= 512 * (3 * 16 + 1)
  # Twice the length, twice the memory.
  assert largest_array(16, 1024) <= 1024 * (3 * 16 + 1)


@pytest.mark.parametrize('other', [{'causal': True}, {'block_length': 2}])
def test_a_window_is_refused_beside_another_order(other):
  with pytest.raises(ValueError, match='wanted at most one of them'):
    AttentionMask(window=2, **other)
