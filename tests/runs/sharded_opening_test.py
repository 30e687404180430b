"""A model of hundreds of megabytes is read in parts: by processes, onto devices."""

import json
import shutil

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from tests import tiny_run
from tests.parallel.sameness_test import on_eight_devices
from tests.processes import processes

pytestmark = pytest.mark.long

# The program, and what it has read of the disk and held in memory at most.
PROGRAM = """\
import json, pathlib, resource, sys
import jax, tensorstore
from scmdm_jax.checkpoints import model_writer, store
from scmdm_jax.main import main
from scmdm_jax.runs import opening
from scmdm_jax.processes import multihost
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model_writer.GROUP_BYTES = 16 << 20
load = opening.load
def measured(stored, *arguments):
  # What reading brings along, whatever the model, is there.
  small = pathlib.Path(stored.directory).parent / 'small'
  load(store.open_model(small, verify_below=0), *arguments)
  before = peak()
  params = load(stored, *arguments)
  name = '/tensorstore/kvstore/file/bytes_read'
  metrics = tensorstore.experimental_collect_matching_metrics(name)
  read = sum(value['value'] for metric in metrics for value in metric['values'])
  print(json.dumps({'read': read, 'grown': peak() - before}), flush=True)
  return params
opening.load = measured
code = main(['main.py', *sys.argv[1:]])
multihost.end(code)
sys.exit(code)
"""


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A folder with a config, a model of 135 million parameters, and a small one."""
  directory = tmp_path_factory.mktemp('wide')
  tiny_run.write_config(directory)
  tokenizer = get_tokenizer('smiles_qm9')
  for name, width in (('model', 1024), ('small', 64)):
    arch = DecoderConfig(
      tokenizer.vocab_size + 5,  # An even number.
      length=32,
      hidden_dim=width,
      num_blocks=8,
      num_heads=8,
      num_kv_heads=8,
      mlp_dim=4 * width,
      causal=False,
    )
    description = ModelDescription(arch, tokenizer.mask_id, '', 'embedding')
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x, rng=rng: 0.02 * rng.standard_normal(x.shape, np.float32),
      denoiser.abstract_params(description),
    )
    store.save_model(directory / name, description, params, {})
  return directory


def size_of(model):
  return sum(f.stat().st_size for f in (model / 'model').rglob('*') if f.is_file())


def options(model, mode, workdir):
  return [
    *(f'--mode={mode}', f'--config={model / "tiny.py"}', f'--workdir={workdir}'),
    *(f'--config.checkpoint={model / "model"}', '--config.verify_below=0'),
    *('--config.mesh.data=1', '--config.mesh.fsdp=-1'),
    *('--config.sample.num_samples=2', '--config.sample.num_steps=1'),
    *('--config.train.num_steps=1', '--config.train.warmup_steps=0'),
  ]


def measures(out, numbered=False):
  lines = [line[4:] if numbered else line for line in out.splitlines()]
  return [json.loads(line) for line in lines if line.startswith('{"read"')]


@pytest.mark.parametrize('mode', ['sample', 'train'])
def test_each_of_two_processes_reads_half(model, tmp_path, mode):
  command = options(model, mode, tmp_path / mode)
  code, out, err = processes.run(2, '-c', PROGRAM, *command)
  assert code == 0, err
  found, size = measures(out, numbered=True), size_of(model)
  assert len(found) == 2
  for process in found:
    # Every matrix is split; a piece on the border is read by both.
    assert 0.45 * size < process['read'] < 0.6 * size
    # Half of it, pieces on their way there, 16 MB at a time, and a hundred megabytes of
    # compiler; who reads the whole and then spreads it holds one and a half.
    assert process['grown'] < 0.9 * size


# The program; it prints how many bytes it reads of the state of a training that it
# resumes.
RESUMED = """\
import json, sys, tensorstore
from scmdm_jax.checkpoints import training_store
from scmdm_jax.main import main
from scmdm_jax.processes import multihost
restore = training_store.TrainingStore.restore
def read():
  name = '/tensorstore/kvstore/file/bytes_read'
  metrics = tensorstore.experimental_collect_matching_metrics(name)
  return sum(value['value'] for metric in metrics for value in metric['values'])
def measured(self, *arguments):
  before = read()
  found = restore(self, *arguments)
  print(json.dumps({'read': read() - before}), flush=True)
  return found
training_store.TrainingStore.restore = measured
code = main(['main.py', *sys.argv[1:]])
multihost.end(code)
sys.exit(code)
"""


def test_each_of_two_processes_resumes_from_half(model, tmp_path):
  workdir = tmp_path / 'run'
  command = [
    *('--mode=train', f'--config={model / "tiny.py"}', f'--workdir={workdir}'),
    *(f'--config.checkpoint={model / "small"}', '--config.verify_below=0'),
    *('--config.mesh.data=1', '--config.mesh.fsdp=-1'),
    *('--config.train.num_steps=4', '--config.train.save_every=2'),
  ]
  code, _, err = processes.run(2, '-c', RESUMED, *command)
  assert code == 0, err
  # As a run that was ended after its second step.
  shutil.rmtree(workdir / 'checkpoints' / '4')
  shutil.rmtree(workdir / 'model')
  code, out, err = processes.run(2, '-c', RESUMED, *command)
  assert code == 0, err
  found = measures(out, numbered=True)
  files = (workdir / 'checkpoints' / '2').rglob('*')
  size = sum(f.stat().st_size for f in files if f.is_file())
  assert len(found) == 2
  for process in found:
    assert 0.4 * size < process['read'] < 0.6 * size


def test_eight_devices_hold_it_once(model, tmp_path):
  command = options(model, 'sample', tmp_path / 'eight')
  out = on_eight_devices('-c', PROGRAM, *command, '--config.sample.dtype=bfloat16')
  (found,) = measures(out)
  # Half the bytes of the stored float32, in eight parts, and pieces on their way there:
  # never the whole as it is stored, nor a second copy.
  assert found['grown'] < 0.9 * size_of(model)
