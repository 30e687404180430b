"""Blocks from left to right: against runs by hand, and what lies right of them."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.blocks import Answers, Blocks, deal_steps
from scmdm_jax.diffusion.planning import Steps
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import Cosine, LogLinear
from scmdm_jax.diffusion.strategies import (
  P2,
  Ancestral,
  Confidence,
  Dream,
  Edit,
  EntropyBound,
  Factor,
  FirstHitting,
  Joint,
  MaskGIT,
  ReMDM,
  Threshold,
)
from tests.compiling import quick_jit, split_key
from tests.diffusion import recording, toys

BATCH, LENGTH, BLOCK, T = 7, 6, 2, 9
BLOCKS = LENGTH // BLOCK
WEIGHTS = toys.weights(0, length=LENGTH)


def keys_of(seed):
  return split_key(jax.random.key(seed), BATCH + 1)


def prompts(seed):
  """Prompts of all lengths, holes in several blocks, and nothing to write."""
  missing = ['......', '?.....', '...?..', '???...', '?????.', '????..', '.?.???']
  kept = np.array([[c == '?' for c in row] for row in missing])
  x_init = np.where(kept, toys.clean_tokens(seed, BATCH, LENGTH), toys.MASK)
  return np.concatenate([x_init, toys.clean_tokens(seed, 1, LENGTH)]).astype(np.int32)


def steps_of(to_write, num_steps):
  """The steps of every block of one example, dealt one after the other."""
  begun = [n for n in to_write if n]
  weights = [n - 1 if max(begun, default=0) > 1 else min(n, 1) for n in to_write]
  weights = [max(w, 0) for w in weights]
  steps, until = [], 0
  for n, weight in zip(to_write, weights, strict=True):
    if not n:
      steps.append(0)
      continue
    rest = Fraction(num_steps - len(begun), sum(weights))
    share = math.floor(rest * (until + weight)) - math.floor(rest * until)
    steps.append(1 + share)
    until += weight
  return steps


def to_write_of(row):
  return np.sum(row.reshape(BLOCKS, BLOCK) == toys.MASK, axis=-1).tolist()


def sampler(strategy, num_steps=T, **options):
  noise = 'low' if isinstance(strategy, Joint) else 'high'
  return Sampler(num_steps, strategy, **{'noise': noise, **options})


def shy(network, unseen=False):
  """As the contract has it: the signal of a visible position does not matter.

  Positions `unseen` [B, L] appear masked.
  """

  def encode(x_t, signal, sigma):
    x_t = jnp.where(unseen, toys.MASK, x_t)
    shown = (x_t != toys.MASK)[..., None]
    return network.encode(x_t, jnp.where(shown, 0.0, signal), sigma)

  return network._replace(encode=encode)


@pytest.mark.parametrize(
  ('to_write', 'num_steps', 'wanted'),
  [
    ([2, 2, 2], 9, [3, 3, 3]),  # As without a prompt.
    ([0, 0, 0, 11], 16, [0, 0, 0, 16]),
    ([0, 0, 1], 9, [0, 0, 9]),  # All but one position.
    ([0, 1, 2], 9, [0, 1, 8]),  # A single position needs one step.
    ([2, 0, 2], 9, [4, 0, 5]),
    ([4, 1, 3], 8, [4, 1, 3]),  # As many steps as positions.
    ([1, 0, 1], 5, [2, 0, 3]),
    ([5, 5, 5], 3, [1, 1, 1]),
    ([0, 0, 0], 9, [0, 0, 0]),
  ],
)
def test_steps_go_to_what_is_left_to_write(to_write, num_steps, wanted):
  assert steps_of(to_write, num_steps) == wanted
  found = deal_steps(jnp.array([to_write], jnp.int32), num_steps)
  assert found.tolist() == [wanted]


@pytest.mark.slow
def test_all_steps_are_dealt_and_none_to_a_block_without_work():
  rng = np.random.default_rng(0)
  for _ in range(20):
    blocks, length = rng.integers(1, 12, 2)
    num_steps = int(blocks * rng.integers(1, 9))
    to_write = rng.integers(0, length + 1, (30, blocks)) * rng.integers(0, 2, (30, 1))
    found = np.asarray(deal_steps(jnp.asarray(to_write, jnp.int32), num_steps))
    assert found.tolist() == [steps_of(row, num_steps) for row in to_write.tolist()]
    assert np.array_equal(found > 0, to_write > 0)
    assert np.array_equal(found.sum(-1), num_steps * to_write.any(-1))
    if num_steps >= to_write.sum(-1).max():
      assert np.all(found >= to_write)  # One position at a time is possible.


@pytest.mark.slow
@pytest.mark.parametrize(
  ('strategy', 'schedule'),
  [
    (Ancestral(), Cosine()),
    (FirstHitting(), LogLinear()),
    (ReMDM('loop'), LogLinear()),
  ],
  ids=str,
)
def test_plans_of_examples_are_those_of_their_own_numbers(strategy, schedule):
  own, masked = [1, 3, 4, 7], np.ones((4, LENGTH), bool)
  keys = split_key(jax.random.key(20), 4)
  start = functools.partial(strategy.start, schedule=schedule)
  steps = functools.partial(Steps, most=8, even=4)
  plan = quick_jit(lambda keys, own: start(keys, masked, num_steps=steps(own)))(
    keys, jnp.array(own, jnp.int32)
  )
  for b, number in enumerate(own):
    alone = quick_jit(lambda keys, n=number: start(keys, masked[:1], num_steps=n))(
      keys[b : b + 1]
    )
    # A rounding of t in float32; sigma at t = 1 is -log of 1e-3.
    tolerance = 0 if number == 4 else 2e-4
    alphas, sigmas = plan.alphas[: number + 1, b], plan.sigmas[:number, b]
    np.testing.assert_allclose(alphas, alone.alphas, rtol=0, atol=tolerance / 1e3)
    np.testing.assert_allclose(sigmas, alone.sigmas[:, 0], rtol=0, atol=tolerance)
    assert np.all(plan.alphas[number:, b] == 1)
    if alone.reveal_step is not None:
      assert np.array_equal(plan.reveal_step[b], alone.reveal_step[0])


@functools.partial(quick_jit, static_argnums=(3, 4))
def write_block(key, row, b, strategy, num_steps):
  """One block alone: what is missing in later ones is filled, but appears masked."""
  later = (jnp.arange(LENGTH) >= (b + 1) * BLOCK)[None] & (row == toys.MASK)
  network = shy(toys.network(WEIGHTS), unseen=later)
  found = sample(
    jax.vmap(jax.random.fold_in, (0, None))(key, b),
    network,
    jnp.where(later, 0, row),
    sampler(strategy, num_steps),
    mask_id=toys.MASK,
  )
  return jnp.where(later, toys.MASK, found.tokens), found.evaluations


EARLY = (FirstHitting(), Threshold(0.3), Edit(0.0, 0.9), Factor(2.5), EntropyBound(1.0))
# One of each kind: drawn before the loop, early exit, alphas of its own, 'low' noise.
KINDS = (Ancestral(), EntropyBound(1.0), ReMDM('loop', eta=0.3), Joint())
OTHERS = (
  *(s for s in EARLY if s not in KINDS),
  MaskGIT(),
  Confidence('margin'),
  Dream('entropy', alg_temp=0.5),
  ReMDM('cap', eta=0.5),
  ReMDM('conf'),
  P2(),
)


@pytest.mark.slow
@pytest.mark.parametrize(
  'strategy',
  [*KINDS, *(pytest.param(s, marks=pytest.mark.long) for s in OTHERS)],
  ids=str,
)
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
  evaluations = []
  for e, row in enumerate(x_init):
    x, count = row[None], 0
    for b, number in enumerate(steps_of(to_write_of(row), T)):
      if number:
        x, made = write_block(keys[e : e + 1], x, b, strategy, number)
        count += int(made)
    assert np.array_equal(whole.tokens[e], x[0])
    assert not np.any(np.asarray(x) == toys.MASK)
    evaluations.append(count)
  assert max(evaluations) == whole.evaluations
  assert (whole.evaluations < T) == strategy.early_exit
  assert min(evaluations) == 0  # Nothing to write.


@pytest.mark.slow
@pytest.mark.parametrize('strategy', [*KINDS, *OTHERS], ids=str)
def test_every_strategy_goes_from_left_to_right(strategy):
  seen = []
  network = recording.network(WEIGHTS, seen)
  run = quick_jit(
    lambda keys, x_init: sample(
      keys, network, x_init, sampler(strategy, block_length=BLOCK), mask_id=toys.MASK
    )
  )
  x_init, keys = prompts(3), keys_of(4)
  found = recording.run(run, seen, keys, x_init)
  tokens = np.asarray(found.tokens)
  assert not np.any(tokens == toys.MASK)
  assert np.array_equal(tokens[x_init != toys.MASK], x_init[x_init != toys.MASK])
  assert found.evaluations == len(seen)
  if strategy in EARLY:
    assert len(seen) <= LENGTH
  else:
    assert len(seen) == T
  for now in seen:
    for b in range(1, BLOCKS):
      left, block = now.x_t[:, : b * BLOCK], slice(b * BLOCK, None)
      waits = np.any(left == toys.MASK, axis=-1)
      assert np.array_equal(now.x_t[waits, block], x_init[waits, block])
      assert not np.any(now.signal[waits, block])
  # Other neighbours in another order change nothing, and nothing is compiled again.
  order = np.array([5, 3, 1, 0, 2, 7, 6, 4])
  others = np.where(np.arange(8)[:, None] < 3, x_init[order], prompts(9)[order])
  again = recording.run(run, seen, keys[order], others)
  assert np.array_equal(np.asarray(again.tokens)[:3], tokens[order[:3]])
  assert run._cache_size() == 1


def test_blocks_may_begin_where_prompts_end():
  """Against blocks that begin at 0: a row moved by what stands before its first."""
  missing = ['......', '??....', '???...', '.?.?..', '????..']
  kept = np.array([[c == '?' for c in row] for row in missing])
  starts, steps = np.int32([0, 2, 3, 1, 4]), 7
  clean = toys.clean_tokens(5, len(missing), LENGTH)
  x_init = np.where(kept, clean, toys.MASK).astype(np.int32)
  found = Blocks.of(jnp.asarray(~kept), BLOCK, steps, jnp.asarray(starts))
  rows = zip(~kept, starts, found.steps, found.places, strict=True)
  for row, start, dealt, places in rows:
    at = np.maximum(np.arange(LENGTH) - start, 0) // BLOCK
    assert places.tolist() == at.tolist()
    wanted = [int(row[at == b].sum()) for b in range(BLOCKS)]
    assert dealt.tolist() == steps_of(wanted, steps)
  seen = []
  network = recording.network(WEIGHTS, seen)
  run = quick_jit(
    lambda keys, x_init: sample(
      keys,
      network,
      x_init,
      sampler(Confidence(), steps, block_length=BLOCK),
      answers=Answers(jnp.asarray(starts)),
      mask_id=toys.MASK,
    )
  )
  tokens = recording.run(run, seen, keys_of(6)[: len(missing)], x_init).tokens
  assert len(seen) == steps and not np.any(np.asarray(tokens) == toys.MASK)
  for now in seen:
    for row, x, start, given in zip(now.x_t, x_init, starts, kept, strict=True):
      at = np.where(given, -1, np.maximum(np.arange(LENGTH) - start, 0) // BLOCK)
      first = at[row == toys.MASK].min(initial=BLOCKS)
      assert np.array_equal(row[at > first], x[at > first])


def answered(strategy, x_init, answers, **options):
  run = quick_jit(
    lambda keys, x_init: sample(
      keys,
      toys.network(WEIGHTS),
      x_init,
      sampler(strategy, block_length=BLOCK, **options),
      answers=jax.tree.map(jnp.asarray, answers),
      mask_id=toys.MASK,
    )
  )
  return run(keys_of(8)[: len(x_init)], x_init)


@pytest.mark.parametrize(
  ('strategy', 'compact'),
  [(Threshold(0.3), 1), (ReMDM('cap', eta=0.5), 0), (Ancestral(), 0)],
  ids=str,
)
def test_an_example_is_left_with_the_block_that_has_a_stop(strategy, compact):
  x_init, place = prompts(6), np.arange(LENGTH) // BLOCK
  given = [np.flatnonzero(row != toys.MASK) for row in x_init]
  behind = np.array([x.max(initial=-1) + 1 for x in given], np.int32)
  tokens = np.delete(np.arange(toys.VOCAB, dtype=np.int32), toys.MASK)
  stops = np.stack([[tokens[i % len(tokens)], -1] for i in range(len(x_init))])
  stops[:4, 1] = tokens[-1 - np.arange(4)]  # These have two.
  starts = jnp.zeros(len(x_init), jnp.int32)
  whole = answered(strategy, x_init, Answers(starts))
  found = answered(strategy, x_init, Answers(starts, stops, behind), compact=compact)
  left = 0
  for i, row in enumerate(np.asarray(whole.tokens)):
    ends = np.flatnonzero((np.arange(LENGTH) >= behind[i]) & np.isin(row, stops[i]))
    wanted = row.copy()
    if len(ends):
      over = (place > place[ends[0]]) & (x_init[i] == toys.MASK)
      wanted[over] = stops[i, 0]
      left += over.sum()
    assert np.array_equal(found.tokens[i], wanted)
  assert left > 3
  assert np.all(np.asarray(found.written) <= np.asarray(whole.written))
  assert found.rows <= whole.rows


def test_a_batch_that_has_ended_is_evaluated_no_more():
  """Any token is a stop: one block of two tokens is written, one token a step."""
  x_init = np.full((3, LENGTH), toys.MASK, np.int32)
  tokens = np.delete(np.arange(toys.VOCAB, dtype=np.int32), toys.MASK)
  stops = np.tile(tokens, (3, 1))
  behind = np.zeros(3, np.int32)
  found = answered(Confidence(), x_init, Answers(None, stops, behind))
  assert found.evaluations == BLOCK and found.rows == 3 * BLOCK
  assert np.all(np.asarray(found.tokens)[:, BLOCK:] == 0)


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
  assert trajectory.shape == (T, *x_init.shape)
  assert np.array_equal(trajectory[:-1], [s.x_t for s in seen[1:]])
  for e, row in enumerate(x_init[:-1]):
    blocks = np.repeat(np.arange(BLOCKS), steps_of(to_write_of(row), T))
    for i, (now, b) in enumerate(zip(seen, blocks, strict=True)):
      left, right = slice(0, b * BLOCK), slice((b + 1) * BLOCK, None)
      assert np.array_equal(now.x_t[e, right], row[right])
      assert not np.any(now.signal[e, right])
      assert not np.any(now.x_t[e, left] == toys.MASK)
      assert np.array_equal(now.x_t[e, left], found.tokens[e, left])
      if i > 0 and blocks[i - 1] == b:
        # Something is carried in the active block.
        assert np.any(now.signal[e, b * BLOCK : (b + 1) * BLOCK])
  assert np.array_equal(trajectory[-1], found.tokens)
  assert not np.any(trajectory[-1] == toys.MASK)
  visible = x_init != toys.MASK
  assert np.array_equal(trajectory[-1][visible], x_init[visible])
  if strategy == Confidence():
    # Two positions in three steps: one, one, none; in every block.
    left = np.sum(trajectory[:, 0] == toys.MASK, axis=-1)
    assert list(left) == [5, 4, 4, 3, 2, 2, 1, 0, 0]
    # Three in nine steps of two blocks: one, then one, one.
    left = np.sum(trajectory[:, 3] == toys.MASK, axis=-1)
    assert list(left) == [2, 1, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(('num_steps', 'most'), [(16, 1), (8, 2), (4, 3)])
def test_no_step_is_lost_to_what_the_prompt_fills(num_steps, most):
  # 53 of 64 positions are the prompt's: 11 are left, all in the last block of 16.
  x_init = jnp.where(jnp.arange(64)[None] < 53, 0, 2).astype(jnp.int32)
  options = Sampler(num_steps, Confidence(), block_length=16)
  network = toys.fixed_network(np.array([0.6, 0.4, 1e-38]))
  found = quick_jit(
    lambda keys: sample(keys, network, x_init, options, keep_trajectory=True, mask_id=2)
  )(split_key(jax.random.key(21), 1))
  left = [11, *np.sum(np.asarray(found.trajectory)[:, 0] == 2, axis=-1)]
  written = -np.diff(left)
  assert written.max() == most
  assert np.sum(written > 0) == min(num_steps, 11)


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
    (dict(block_length=1, num_steps=3), 'divides num_steps = 3'),
    (dict(block_length=2, num_steps=3 << 28), 'num_steps: found 805306368; wanted at'),
    (dict(noise='low'), 'Joint'),
    (dict(strategy=Joint()), 'Joint'),
  ],
)
def test_what_does_not_fit(options, words):
  keys, x_init = keys_of(7), jnp.asarray(prompts(8))
  with pytest.raises(ValueError, match=words):
    options = Sampler(**{'strategy': Ancestral(), 'num_steps': T, **options})
    sample(keys, toys.network(WEIGHTS), x_init, options, mask_id=toys.MASK)
