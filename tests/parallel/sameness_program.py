"""Trains and samples on several meshes of 8 devices and compares with one device.

Run by `sameness_test` in a process of its own, since the number of devices is fixed
when JAX starts: `python -m tests.parallel.sameness_program ARCHITECTURE`.
"""

import sys

import jax
import numpy as np

from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import DecoderConfig, DiTConfig, ModelDescription
from scmdm_jax.modes import sample, train
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.settings import MethodSettings, SampleSettings
from scmdm_jax.training.step import OptimizerConfig

VOCAB, LENGTH, WIDTH, BATCH, STEPS = 64, 16, 32, 16, 20
ARCHITECTURES = {
  'dit': DiTConfig(VOCAB, LENGTH, WIDTH, num_blocks=1, num_heads=4, cond_dim=8),
  'dream': DecoderConfig(
    VOCAB,
    LENGTH,
    WIDTH,
    num_blocks=1,
    num_heads=8,
    num_kv_heads=4,
    mlp_dim=64,
    causal=False,
    qkv_bias=True,
    shifted=True,
  ),
}
MESHES = {
  'dit': [(1, 8, 1), (2, 2, 2)],
  'dream': [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)],
}


def start(description):
  """Random everywhere: a fresh model ignores its signal."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda p: (0.3 * rng.standard_normal(p.shape)).astype(np.float32),
    denoiser.abstract_params(description),
  )


def adapt(description, params, mesh, rate):
  """Losses, gradient norms and the state after STEPS steps."""
  optimizer = OptimizerConfig(accumulate=2 if rate == 1 else 1)
  method = MethodSettings(rate=rate)
  step = train.compiled_step(description, method, optimizer, mesh)
  state = train.fresh_state(params, optimizer, mesh)
  rng = np.random.default_rng(1)
  curve = []
  for _ in range(STEPS):
    tokens = rng.integers(0, VOCAB - 1, (BATCH, LENGTH)).astype(np.int32)
    tokens = meshes.place_own_rows(mesh, tokens)
    state, metrics = step(state, tokens, jax.random.key(2), np.float32(1e-3))
    curve.append([float(metrics['loss']), float(metrics['grad_norm'])])
  return np.array(curve), state


def draw(description, params, mesh, strategy):
  """Tokens of 12 samples, which no mesh here divides."""
  options = SampleSettings(
    num_samples=12, batch_size=12, num_steps=8, strategy=strategy
  )
  x_init = np.full(LENGTH, VOCAB - 1, np.int32)
  x_init[3] = 5
  key = jax.random.key(3)
  drawn = sample.draw(description, params, LogLinear(), options, key, x_init, mesh)
  return drawn.tokens


def bytes_per_device(params):
  """Of the first device."""
  device = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(params)
    for shard in leaf.addressable_shards
    if shard.device == device
  )


def flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(tree))])


def main(architecture):
  assert len(jax.devices()) == 8
  arch = ARCHITECTURES[architecture]
  description = ModelDescription(arch, VOCAB - 1, '', 'embedding')
  params = start(description)
  alone = meshes.one_device()
  curve, state = adapt(description, params, alone, 1.0)
  whole = bytes_per_device(state.params)
  tokens = {s: draw(description, params, alone, s) for s in ('ancestral', 'p2')}
  for sizes in MESHES[architecture]:
    mesh = meshes.make_mesh(*sizes)
    found, spread = adapt(description, params, mesh, 1.0)
    # Float32 sums in another order: 1e-7 each. Adam divides by the root of its second
    # moment, which near a zero gradient turns rounding into a part of the learning
    # rate: 20 steps of 1e-3 in all, of which 1 % is a generous bound. A batch or a
    # gradient that is not summed over the mesh is off by the whole of it.
    np.testing.assert_allclose(found, curve, rtol=1e-4)
    for tree in ('params', 'ema'):
      np.testing.assert_allclose(
        flat(getattr(spread, tree)), flat(getattr(state, tree)), atol=2e-4
      )
    strategy = 'p2' if sizes == (2, 2, 2) else 'ancestral'
    np.testing.assert_array_equal(
      draw(description, params, mesh, strategy), tokens[strategy], err_msg=str(sizes)
    )
    # Of 8 equal parts each device holds one; scales and biases stay whole.
    vectors = sum(x.nbytes for x in jax.tree.leaves(state.params) if x.ndim == 1)
    if sizes[1] == 8:
      small = vectors + (256 + 8) * 8 * 4 * (architecture == 'dit')
      assert bytes_per_device(spread.params) <= whole / 8 + small
      moments = spread.opt_state[1][0].mu
      assert bytes_per_device(moments) == bytes_per_device(spread.params)
    print(sizes, 'same', flush=True)


if __name__ == '__main__':
  main(sys.argv[1])
