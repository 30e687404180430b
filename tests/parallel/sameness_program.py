"""Trains and samples on several meshes of 8 devices and compares with one device.

Run by `sameness_test` in a process of its own, since the number of devices is fixed
when JAX starts: `python -m tests.parallel.sameness_program ARCHITECTURE`.
"""

import collections
import dataclasses
import sys
import tempfile

import jax
import numpy as np

from scmdm_jax.checkpoints import training_store
from scmdm_jax.diffusion import readout
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.domains.text.tokenizer import TEXT8
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.runs import adapting, compiling, drawing
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import MethodSettings, SampleSettings
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
# Samples of blocks come by an exact cache, but where positions are split.
ARCHITECTURES['blocks'] = dataclasses.replace(ARCHITECTURES['dream'], block_length=4)
MESHES = {
  'blocks': [(8, 1, 1), (1, 2, 1, 4), (2, 2, 2)],
  'dit': [(1, 8, 1), (2, 1, 1, 4), (2, 2, 2)],
  'dream': [(8, 1, 1), (1, 8, 1), (1, 1, 8), (1, 2, 1, 4), (2, 2, 2)],
}


compilations = collections.Counter()


def count(event, seconds, fun_name='', **_):
  if event == '/jax/core/compile/backend_compile_duration':
    compilations[fun_name] += 1


def start(description):
  """Random everywhere: a fresh model ignores its signal."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda p: (0.3 * rng.standard_normal(p.shape)).astype(np.float32),
    denoiser.abstract_params(description),
  )


OPTIMIZER = OptimizerConfig(accumulate=2)


def go_on(description, state, mesh, first, last):
  """Losses and gradient norms of the steps from `first` to `last`, and the state."""
  # A part of each shard is gathered for the first pass, and all of it.
  method = MethodSettings(
    rate=0.5 if isinstance(description.architecture, DiTConfig) else 1.0
  )
  step = compiling.compiled_step(description, method, OPTIMIZER, mesh)
  shape = (STEPS, BATCH, LENGTH)
  data = np.random.default_rng(1).integers(0, VOCAB - 1, shape).astype(np.int32)
  curve = []
  for number, rows in enumerate(data[first:last], first):
    batch = jax.tree.map(np.asarray, batch_of(rows, number))
    batch = meshes.place_own_rows(mesh, batch)
    state, metrics = step(state, batch, jax.random.key(2), np.float32(1e-3))
    curve.append([float(metrics['loss']), float(metrics['grad_norm'])])
  return np.array(curve), state


def adapt(description, params, mesh):
  """All STEPS steps on one mesh."""
  state = adapting.fresh_state(params, OPTIMIZER, mesh)
  return go_on(description, state, mesh, 0, STEPS)


def first_gradient(description, params, mesh):
  """By parameter: after one step Adam's first moment is a tenth of the gradient."""
  state = adapting.fresh_state(params, OPTIMIZER, mesh)
  _, state = go_on(description, state, mesh, 0, 1)
  return jax.device_get(state.opt_state[1][0].mu)


def adapt_on_two(description, params, before, after):
  """Half of the steps on one mesh, a checkpoint, and the rest on another."""
  state = adapting.fresh_state(params, OPTIMIZER, before)
  curve, state = go_on(description, state, before, 0, STEPS // 2)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    adapting.fresh_state(params, OPTIMIZER, after),
  )
  with (
    tempfile.TemporaryDirectory() as directory,
    training_store.TrainingStore(directory, keep=1) as checkpoints,
  ):
    checkpoints.save(STEPS // 2, state, {}, {})
    checkpoints.wait()
    state, *_ = checkpoints.restore(STEPS // 2, abstract)
  rest, state = go_on(description, state, after, STEPS // 2, STEPS)
  return np.concatenate([curve, rest]), state


def draw(description, params, mesh, strategy):
  """Tokens of 12 samples, which 8 does not divide: one batch and a part of another."""
  options = SampleSettings(num_samples=12, batch_size=8, num_steps=8, strategy=strategy)
  x_init = np.full((12, LENGTH), VOCAB - 1, np.int32)
  x_init[:, 3] = 5
  key = jax.random.key(3)
  # Its tokenizer is not asked: tokens go in and come out.
  model = Model(description, params, TEXT8)
  drawn = drawing.draw(model, LogLinear(), options, key, x_init, mesh)
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
  jax.monitoring.register_event_duration_secs_listener(count)
  arch = ARCHITECTURES[architecture]
  description = ModelDescription(arch, VOCAB - 1, '', 'embedding')
  params = start(description)
  alone = meshes.one_device()
  curve, state = adapt(description, params, alone)
  gradient = first_gradient(description, params, alone)
  whole = bytes_per_device(state.params)
  tokens = {s: draw(description, params, alone, s) for s in ('ancestral', 'p2')}
  # One program for all steps, and one for all batches of a strategy.
  assert compilations['jit(train_step)'] == 1
  assert compilations['jit(draw_batch)'] == 2
  last = alone
  for sizes in MESHES[architecture]:
    compilations.clear()
    mesh = meshes.make_mesh(*sizes)
    if mesh.shape['sequence'] > 1:  # In pieces, as large vocabularies are read.
      readout.chunk_size = lambda network, total: 8
    if sizes == (2, 2, 2):
      found, spread = adapt_on_two(description, params, last, mesh)
    else:
      found, spread = adapt(description, params, mesh)
    last = mesh
    # Float32 sums in another order: 1e-7 each. Adam divides by the root of its second
    # moment, which near a zero gradient turns rounding into a part of the learning
    # rate: 20 steps of 1e-3 in all, of which 1 % is a generous bound. A batch or a
    # gradient that is not summed over the mesh is off by the whole of it.
    np.testing.assert_allclose(found, curve, rtol=1e-4)
    # No step of Adam is between these: sums of some hundred terms in another order.
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max()),
      first_gradient(description, params, mesh),
      gradient,
    )
    for tree in ('params', 'ema'):
      np.testing.assert_allclose(
        flat(getattr(spread, tree)), flat(getattr(state, tree)), atol=2e-4
      )
    strategy = 'p2' if sizes == (2, 2, 2) else 'ancestral'
    np.testing.assert_array_equal(
      draw(description, params, mesh, strategy), tokens[strategy], err_msg=str(sizes)
    )
    # Also where a checkpoint of another mesh is gone on with.
    assert compilations['jit(train_step)'] == 1
    assert compilations['jit(draw_batch)'] == 1
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
