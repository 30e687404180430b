"""Batches that shrink as examples end: the same tokens, for fewer rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.blocks import Answers
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.strategies import Edit, EntropyBound, FirstHitting, Threshold
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys

BATCH, LENGTH, T = 8, 6, 12
WEIGHTS = toys.weights(0, length=LENGTH)


def prompts():
  """Rows that leave 6, 6, 5, 4, 3, 2, 1 and 0 positions to write, mixed."""
  x_init = toys.clean_tokens(1, BATCH, LENGTH)
  for row, left in zip(x_init, (2, 6, 0, 4, 6, 1, 3, 5), strict=True):
    row[LENGTH - left :] = toys.MASK
  return x_init


def seeing(shift, sizes):
  """A toy that knows its examples by `shift` [B], and notes how many it is shown."""
  toy = toys.network(WEIGHTS)

  def encode(x_t, signal, sigma):
    sizes.append(len(x_t))
    return toy.encode(x_t, signal, sigma) + shift[:, None, None]

  return toy._replace(encode=encode, of=lambda order: seeing(shift[order], sizes))


def drawn(sampler, compact, **options):
  sizes = []
  sampler = dataclasses.replace(sampler, compact=compact)
  shift = jnp.linspace(-1, 1, BATCH)
  other = seeing(-shift, []) if sampler.guidance else None
  run = quick_jit(
    lambda keys, x_init: sample(
      keys,
      seeing(shift, sizes),
      x_init,
      sampler,
      mask_id=toys.MASK,
      unconditional=other,
      **options,
    )
  )
  return run(split_key(jax.random.key(2), BATCH), prompts()), sizes


@pytest.mark.slow
@pytest.mark.parametrize(
  ('strategy', 'options', 'starts'),
  [
    (FirstHitting(), {}, False),
    (EntropyBound(0.5), {'guidance': Guidance(0.5)}, False),
    (Threshold(0.6), {'block_length': 2}, False),
    (Edit(0.6, 0.9), {'block_length': 2}, True),
  ],
  ids=str,
)
def test_same_tokens_for_fewer_rows(strategy, options, starts):
  sampler = Sampler(T, strategy, **options)
  more = {}
  if starts:
    more['answers'] = Answers(jnp.array([4, 0, 6, 2, 0, 5, 3, 1], jnp.int32))
  whole, sizes = drawn(sampler, 0, **more)
  shrunk, seen = drawn(sampler, 2, **more)
  assert np.array_equal(shrunk.tokens, whole.tokens)
  assert np.array_equal(shrunk.written, whole.written)
  assert shrunk.evaluations == whole.evaluations
  networks = 2 if sampler.guidance else 1
  assert whole.rows == whole.evaluations * BATCH
  # One program for each size, and its loop is traced once.
  assert set(sizes) == {BATCH} and set(seen) == {BATCH, 4, 2}
  assert whole.rows * 0.8 > shrunk.rows >= np.sum(np.asarray(whole.written)) / networks


def test_rows_are_those_of_examples_that_go_on():
  """With a token per evaluation an example is evaluated as often as it has tokens."""
  shrunk, _ = drawn(Sampler(T, FirstHitting()), 1)
  left = np.sum(prompts() == toys.MASK, axis=-1)
  # By plain counting: a batch of n is halved once no more than n / 2 go on.
  rows, size = 0, BATCH
  for step in range(LENGTH):
    while size > 1 and np.sum(left > step) <= size // 2:
      size //= 2
    rows += size
  assert shrunk.rows == rows


def test_what_it_does_not_go_with():
  with pytest.raises(ValueError, match='compact: found -1; wanted a number of at'):
    Sampler(T, compact=-1)
