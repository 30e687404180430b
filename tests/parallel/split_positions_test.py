"""Positions that devices split: hidden states and gradients are those of one device."""

import json

import pytest

from tests.parallel.sameness_test import on_eight_devices

PROGRAM = """\
import json, jax, numpy as np
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
V, L, D, B = 64, 16, 32, 4
ARCHITECTURES = {
  # Clean examples and noised ones behind them, read off the position before.
  'blocks': DecoderConfig(V, L, D, 1, 8, 4, 64, causal=False, shifted=True,
                          block_length=4),
  # Of 2 L positions 3 divides neither those of a device nor all.
  'window': DiTConfig(V, 2 * L, D, 1, 4, 8, window=3),
}
rng = np.random.default_rng(0)
x = rng.integers(0, V, (B, 2 * L)).astype(np.int32)
signal, weights = rng.standard_normal((2, B, 2 * L, D)).astype(np.float32)
far = {}
for name, arch in ARCHITECTURES.items():
  described = ModelDescription(arch, V - 1, '', 'embedding')
  params = jax.tree.map(
    lambda p: (0.3 * rng.standard_normal(p.shape)).astype(np.float32),
    denoiser.abstract_params(described))
  found = []
  for mesh in (meshes.one_device(), meshes.make_mesh(2, 1, 1, 4)):
    def loss(params, x):
      network = denoiser.bind(
        params, described, execution=Execution(Placement(mesh)))
      encode = network.beside or network.encode
      hidden = encode(x, signal, jax.numpy.zeros(B))
      half = Placement(mesh).constrain(hidden[:, L:] * weights[:, L:])
      return half.sum(), hidden
    run = jax.jit(jax.grad(loss, has_aux=True))
    found.append(jax.device_get(run(params, meshes.place_rows(mesh, x))))
  far[name] = max(
    float(np.abs(a - b).max() / np.abs(b).max())
    for a, b in zip(*map(jax.tree.leaves, found[::-1])) if np.abs(b).max())
print(json.dumps(far))
"""


@pytest.mark.slow
def test_hidden_states_and_gradients_are_those_of_one_device():
  far = json.loads(on_eight_devices('-c', PROGRAM).splitlines()[-1])
  assert far.keys() == {'blocks', 'window'}
  # Float32 sums of some hundred terms in another order.
  assert max(far.values()) < 1e-5
