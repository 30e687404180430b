"""Blocks from left to right: against runs by hand, and what lies right of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.strategies import (
  Ancestral,
  Confidence,
  EntropyBound,
  Joint,
  ReMDM,
)
from tests.compiling import quick_jit, split_key
from tests.diffusion import recording, toys

BATCH, LENGTH, BLOCK, T = 4, 6, 2, 9
BLOCKS, STEPS = LENGTH // BLOCK, T // (LENGTH // BLOCK)
WEIGHTS = toys.weights(0, length=LENGTH)


def keys_of(seed):
  return split_key(jax.random.key(seed), BATCH)


def prompts(seed):
  x_init = toys.clean_tokens(seed, BATCH, LENGTH)
  x_init[:, 1:] = toys.MASK
  x_init[0] = toys.MASK
  x_init[1, :3] = toys.clean_tokens(seed, 1, 3)[0]  # A block of prompt, and a half.
  x_init[2, 4] = 1  # In the middle of what is to be written.
  return x_init


def sampler(strategy, num_steps=T, **options):
  return Sampler(num_steps, strategy, **options)


def shy(network, unseen=False):
  """As the contract has it: the signal of a visible position does not matter.

  Positions `unseen` [B, L] appear masked.
  """

  def encode(x_t, signal, sigma):
    x_t = jnp.where(unseen, toys.MASK, x_t)
    shown = (x_t != toys.MASK)[..., None]
    return network.encode(x_t, jnp.where(shown, 0.0, signal), sigma)

  return network._replace(encode=encode)


@functools.partial(quick_jit, static_argnums=3)
def write_block(keys, x_init, b, strategy):
  """One block alone: what is missing in later ones is filled, but appears masked."""
  later = (jnp.arange(LENGTH) >= (b + 1) * BLOCK)[None] & (x_init == toys.MASK)
  network = shy(toys.network(WEIGHTS), unseen=later)
  folded = jax.vmap(jax.random.fold_in, (0, None))(keys, b)
  found = sample(
    folded,
    network,
    jnp.where(later, 0, x_init),
    sampler(strategy, STEPS),
    mask_id=toys.MASK,
  )
  return jnp.where(later, toys.MASK, found.tokens), found.evaluations


@pytest.mark.parametrize('strategy', [Ancestral(), EntropyBound(1.0)], ids=str)
def test_equals_block_after_block_by_hand(strategy):
  x_init, keys = prompts(1), keys_of(2)
  whole = quick_jit(
    lambda keys, x_init: sample(
      keys,
      shy(toys.network(WEIGHTS)),
      x_init,
      sampler(strategy, block_length=BLOCK),
      mask_id=toys.MASK,
    )
  )(keys, x_init)
  x, evaluations = x_init, 0
  for b in range(BLOCKS):
    x, number = write_block(keys, x, b, strategy)
    evaluations += number
  assert np.array_equal(whole.tokens, x)
  assert not np.any(np.asarray(x) == toys.MASK)
  assert whole.evaluations == evaluations
  assert (evaluations < T) == strategy.early_exit


@pytest.mark.parametrize('strategy', [Confidence(), ReMDM('cap', eta=0.5)], ids=str)
def test_later_blocks_wait_and_earlier_ones_are_left_alone(strategy):
  seen = []
  network = recording.network(WEIGHTS, seen)
  run = quick_jit(
    lambda keys, x_init: sample(
      keys,
      network,
      x_init,
      sampler(strategy, block_length=BLOCK),
      keep_trajectory=True,
      mask_id=toys.MASK,
    )
  )
  x_init = prompts(3)
  found = recording.run(run, seen, keys_of(4), x_init)
  assert found.evaluations == len(seen) == T
  trajectory = np.asarray(found.trajectory)
  assert trajectory.shape == (T, BATCH, LENGTH)
  assert np.array_equal(trajectory[:-1], [s.x_t for s in seen[1:]])
  for i, now in enumerate(seen):
    b = i // STEPS
    left, right = slice(0, b * BLOCK), slice((b + 1) * BLOCK, None)
    assert np.array_equal(now.x_t[:, right], x_init[:, right])
    assert not np.any(now.signal[:, right])
    assert not np.any(now.x_t[:, left] == toys.MASK)
    assert np.array_equal(now.x_t[:, left], np.asarray(found.tokens)[:, left])
    if i % STEPS > 0:
      # Something is carried in the active block.
      active = slice(b * BLOCK, (b + 1) * BLOCK)
      assert np.any(now.signal[:, active])
  assert np.array_equal(trajectory[-1], found.tokens)
  assert not np.any(trajectory[-1] == toys.MASK)
  visible = x_init != toys.MASK
  assert np.array_equal(trajectory[-1][visible], x_init[visible])
  if strategy == Confidence():
    # Two positions in three steps: one, one, none; in every block.
    left = np.sum(trajectory[:, 0] == toys.MASK, axis=-1)
    assert list(left) == [5, 4, 4, 3, 2, 2, 1, 0, 0]


def test_one_block_is_no_block():
  @functools.partial(quick_jit, static_argnums=2)
  def run(keys, x_init, block_length):
    options = sampler(Ancestral(), block_length=block_length)
    return sample(
      keys, toys.network(WEIGHTS), x_init, options, mask_id=toys.MASK
    ).tokens

  keys, x_init = keys_of(5), prompts(6)
  assert np.array_equal(run(keys, x_init, 0), run(keys, x_init, LENGTH))


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (dict(block_length=4), 'block_length: found 4; wanted a divisor'),
    (dict(block_length=8), 'block_length: found 8'),
    (dict(block_length=3), 'divides num_steps = 9'),
    (dict(noise='low'), 'Joint'),
    (dict(strategy=Joint()), 'Joint'),
  ],
)
def test_what_does_not_fit(options, words):
  keys, x_init = keys_of(7), jnp.asarray(prompts(8))
  with pytest.raises(ValueError, match=words):
    options = sampler(**{'strategy': Ancestral(), **options})
    sample(keys, toys.network(WEIGHTS), x_init, options, mask_id=toys.MASK)
