"""Attention against one query at a time in NumPy."""

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
