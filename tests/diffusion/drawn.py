"""The noise of a batch by its documented law, example by example in plain integers."""

import math

import jax
import numpy as np

from scmdm_jax.diffusion.noise import Batch
from scmdm_jax.diffusion.objectives import T_MIN
from tests.compiling import quick_jit, split_key, uniform

GOLDEN = int((math.sqrt(5) - 1) / 2 * 2**32)
_fold = quick_jit(jax.random.fold_in)
_drawn = quick_jit(lambda key, epoch: jax.random.bits(jax.random.fold_in(key, epoch)))


def clean(tokens, epoch=0, first=0, target=None):
  """Examples `first`, `first + 1`, ... of an epoch, in this order."""
  number = np.arange(first, first + len(tokens), dtype=np.int32)
  epochs = np.full(len(tokens), epoch, np.int32)
  return Batch(np.asarray(tokens), number, epochs, number, target)


def _bits(key, epochs):
  """By epoch, as plain integers."""
  return {e: int(_drawn(key, e)) for e in {*epochs.tolist()}}


def keys_of(key, batch):
  pairs = zip(batch.epoch, batch.number, strict=True)
  return [_fold(_fold(key, e), n) for e, n in pairs]


def times(key, batch):
  """Golden sections of the epoch's own offset, float64 [B]."""
  found, offset = [], _bits(key, batch.epoch)
  for epoch, place in zip(batch.epoch.tolist(), batch.place.tolist(), strict=True):
    phase = (place * GOLDEN + offset[epoch]) % 2**32
    found.append(T_MIN + (1 - T_MIN) * (phase // 2**8 + 0.5) / 2**24)
  return np.array(found)


def thresholds(key, batch):
  length = batch.tokens.shape[1]
  return np.stack([np.asarray(uniform(k, (length,))) for k in keys_of(key, batch)])


def taken(key, batch, rate, passes=1):
  """Passes of each example: chosen where a sum of rates passes a whole number."""
  key_start, key_rank = split_key(key, 2)
  found, step = [], int(rate * 2**32)
  start, first = _bits(key_start, batch.epoch), _bits(key_rank, batch.epoch)
  for epoch, place in zip(batch.epoch.tolist(), batch.place.tolist(), strict=True):
    total = place * step + start[epoch]
    rank = (first[epoch] >> 16) + (total >> 32)
    chosen = (total + step) >> 32 > total >> 32
    found.append(passes - rank % passes if chosen else 0)
  return found
