"""Attention against one query at a time in NumPy."""

import math
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models.attention import attend
from tests.compiling import quick_jit

BATCH, LENGTH, HEADS, SIZE = 2, 5, 4, 6
attend_quickly = quick_jit(attend, static_argnames='causal')


def random_inputs(key_heads=HEADS, seed=0):
  rng = np.random.default_rng(seed)
  shapes = [(BATCH, LENGTH, heads, SIZE) for heads in (HEADS, key_heads, key_heads)]
  return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def by_hand(q, k, v, causal=False, real=None):
  """NaN where a query has nothing to attend to."""
  out = np.full(q.shape, np.nan)
  for b, i, h in np.ndindex(*q.shape[:3]):
    head = h // (q.shape[2] // k.shape[2])
    seen = [
      j
      for j in range(LENGTH)
      if (j <= i or not causal) and (real is None or real[b, j])
    ]
    if seen:
      scores = k[b, seen, head] @ q[b, i, h] / np.sqrt(SIZE)
      weights = np.exp(scores - scores.max())
      out[b, i, h] = weights / weights.sum() @ v[b, seen, head]
  return out


REAL = np.array([[True, True, False, True, False], [False, False, True, True, True]])


@pytest.mark.parametrize('key_heads', [4, 2, 1])
@pytest.mark.parametrize('real', [None, REAL], ids=['whole', 'padded'])
@pytest.mark.parametrize('causal', [False, True])
def test_against_numpy(key_heads, causal, real):
  q, k, v = random_inputs(key_heads)
  found = np.asarray(attend_quickly(q, k, v, causal=causal, real=real))
  wanted = by_hand(q, k, v, causal, real)
  attending = ~np.isnan(wanted)
  # Causal and padded, the first two queries of the second example see nothing.
  assert np.sum(~attending[:, :, 0, 0]) == (2 if causal and real is not None else 0)
  np.testing.assert_allclose(found[attending], wanted[attending], atol=1e-5)
  assert np.all(np.isfinite(found))


def test_no_gradient_is_nan_either():
  q, k, v = random_inputs()
  nobody = np.zeros((BATCH, LENGTH), bool)
  gradients = quick_jit(
    jax.grad(lambda *x: attend(*x, causal=True, real=nobody).sum(), argnums=(0, 1, 2))
  )(q, k, v)
  assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize('causal', [False, True])
def test_padding_leaves_no_trace(causal):
  q, k, v = random_inputs()
  other = [np.where(REAL[..., None, None], x, 1e4) for x in random_inputs()]
  found = attend_quickly(q, k, v, causal=causal, real=REAL)
  changed = attend_quickly(q, *other[1:], causal=causal, real=REAL)
  seeing = ~np.isnan(by_hand(q, k, v, causal, REAL)[..., 0, 0])
  assert np.array_equal(np.asarray(found)[seeing], np.asarray(changed)[seeing])


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


def masked(q, k, v, seen, real=None):
  """Full attention in float64 where `seen` [L, L] and `real` [B, L] allow it."""
  scores = np.einsum('bihk,bjhk->bhij', q.astype(float), k) / np.sqrt(q.shape[-1])
  allowed = seen[None] if real is None else seen[None] & real[:, None]
  scores = np.where(allowed[:, None], scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return np.einsum('bhij,bjhk->bihk', weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
  # Blocks that fill the length and that do not, one block, and more than enough.
  ('length', 'window'),
  [(12, 3), (13, 4), (13, 1), (9, 8), (9, 7), (9, 20)],
)
@pytest.mark.parametrize('padded', [False, True])
def test_a_window_is_a_mask_over_full_attention(length, window, padded):
  rng = np.random.default_rng(length + window)
  q, k, v = rng.standard_normal((3, 2, length, 2, 4)).astype(np.float32)
  real = None
  if padded:
    real = rng.random((2, length)) < 0.6
    real[:, 0] = True  # So that every query sees something.
  found = quick_jit(attend, static_argnames='window')(q, k, v, real=real, window=window)
  wanted = masked(q, k, v, band(length, window), real)
  np.testing.assert_allclose(found, wanted, atol=1e-5)  # float32 against float64.


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
    return (attend(q, k, v, window=3) * weight).sum()

  found, wanted = (jax.grad(f, argnums=(0, 1, 2))(q, k, v) for f in (windowed, full))
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def largest_array(window, length):
  """Elements of the largest array in the compiled forward and backward pass."""
  x = jax.ShapeDtypeStruct((1, length, 1, 8), np.float32)

  def loss(q, k, v):
    return attend(q, k, v, window=window).sum()

  text = quick_jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().as_text()
  shapes = re.findall(r'\b(?:f32|bf16|s32|pred)\[([\d,]+)\]', text)
  return max(math.prod(map(int, shape.split(','))) for shape in shapes)


def test_a_window_has_no_array_of_all_pairs():
  assert largest_array(0, 512) == 512**2
  # Three blocks of keys per query, and the first one.
  assert largest_array(16, 512) <= 512 * (3 * 16 + 1)
  # Twice the length, twice the memory.
  assert largest_array(16, 1024) <= 1024 * (3 * 16 + 1)


def test_a_window_and_causal_are_refused_together():
  q, k, v = random_inputs()
  with pytest.raises(ValueError, match='wanted causal or a window'):
    attend(q, k, v, causal=True, window=2)
