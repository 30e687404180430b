"""The kernel of TPUs, interpreted, against the einsum that all other tests know."""

import dataclasses
import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.models import kernels
from scmdm_jax.models.attention import AttentionMask, Span, attend
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement

BATCH, LENGTH, HEADS, SIZE = 2, 256, 2, 64
SEGMENTS = np.sort(np.random.default_rng(1).integers(0, 3, (BATCH, LENGTH)), axis=1)
MASKS = {
  'all': AttentionMask(),
  'window': AttentionMask(window=20),
  'blocks and lengths': AttentionMask(block_length=32, lengths=np.int32([100, LENGTH])),
  'causal segments': AttentionMask(causal=True, segments=SEGMENTS.astype(np.int32)),
}


def random_inputs(dtype=ml_dtypes.bfloat16):
  rng = np.random.default_rng(0)
  shapes = [(BATCH, LENGTH, heads, SIZE) for heads in (HEADS, 1, 1)]
  return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.fixture
def interpreted(monkeypatch):
  splash = pytest.importorskip(
    'jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel'
  )
  make = functools.partial(splash.make_splash_mha, interpret=True)
  monkeypatch.setattr(splash, 'make_splash_mha', make)


@pytest.mark.slow
@pytest.mark.parametrize('name', list(MASKS))
def test_splash_is_attention(name, interpreted):
  q, k, v = random_inputs()
  wanted = attend(q, k, v, MASKS[name]).astype(np.float32)
  found = kernels.splash(meshes.one_device(), q, k, v, MASKS[name])
  # Queries are rounded once more after scaling, and weights before normalisation
  # instead of after: a few times 2^-9 of values of up to 4.
  np.testing.assert_allclose(found.astype(np.float32), wanted, atol=0.02)
  assert np.abs(wanted).max() > 0.5


def platform(name, **shards):
  """A placement that says it is on other devices than it is."""
  where = type('Elsewhere', (Placement,), {'platform': name, **shards})
  return where(meshes.one_device())


@pytest.mark.parametrize(
  ('where', 'mask', 'dtype', 'kernel'),
  [
    ('tpu', AttentionMask(window=20), ml_dtypes.bfloat16, 'splash'),
    ('tpu', AttentionMask(), np.float32, ''),
    ('cuda', AttentionMask(lengths=np.int32([3, 9])), ml_dtypes.bfloat16, 'cudnn'),
    ('cuda', AttentionMask(window=20), ml_dtypes.bfloat16, ''),
    ('cuda', AttentionMask(), np.float32, ''),
    ('cpu', AttentionMask(), ml_dtypes.bfloat16, ''),
  ],
)
def test_kernels_are_chosen_by_platform_mask_and_dtype(
  where, mask, dtype, kernel, monkeypatch
):
  called = []
  monkeypatch.setattr(kernels, 'splash', lambda *_: called.append('splash'))
  monkeypatch.setattr(
    jax.nn,
    'dot_product_attention',
    lambda *_, implementation, **__: called.append(implementation),
  )
  monkeypatch.setattr(kernels, '_FEW_BYTES', 0)
  q, k, v = random_inputs(dtype)
  placement = platform(where)
  found = kernels.attend_on(placement, q, k, v, mask)
  assert called == [kernel] * bool(kernel)
  assert kernel or found.shape == q.shape


@pytest.mark.parametrize('name', list(MASKS))
def test_a_cache_is_filled_by_the_kernel(name, monkeypatch):
  nowhere, given = jax.numpy.int32(0), []
  monkeypatch.setattr(kernels, 'splash', lambda _, q, k, v, mask: given.append(mask))
  monkeypatch.setattr(kernels, '_FEW_BYTES', 0)
  spanned = dataclasses.replace(MASKS[name], span=Span(nowhere, nowhere, LENGTH))
  q, k, v = random_inputs()
  kernels.attend_on(platform('tpu'), q, k, v, spanned)
  # All positions: the same mask without a span, by which the einsum is the same, too.
  (mask,) = given
  assert vars(mask) == vars(MASKS[name])  # The very arrays.
  np.testing.assert_allclose(
    attend(q, k, v, spanned).astype(np.float32),
    attend(q, k, v, MASKS[name]).astype(np.float32),
    atol=0.02,
  )
  # A part of them is for no kernel.
  kernels.attend_on(platform('tpu'), q[:, :64], k, v, spanned)
  assert len(given) == 1


def test_few_scores_stay_with_the_einsum():
  # A MiB of float32 scores: less than the fast memory of a TPU.
  q = random_inputs()[0]
  assert not kernels._suits_splash(platform('tpu'), q, AttentionMask())
  wide = jax.ShapeDtypeStruct((8, 4096, 32, 128), ml_dtypes.bfloat16)
  assert kernels._suits_splash(platform('tpu'), wide, AttentionMask())
  # Positions of a mask are those of the whole sequence, not of a device's part.
  split = platform('tpu', sequence_shards=2)
  assert kernels._suits_splash(split, wide, AttentionMask())
  assert not kernels._suits_splash(split, wide, AttentionMask(causal=True))
  odd = jax.ShapeDtypeStruct((8, 4100, 32, 128), ml_dtypes.bfloat16)
  assert not kernels._suits_splash(platform('tpu'), odd, AttentionMask())
