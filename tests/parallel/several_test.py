"""Comparisons and judges as two processes: the figures of one process."""

import json
import re

import pytest

from scmdm_jax import ASSETS
from tests import compiling, tiny_run
from tests.processes import processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

# The quick start, reduced to seconds.
REDUCED = [
  *('--config.train.num_steps=3', '--config.train.warmup_steps=1'),
  *('--config.train.batch_size=8', '--config.train.log_every=1'),
  *('--config.train.save_every=2', '--config.sample.num_samples=8'),
  *('--config.sample.batch_size=4', '--config.sample.num_steps=4'),
  *('--config.evaluate.num_examples=12', '--config.evaluate.batch_size=4'),
  *('--config.evaluate.repeats=1', '--config.evaluate.carried_steps=(4,)'),
  *('--config.compare.rates=(1.0,)', '--config.compare.equal_steps=False'),
  *('--config.compare.step_counts=(4,)', '--config.compare.temperatures=(1.0,)'),
  '--config.compare.benchmark_pairs=0',
]


def run(count, devices, *arguments, code=0):
  """The line of JSON of a run of `count` processes with so many devices each."""
  found, out, err = processes.run(
    count,
    *('-m', 'scmdm_jax.main', *map(str, arguments)),
    XLA_FLAGS=compiling.flags(devices),
    # As many threads share a product in each process, so that its sums have one order.
    NPROC='2',
  )
  assert found == code, err
  lines = [line for line in out.splitlines() if '{"mode"' in line]
  (line,) = lines  # The first process alone speaks.
  return json.loads(re.sub(r'^\[0\] ', '', line)), err


def results(workdir):
  """What every arm left, but for times."""
  found = {}
  for path in sorted(workdir.glob('arms/*/seed_*/result.json')):
    figures = json.loads(path.read_text())
    del figures['seconds']
    found[path.parent.parent.name] = figures
  return found


@pytest.mark.parametrize(
  'trained', [[], ['--config.train.lora_rank=2']], ids=['all', 'factors']
)
def test_the_quick_start_compares_alike_as_two_processes(tmp_path, trained):
  config = '--config=configs/quickstart.py'
  one, two = tmp_path / 'one', tmp_path / 'two'
  # Each process holds half of the base.
  options = [*REDUCED, '--config.mesh.fsdp=2', *trained]
  run(1, 2, config, f'--workdir={one}', *options)
  figures, err = run(2, 1, config, f'--workdir={two}', *options)
  assert results(two).keys() == {'base_(not_adapted)', 'rate_0-equal_FLOPs', 'rate_1'}
  assert (two / 'report/index.html').is_file()
  assert '[1] rate 1' not in err
  # Of the same two devices the sums are the same, too.
  assert results(two) == results(one)

  # It resumes: what is there is not worked out again.
  before = {p: p.stat().st_mtime_ns for p in two.glob('arms/*/seed_*/result.json')}
  (again := two / 'arms/rate_1/seed_0/result.json').unlink()
  del before[again]
  assert run(2, 1, config, f'--workdir={two}', *options)[0]['arms'] == figures['arms']
  assert before == {p: p.stat().st_mtime_ns for p in before}
  assert results(two) == results(one)


def test_an_adapter_is_trained_alike_as_two_processes(tmp_path):
  """All of them read the base, for its digest as for its weights."""
  options = [
    *('--config=configs/quickstart.py', '--mode=train', *REDUCED),
    *('--config.mesh.fsdp=2', '--config.method.rate=1', '--config.train.lora_rank=2'),
  ]
  run(1, 2, *options, f'--workdir={tmp_path}/one')
  run(2, 1, *options, f'--workdir={tmp_path}/two')
  models = [tiny_run.model_bytes(tmp_path / name) for name in ('one', 'two')]
  assert models[0] == models[1]
  frozen = [
    json.loads((tmp_path / name / 'model/model.json').read_text())['extra']['frozen']
    for name in ('one', 'two')
  ]
  assert frozen[0]['weights'] == frozen[1]['weights']


def test_judges_read_their_parts(tmp_path):
  texts = tmp_path / 'texts.jsonl'
  smiles = ['CCO', 'c1ccccc1', 'CC(=O)N', 'C#N', 'OCC1CC1', 'CN', 'O=CO']
  texts.write_text(''.join(json.dumps({'text': text}) + '\n' for text in smiles))
  config = ['--config=configs/quickstart.py', f'--config.judge={ASSETS / "qm9_judge"}']
  config += [f'--config.checkpoint={ASSETS / "qm9_base"}', *REDUCED]
  config += ['--config.evaluate.batch_size=2']
  for mode, extra in (('judge', [f'--source={texts}']), ('evaluate', [])):
    one, _ = run(
      1, 2, *config, f'--mode={mode}', f'--workdir={tmp_path}/{mode}1', *extra
    )
    two, _ = run(
      2, 1, *config, f'--mode={mode}', f'--workdir={tmp_path}/{mode}2', *extra
    )
    assert one == two


def test_benchmark_measures_the_device_of_the_first(tmp_path):
  sizes = ['--config.benchmark.vocab_size=16', '--config.data.length=8']
  sizes += ['--config.benchmark.rounds=1', '--config.sample.num_steps=2']
  sizes += ['--config.model.hidden_dim=16', '--config.model.num_blocks=1']
  sizes += ['--config.model.num_heads=2', '--config.benchmark.strategies=()']
  sizes += ['--config.benchmark.memory_shape=(2,16)', '--config.benchmark.torch=False']
  sizes += [
    f'--config.benchmark.{name}=()'
    for name in ('batch_sizes', 'step_counts', 'lengths', 'vocab_sizes')
  ]
  figures, _ = run(
    2,
    1,
    *('--config=configs/benchmark_small.py', '--mode=benchmark', *sizes),
    f'--workdir={tmp_path}/run',
  )
  assert figures['ratios']
