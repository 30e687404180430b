"""Sampling with the vocabulary's weights split over 8 devices, in its own process."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import compiling

PROGRAM = """\
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from scmdm_jax.diffusion import sampling
from scmdm_jax.parallel import hlo
from tests.diffusion import toys

D, L, B = 16, 16, 4
assert len(jax.devices()) == 8
keys = jax.random.split(jax.random.key(1), B)
mesh = Mesh(np.array(jax.devices()), ('tensor',))
splits = {'out': P(None, 'tensor'), 'table': P('tensor', None)}

def place(name, value):
  return jax.device_put(value, NamedSharding(mesh, splits.get(name, P())))

def run(w, keys, shards, top_p):
  V = w['table'].shape[0]
  x_init = jnp.full((B, L), V - 1, jnp.int32)
  sampler = sampling.Sampler(6, top_p=top_p, chunk=16)
  network = toys.network(w)._replace(placement=toys.Shards(vocabulary_shards=shards))
  return sampling.sample(keys, network, x_init, sampler, mask_id=V - 1)

run = jax.jit(run, static_argnums=(2, 3))
# The last block is not a whole one; the second is large, with blocks of another kind.
for V, top_p in ((520, 1.0), (520, 0.9), (8 * 2200, 1.0)):
  w = toys.weights(0, vocab=V, length=L, dim=D)
  placed = {name: place(name, value) for name, value in w.items()}
  alone = run(jax.tree.map(jnp.asarray, w), keys, 1, top_p)
  compiled = run.lower(placed, keys, 8, top_p).compile()
  found = compiled(placed, keys)
  assert np.array_equal(found.tokens, alone.tokens), (found.tokens, alone.tokens)
  assert found.evaluations == 6
  spoken = hlo.collectives(compiled.as_text())
  # Each device multiplies its own columns; no one ever holds all of a weight, nor the
  # scores of a chunk of 16 positions.
  assert hlo.largest_gather(spoken) < min(V * D, 16 * V) / 2, spoken
  assert 'all-reduce' in hlo.totals(spoken)
  print('same tokens')
"""


@pytest.mark.long
def test_same_tokens_and_no_weight_is_gathered():
  root = pathlib.Path(__file__).parents[2]
  env = os.environ | {
    'XLA_FLAGS': compiling.flags(8),
    'PYTHONPATH': str(root),
  }
  result = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    env=env,
    cwd=root,
    capture_output=True,
    text=True,
    timeout=400,
    check=False,
  )
  assert result.returncode == 0, result.stderr[-2000:]
  assert result.stdout.split('\n') == ['same tokens'] * 3 + ['']
