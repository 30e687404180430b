"""Attention by the kernels of accelerators, which keep no scores of all pairs.

Each is `attention.attend` for the masks and sizes it can do. Legend as there.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scmdm_jax.models.attention import AttentionMask, attend
from scmdm_jax.parallel.mesh import BATCH_AXES
from scmdm_jax.parallel.placement import Placement

# By the platform of a device; elsewhere all pairs are worked out.
KERNELS = {'tpu': 'splash', 'gpu': 'cudnn', 'cuda': 'cudnn'}
# Scores of a device that stay in the fast memory of a TPU, where all pairs cost less.
_FEW_BYTES = 64 << 20
_LANES = 128


def attend_on(
  placement: Placement,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: AttentionMask,
) -> jax.Array:
  """Returns `attention.attend` by the kernel of the devices of `placement`, if it fits.

  Kernels round products to bfloat16 as the einsum does, and sum in another order; the
  splash kernel rounds scaled queries once more. Float32 inputs are left to the einsum.
  """
  kernel = KERNELS.get(placement.platform, '')
  # A span of all positions, with which a cache is filled, is none.
  is_whole = mask.span is None or q.shape[1] == k.shape[1]
  whole = dataclasses.replace(mask, span=None)
  if not is_whole or mask.beside:
    kernel = ''
  if kernel == 'cudnn' and _suits_cudnn(placement, q, whole):
    return jax.nn.dot_product_attention(
      q,
      k,
      v,
      is_causal=mask.causal,
      key_value_seq_lengths=mask.lengths,
      implementation='cudnn',
    )
  if kernel == 'splash' and _suits_splash(placement, q, whole):
    assert placement.mesh is not None
    return splash(placement.mesh, q, k, v, whole)
  return attend(*placement.gather_keys(q, k, v), mask)


def _suits_cudnn(placement: Placement, q: jax.Array, mask: AttentionMask) -> bool:
  """CuDNN has causal masks and lengths, and keeps a sequence whole."""
  length, size = q.shape[1], q.shape[3]
  return (
    q.dtype == jnp.bfloat16
    and length % 2 == 0
    and size % 8 == 0
    and size <= _LANES
    and not mask.window
    and not mask.block_length
    and mask.segments is None
    and placement.sequence_shards == 1
  )


def _suits_splash(placement: Placement, q: jax.Array, mask: AttentionMask) -> bool:
  """Splash works in blocks of 128 positions, and pays where scores are many."""
  batch, length, heads, _ = q.shape
  parts = placement.sequence_shards
  devices = placement.batch_shards * parts
  if not heads % placement.vocabulary_shards:
    devices *= placement.vocabulary_shards
  return (
    q.dtype == jnp.bfloat16
    and length % (parts * _LANES) == 0
    and batch * heads * length**2 * 4 > devices * _FEW_BYTES
    and (parts == 1 or mask.sees_all)
  )


def splash(
  mesh: Mesh, q: jax.Array, k: jax.Array, v: jax.Array, mask: AttentionMask
) -> jax.Array:
  """Returns `attention.attend` by the splash kernel of TPUs, [B, L, H, K].

  Examples, heads (if `tensor` divides them) and queries stay on their devices; keys and
  values of an example are gathered.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention

  tensor = mesh.shape['tensor']
  heads = None if q.shape[2] % tensor or k.shape[2] % tensor else 'tensor'

  def own(q: jax.Array, k: jax.Array, v: jax.Array, *ids: jax.Array) -> jax.Array:
    kernel = _splash_kernel(mask, (q.shape[1], k.shape[1]), q.shape[2], q.shape[3])
    q = (q.astype(jnp.float32) * q.shape[3] ** -0.5).astype(q.dtype)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    given = [splash_attention.SegmentIds(*ids)] if ids else []
    return jnp.swapaxes(jax.vmap(kernel)(q, k, v, *given), 1, 2)

  rows, whole = P(BATCH_AXES, 'sequence', heads), P(BATCH_AXES, None, heads)
  ids = _segments(mask, q.shape[1])
  specs = (rows, whole, whole, *(P(*rows[:2]), P(*whole[:2]))[: len(ids)])
  if mesh.size == 1:
    return own(q, k, v, *ids)
  return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(
    q, k, v, *ids
  )


def _segments(mask: AttentionMask, length: int) -> tuple[jax.Array, ...]:
  """Segments of queries and of keys, int32 [B, L]; () where everybody sees everybody.

  Keys that are padding are in a segment without queries.
  """
  if mask.lengths is None:
    return () if mask.segments is None else (mask.segments, mask.segments)
  inside = jnp.arange(length)[None] < mask.lengths[:, None]
  own = jnp.zeros_like(inside, jnp.int32) if mask.segments is None else mask.segments
  return own, jnp.where(inside, own, jnp.iinfo(jnp.int32).min)


def _splash_kernel(
  mask: AttentionMask, shape: tuple[int, int], heads: int, size: int
) -> Any:
  """The kernel of `heads` heads for queries and keys of `shape`.

  Separate backward kernels: the fused one writes gradients of all queries per block of
  keys, 17 GiB at 32,768 positions instead of 1.1 GiB. Heads narrower than the lanes are
  laid out along the sequence, since they would be padded else.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  q, k = (max(b for b in (128, 256, 512, 1024) if n % b == 0) for n in shape)
  minor = kernels.QKVLayout.HEAD_DIM_MINOR
  if size % _LANES:
    minor = kernels.QKVLayout.SEQ_MINOR
  blocks = kernels.BlockSizes(
    block_q=q,
    block_kv=k,
    block_kv_compute=k,
    block_q_dkv=q,
    block_kv_dkv=k,
    block_kv_dkv_compute=k,
    block_q_dq=q,
    block_kv_dq=k,
    use_fused_bwd_kernel=False,
    q_layout=minor,
    k_layout=minor,
    v_layout=minor,
  )
  if mask.sees_all:
    one: Any = masks.FullMask(shape)
  elif mask.causal:
    one = masks.CausalMask(shape)
  else:
    one = _computed(masks, mask, shape)
  return kernels.make_splash_mha(
    masks.MultiHeadMask([one] * heads),
    head_shards=1,
    q_seq_shards=1,
    block_sizes=blocks,
  )


@functools.cache
def _mask_class(masks: Any) -> Any:
  class Ordered(masks._ComputableMask):
    """A mask by positions that is worked out inside the kernel."""

    def __init__(self, mask: AttentionMask, shape: tuple[int, int]):
      self.order = (mask.window, mask.block_length)
      super().__init__(shape=shape, mask_function=mask.orders)

    def __eq__(self, other: object) -> bool:
      return (
        isinstance(other, type(self))
        and self.order == other.order
        and self.shape == other.shape
        and np.array_equal(self.q_sequence, other.q_sequence)
      )

    def __hash__(self) -> int:
      return hash((self.order, self.shape))

  return Ordered


def _computed(masks: Any, mask: AttentionMask, shape: tuple[int, int]) -> Any:
  return _mask_class(masks)(mask, shape)
