"""Token editing: a revealed token is replaced; against a plain loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.diffusion.sampling import Sampler, sample
from scmdm_jax.diffusion.schedules import LogLinear, noise_level
from scmdm_jax.diffusion.strategies import Edit, Threshold, parse
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys

WEIGHTS, T, BATCH = toys.weights(3), 12, 12


def prompts():
  x_init = np.full((BATCH, toys.LENGTH), toys.MASK, np.int32)
  x_init[:, 1] = toys.clean_tokens(4, BATCH)[:, 1]
  return x_init


def by_hand(row, strategy):
  """One example: tokens, evaluations, and how many tokens were replaced."""
  network = toys.network_np(WEIGHTS, scale=6.0)
  written = [i for i in range(toys.LENGTH) if row[i] == toys.MASK]
  row, signal, edits = row.copy(), np.zeros((1, toys.LENGTH, toys.DIM)), 0
  times = np.linspace(1, 0, T + 1)[:-1]
  sigmas = np.asarray(noise_level(LogLinear(), jnp.float32(times)))
  for step, sigma in enumerate(sigmas):
    hidden = network.encode(row[None], signal, np.array([sigma]))
    probs = toys.softmax_np(network.logits(hidden), toys.MASK)[0]
    masked = [i for i in written if row[i] == toys.MASK]
    sure = {i for i in masked if probs[i].max() >= strategy.tau}
    sure |= {max(masked, key=lambda i: probs[i].max())} if masked else set()
    last = step == T - 1
    doubt = {i for i in written if i not in masked and probs[i].max() >= strategy.edit}
    before = row.copy()
    for i in masked:
      signal[0, i] = network.signal(probs[i])
    for i in sure | (set(masked) if last else doubt):
      row[i] = probs[i].argmax()
    shown = before != toys.MASK
    edits += int(np.sum(before[shown] != row[shown]))
    if np.array_equal(before, row):
      return row, step + 1, edits
  return row, T, edits


@pytest.mark.parametrize('strategy', [Edit(0.5, 0.4), Edit(0.3, 0.6)], ids=str)
def test_equals_the_plain_loop(strategy):
  sampler = Sampler(T, strategy)
  run = quick_jit(
    lambda keys, x_init: sample(
      keys,
      toys.network(WEIGHTS, scale=6.0),
      x_init,
      sampler,
      mask_id=toys.MASK,
      temperature=0.0,
    )
  )
  x_init, keys = prompts(), split_key(jax.random.key(0), BATCH)
  found = run(keys, x_init)
  rows, steps, edits = zip(*(by_hand(row, strategy) for row in x_init), strict=True)
  assert np.array_equal(found.tokens, rows)
  assert found.evaluations == max(steps) < T
  assert len(set(steps)) > 1  # Some came to rest before others.
  assert sum(edits) > 2


def test_sure_of_nothing_it_is_the_threshold_and_one_step_more():
  x_init, keys = prompts(), split_key(jax.random.key(1), BATCH)

  def run(strategy):
    network = toys.network(WEIGHTS)
    options = Sampler(T, strategy)
    return quick_jit(lambda k: sample(k, network, x_init, options, mask_id=toys.MASK))(
      keys
    )

  plain, edited = run(Threshold(0.4)), run(Edit(0.4, edit=2.0))
  assert np.array_equal(plain.tokens, edited.tokens)
  assert edited.evaluations == plain.evaluations + 1


def test_its_fields():
  assert parse('edit:tau=0.5,edit=0.7') == Edit(0.5, 0.7)
  with pytest.raises(ValueError, match='strategy: edit:edit: found -1'):
    parse('edit:edit=-1')
