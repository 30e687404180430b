"""An import holds little of a model, and a restore reads little of a checkpoint."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from scmdm_jax.benchmarks import import_cost
from scmdm_jax.checkpoints import store
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig

# Prints by how much the peak of resident memory grows while a source is imported.
IMPORT = """
import json, resource, sys
import jax
from scmdm_jax.checkpoints import model_writer
from scmdm_jax.runs import converting
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model_writer.GROUP_BYTES = 8 << 20
jax.devices()
before = peak()
figures = converting.import_model(sys.argv[1] + '/source', sys.argv[1] + '/model')
print(json.dumps({'grown': peak() - before, 'bytes': figures['bytes']}))
"""

# One process of two: restores its half of the rows, tells what it read of the disk.
RESTORE = """
import json, sys
import jax
import numpy as np
import tensorstore
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scmdm_jax.checkpoints import store
jax.config.update('jax_num_cpu_devices', 2)
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
mesh = Mesh(np.array(jax.devices()), ('fsdp',))
def sharded(x):
  longest = max(range(x.ndim), key=lambda i: x.shape[i])
  spec = PartitionSpec(*['fsdp' if i == longest else None for i in range(x.ndim)])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
place = lambda tree: jax.tree.map(sharded, tree)
_, params = store.load_model(sys.argv[1], place=place, verify_below=0)
name = '/tensorstore/kvstore/file/bytes_read'
metrics = tensorstore.experimental_collect_matching_metrics(name)
read = sum(value['value'] for metric in metrics for value in metric['values'])
print(json.dumps({'read': read}))
"""


def wide(num_blocks, hidden_dim, vocab_size):
  sizes = DecoderConfig(
    vocab_size=vocab_size,
    length=64,
    hidden_dim=hidden_dim,
    num_blocks=num_blocks,
    num_heads=4,
    num_kv_heads=4,
    mlp_dim=4 * hidden_dim,
    causal=False,
  )
  return ModelDescription(sizes, mask_id=5, tokenizer='', family='llada')


@pytest.mark.long
def test_an_import_grows_by_a_few_tensors(tmp_path):
  import_cost.write_source(tmp_path / 'source', wide(24, 768, 4000))
  command = [sys.executable, '-c', IMPORT, str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  figures = json.loads(done.stdout)
  assert figures['bytes'] > 450_000_000
  # Groups of 8 MB, each held as read, transposed, and as pieces on the way to the disk.
  assert figures['grown'] < figures['bytes'] / 3


@pytest.mark.long
def test_two_processes_read_half_each(tmp_path):
  description = wide(2, 128, 40_000)
  rng = np.random.default_rng(0)
  abstract = denoiser.abstract_params(description)
  params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), abstract)
  store.save_model(tmp_path / 'model', description, params, {})
  size = sum(f.stat().st_size for f in (tmp_path / 'model').rglob('*') if f.is_file())
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  command = [sys.executable, '-c', RESTORE, str(tmp_path / 'model'), address]
  running = [
    subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True)
    for i in range(2)
  ]
  for process in running:
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    # Every array is split; a piece on the border is read by both.
    assert 0.45 * size < json.loads(out)['read'] < 0.6 * size
