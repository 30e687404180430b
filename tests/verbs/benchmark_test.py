"""The benchmark of a toy: what it reports adds up."""

import json
import pathlib

import jax
import numpy as np
import pytest

from scmdm_jax.benchmarks import measuring
from scmdm_jax.main import main
from scmdm_jax.models import denoiser, flops
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.parallel import chips
from tests import tiny_run

pytest.importorskip('matplotlib')
# Two dozen compilations.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CONFIG = """\
from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'benchmark'
  config.data.length = 8
  config.model.hidden_dim = 8
  config.model.num_blocks = 1
  config.model.num_heads = 2
  config.model.cond_dim = 4
  config.sample.batch_size = 2
  config.sample.num_steps = 8
  config.train.batch_size = 4
  config.benchmark.vocab_size = 50
  config.benchmark.rounds = 2
  config.benchmark.torch = False
  config.benchmark.memory_shape = (2, 16)
  config.benchmark.batch_sizes = (1, 2)
  config.benchmark.strategies = ('first_hitting', 'confidence')
  return config
"""


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  directory = tmp_path_factory.mktemp('benchmark')
  config = directory / 'config.py'
  config.write_text(CONFIG)
  # A CPU of a known speed; of others `mfu` is None.
  chip = chips.Chip(jax.devices()[0].device_kind, 1e9, 2e9, 1e9)
  with pytest.MonkeyPatch.context() as patch:
    assert measuring.utilization(1e9, 1.0) is None
    patch.setitem(chips.TPUS, 'fake', chip)
    code = main(['main', f'--config={config}', f'--workdir={directory / "run"}'])
  assert code == 0
  found = json.loads((directory / 'run' / 'benchmark.json').read_text())
  assert '<svg' in (directory / 'run' / 'benchmark.svg').read_text()
  return found


def test_rates_follow_from_times_and_counts(results):
  rows = results['samplers']['rows']
  assert results['shape'] == {'batch': 2, 'length': 8, 'steps': 8}
  for name, row in rows.items():
    assert row['evaluations'] == 8, name
    assert row['tokens_per_second'] == pytest.approx(16 / row['seconds'])
    assert row['evaluations_per_second'] == pytest.approx(8 / row['seconds'])
    assert (row['generated'], row['positions']) == (16, 8 * 8)
    assert row['tokens_per_evaluation'] == 1  # Of each of two examples.
    assert row['ms_per_step_p50'] == pytest.approx(1e3 * row['seconds'] / 8)
    assert row['ms_per_step_p50'] <= row['ms_per_step_p90']
    assert row['ratio']['low'] <= row['ratio']['median'] <= row['ratio']['high']
  ours = rows['self-conditioned']
  assert ours['compilations'] == 1
  # No compilation takes a hundredth of a second; reading its result may.
  assert ours['compile_seconds_cold'] > 0.01
  assert ours['compile_seconds_warm'] > 0
  assert ours['programs_found_in_warm_cache'] == 1
  assert rows['straightforward scan']['ratio']['median'] == 1
  again = rows['straightforward scan, again']['ratio']['median']
  assert results['samplers']['quiet'] == (abs(again - 1) <= 0.05)
  assert {'Python loop, waiting', 'Python loop, asynchronous', 'vanilla'} < set(rows)


def test_utilization_is_of_the_peak_of_the_chip(results):
  arch = DiTConfig(50, 8, 8, 1, 2, 4)
  described = ModelDescription(arch, 49, '', 'embedding')
  rows = results['training']['rows']
  for name, rate in (('vanilla', 0.0), ('self-conditioned', 1.0)):
    work = flops.training(described, 8, rate) * 4 * 8
    assert rows[name]['mfu'] == pytest.approx(work / rows[name]['seconds'] / 2e9)
  samplers = results['samplers']
  roofline = samplers['matmul_flops_per_second']
  share = samplers['share_of_matmul_roofline']
  assert samplers['mfu'] == pytest.approx(share * roofline / 2e9)


def test_a_roofline_stands_beside_the_times(results):
  arch = DiTConfig(50, 8, 8, 1, 2, 4)
  described = ModelDescription(arch, 49, '', 'embedding')
  leaves = jax.tree.leaves(denoiser.abstract_params(described))
  weights = 4 * sum(leaf.size for leaf in leaves)
  rows = results['samplers']['rows']
  for name in ('self-conditioned', 'vanilla'):
    found = rows[name]['prediction']
    work = flops.sampling(described, 8, 8, name != 'vanilla') * 2 * 8 / 8
    assert found['milliseconds_of']['flops'] == pytest.approx(1e3 * work / 2e9)
    assert found['milliseconds_of']['bytes'] == pytest.approx(
      1e3 * found['bytes'] / 1e9
    )
    # Once the weights, and of 16 tokens the activations of one block of 8 numbers.
    assert found['floor_bytes'] == weights + 4 * 8 * 16
    assert found['bytes'] > weights
    assert found['largest']['bytes'] <= found['bytes']
  found = results['training']['rows']['self-conditioned']['prediction']
  work = flops.training(described, 8, 1.0) * 4 * 8
  assert found['milliseconds_of']['flops'] == pytest.approx(1e3 * work / 2e9)
  assert found['floor_bytes'] == 8 * weights + 3 * 4 * 8 * 32
  assert found['bytes'] > found['floor_bytes']


def test_training_and_sweeps(results):
  training = results['training']
  assert training['shape'] == [4, 8]
  vanilla, ours = (training['rows'][n] for n in ('vanilla', 'self-conditioned'))
  # One more forward pass beside a forward and a backward one.
  assert 1.1 < ours['flops'] / vanilla['flops'] < 1.6
  assert results['sweeps']['batch']['sizes'] == [1, 2]
  assert results['sweeps']['batch']['exponent_of_flops'] == pytest.approx(1, abs=0.1)
  assert results['memory']['shape'] == [2, 16]


def test_quality_stands_beside_speed(tmp_path, capsys):
  """A judge's perplexity, as `--mode=evaluate` finds it, and an entropy."""
  assets = pathlib.Path(__file__).parents[2] / 'scmdm_jax' / 'assets'
  config = tiny_run.write_config(tmp_path)
  program = tiny_run.Program(capsys)
  common = [
    f'--config={config}',
    '--config.method.rate=1.0',
    '--config.sample.num_samples=20',
    '--config.sample.num_steps=4',
    '--config.evaluate.num_examples=8',
    '--config.evaluate.carried_steps=(2,)',
  ]
  adapted = tmp_path / 'adapted'
  program.figures(
    *common, f'--workdir={adapted}', f'--config.checkpoint={assets / "qm9_base"}'
  )
  common += [
    f'--config.checkpoint={adapted}',
    f'--config.judge={assets / "qm9_judge"}',
  ]
  program.figures('--mode=evaluate', *common, f'--workdir={tmp_path / "evaluated"}')
  wanted = json.loads((tmp_path / 'evaluated' / 'evaluation.json').read_text())
  program.figures(
    *('--mode=benchmark', *common, f'--workdir={tmp_path / "timed"}'),
    *('--config.benchmark.rounds=1', '--config.benchmark.train=False'),
    *('--config.benchmark.torch=False', '--config.sample.batch_size=4'),
  )
  timed = json.loads((tmp_path / 'timed' / 'benchmark.json').read_text())
  found = timed['quality']
  assert found.keys() == {'self-conditioned', 'vanilla'}
  rows = timed['samplers']['rows']
  for row in rows.values():
    # Molecules end long before their 32 positions, and what fills those is no token.
    assert 4 * 3 < row['generated'] < 4 * 30
    assert row['tokens_per_second'] == pytest.approx(row['generated'] / row['seconds'])
  figures = wanted['samples']
  assert figures['tokens_per_evaluation'] == figures['generated'] / 4
  for figures in found.values():
    assert (figures['noise'], figures['samples']) == ('high', 20)
    assert 1 < figures['generative_perplexity'] < 1000
    assert 0.5 < figures['entropy'] < np.log(32)
  assert found['self-conditioned'] != found['vanilla']
  for name in ('generative_perplexity', 'entropy'):
    assert found['self-conditioned'][name] == pytest.approx(wanted['samples'][name])
