"""Training and likelihood of blocks, against one block at a time and enumeration."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from scmdm_jax.diffusion import noise
from scmdm_jax.diffusion.likelihood import carried_nelbo, nelbo
from scmdm_jax.diffusion.network import null_signal
from scmdm_jax.diffusion.objectives import T_MIN, diffusion_loss
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from tests.compiling import quick_jit, split_key
from tests.diffusion import toys
from tests.models import tiny

BLOCK, LENGTH, BLOCKS = 2, 6, 3


def network_of(arch, block_length=BLOCK):
  sizes = dataclasses.replace(tiny.ARCHITECTURES[arch], block_length=block_length)
  description = ModelDescription(
    dataclasses.replace(sizes, num_blocks=2), tiny.MASK, '', injection='embedding'
  )
  rng = np.random.default_rng(1)
  shapes = denoiser.abstract_params(description)
  params = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes
  )
  return denoiser.bind(params, description)


def clean(batch, seed=3):
  return toys.clean_tokens(seed, batch, LENGTH, tiny.VOCAB, tiny.MASK)


def by_blocks(network, x_0, x_t, signal):
  """Hidden states of every noised block alone: what is right of it is all masked."""
  encode, sigma = quick_jit(network.encode), np.zeros(len(x_0), np.float32)
  found = np.zeros((*x_0.shape, tiny.DIM), np.float32)
  place = np.arange(LENGTH) // BLOCK
  for b in range(BLOCKS):
    x = np.where(place < b, x_0, np.where(place == b, x_t, tiny.MASK))
    found[:, place == b] = encode(x, signal, sigma)[:, place == b]
  return found


@pytest.mark.parametrize('arch', ['dit', 'dream'])
def test_side_by_side_is_one_block_after_another(arch):
  network, x_0 = network_of(arch), clean(4)
  rng = np.random.default_rng(4)
  x_t = np.where(rng.random(x_0.shape) < 0.5, tiny.MASK, x_0)
  signal = rng.standard_normal((*x_0.shape, tiny.DIM)).astype(np.float32)
  rows = np.concatenate([x_0, x_t], axis=1)
  signals = np.concatenate([0 * signal, signal], axis=1)
  found = quick_jit(network.beside)(rows, signals, tiny.SIGMA)
  np.testing.assert_allclose(  # Of float32 sums.
    found[:, LENGTH:], by_blocks(network, x_0, x_t, signal), atol=2e-5
  )


@pytest.mark.slow
def test_nelbo_is_the_sum_of_that_of_blocks():
  """Every mask of every block is enumerated, its time integrated in closed form."""
  network, x_0 = network_of('dit'), clean(1)
  schedule, draws = LogLinear(eps=0.0), 4000
  wanted = 0.0
  null = np.zeros((1, LENGTH, tiny.DIM), np.float32)
  for masked in itertools.product([False, True], repeat=BLOCK):
    x_t = np.where(np.tile(masked, BLOCKS), tiny.MASK, x_0)
    logits = network.logits(by_blocks(network, x_0, x_t, null))
    nll = toys.nll_np(toys.softmax_np(logits, tiny.MASK), x_0)
    # Of t^(n - 1) (1 - t)^(N - n) from T_MIN to 1, by the trapezoidal rule.
    n, t = sum(masked), np.linspace(T_MIN, 1, 20001)
    if n:
      density = t ** (n - 1) * (1 - t) ** (BLOCK - n)
      step = np.sum((density[1:] + density[:-1]) / 2) * (t[1] - t[0])
      wanted += step / (1 - T_MIN) * nll[x_t == tiny.MASK].sum()
  rows = np.tile(x_0, (draws, 1))
  found = quick_jit(
    lambda key: nelbo(
      key, network, rows, schedule=schedule, mask_id=tiny.MASK, passes=1
    )
  )(jax.random.key(5))
  found = np.asarray(found, np.float64)
  # Times are stratified, which only lowers the error of a mean.
  assert abs(found.mean() - wanted) < 4 * found.std() / np.sqrt(draws)
  assert found.std() / np.sqrt(draws) < 0.03 * wanted


def test_loss_weighs_every_block_by_its_own_time():
  network, x_0, key = network_of('dream'), clean(8), jax.random.key(6)
  batch = noise.batch_of(x_0)
  loss = quick_jit(
    lambda key: diffusion_loss(
      key,
      network,
      network,
      batch,
      schedule=LogLinear(eps=0.0),
      mask_id=tiny.MASK,
      rate=0.0,
    )
  )(key)
  key_t, key_mask, *_ = jax.random.split(key, 5)
  place = np.arange(LENGTH) // BLOCK
  times = np.asarray(noise.times(key_t, batch, T_MIN, BLOCKS))
  assert len(np.unique(times)) == times.size
  shown = np.asarray(noise.thresholds(key_mask, batch)) < 1 - times[:, place]
  x_t = np.where(shown, x_0, tiny.MASK)
  hidden = by_blocks(network, x_0, x_t, np.asarray(null_signal(network, x_0)))
  nll = toys.nll_np(toys.softmax_np(network.logits(hidden), tiny.MASK), x_0)
  wanted = np.mean(np.where(shown, 0, nll) / times[:, place])
  np.testing.assert_allclose(loss, wanted, rtol=1e-4)  # Of float32 logits.


@pytest.mark.slow
def test_one_block_is_the_full_model_bit_for_bit():
  x_0, key = clean(4), jax.random.key(7)
  options = dict(schedule=LogLinear(), mask_id=tiny.MASK)

  def figures(network):
    def compute(key):
      return (
        diffusion_loss(key, network, network, noise.batch_of(x_0), rate=0.5, **options),
        nelbo(key, network, x_0, passes=2, **options),
        carried_nelbo(key, network, x_0, num_steps=3, **options),
      )

    return quick_jit(compute)(key)

  whole, one = figures(network_of('dit', 0)), figures(network_of('dit', LENGTH))
  assert all(np.array_equal(a, b) for a, b in zip(whole, one, strict=True))


def test_carried_bound_gives_every_block_its_share_of_steps():
  network, x_0 = network_of('dit'), clean(3)
  key, options = jax.random.key(8), dict(schedule=LogLinear(), mask_id=tiny.MASK)
  threshold = np.asarray(jax.random.uniform(key, x_0.shape))
  found = quick_jit(
    lambda key: carried_nelbo(key, network, x_0, num_steps=6, **options)
  )(key)
  # Two steps in each: from all masked to alpha(1/2), and to nothing masked.
  signal = np.asarray(null_signal(network, x_0))
  wanted, alphas = np.zeros(len(x_0)), [0.0, 1 - (1 - 1e-3) / 2, 1.0]
  for alpha_t, alpha_s in itertools.pairwise(alphas):
    x_t = np.where(threshold < alpha_t, x_0, tiny.MASK)
    logits = network.logits(by_blocks(network, x_0, x_t, signal))
    probs = toys.softmax_np(logits, tiny.MASK)
    nll = np.where(x_t == tiny.MASK, toys.nll_np(probs, x_0), 0).sum(-1)
    wanted += (alpha_s - alpha_t) / (1 - alpha_t) * nll
    predicted = np.asarray(network.signal(probs.astype(np.float32)))
    signal = np.where((x_t == tiny.MASK)[..., None], predicted, signal)
  np.testing.assert_allclose(found, wanted, rtol=1e-4)  # Of float32 logits.


@pytest.mark.slow
@pytest.mark.parametrize('rate', [0.0, 1.0])
def test_blocks_learn(rate):
  """Gradients of the loss are finite, and reach the injection where it is trained."""
  sizes = dataclasses.replace(tiny.ARCHITECTURES['dream'], block_length=BLOCK)
  description = ModelDescription(sizes, tiny.MASK, '', injection='embedding')
  params = denoiser.init_params(jax.random.key(9), description)
  key = split_key(jax.random.key(10), 2)[0]

  def loss(params):
    network = denoiser.bind(params, description)
    frozen = denoiser.bind(jax.lax.stop_gradient(params), description)
    return diffusion_loss(
      key,
      network,
      frozen,
      noise.batch_of(clean(8)),
      schedule=LogLinear(),
      mask_id=tiny.MASK,
      rate=rate,
    )

  gradient = quick_jit(jax.grad(loss))(params)
  assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
  injected = np.abs(np.asarray(gradient['self_conditioning']['projection']['kernel']))
  assert (injected.max() > 0) == (rate > 0)
