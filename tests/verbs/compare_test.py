import json

import jax
import numpy as np
import pytest

from scmdm_jax import command_line
from scmdm_jax.checkpoints import store
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.runs import arms
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import compare
from tests import tiny_run
from tests.compiling import quick_jit

COMPARE = """\
  config.mode = 'compare'
  config.checkpoint = {base!r}
  config.judge = {judge!r}
  config.sample.num_samples = 6
  config.sample.batch_size = 4
  config.sample.num_steps = 3
  config.evaluate.num_examples = 6
  config.evaluate.batch_size = 4
  config.evaluate.repeats = 1
  config.evaluate.carried_steps = (2,)
  config.compare.rates = (0.5, 1.0)
  config.compare.seeds = (0, 1)
  config.compare.step_counts = (3,)
  config.compare.temperatures = (0.5, 1.0)
  config.compare.sweep_samples = 5
  config.train.evaluate_every = 4
  config.compare.benchmark_pairs = 1
  return config
"""


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.mark.slow
def test_arms_spend_what_they_say(tmp_path):
  """At the shapes of the quick start, by XLA's own count of a training step."""
  config = command_line.load_config(str(tiny_run.write_config(tmp_path)))
  config.train.num_steps = 1000
  config.train.batch_size = 64
  settings = resolve(config)
  description = ModelDescription(DiTConfig(35, 32, 96, 3, 4, 32), 2, 'smiles_qm9')
  params = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), denoiser.abstract_params(description)
  )
  control, equal, half, full = arms.plan_arms(
    settings, Model(description, params, get_tokenizer('smiles_qm9'))
  )
  assert [a.name for a in (control, equal, half, full)] == [
    'rate 0, equal FLOPs',
    'rate 0, equal steps',
    'rate 0.5',
    'rate 1',
  ]
  assert [a.train_steps for a in (equal, half, full)] == [1000] * 3
  # A backward pass costs two forward passes, so a first pass adds a third; the
  # injection and the signal are some percent more.
  assert 1.30 < control.train_steps / 1000 < 1.40
  assert full.flops_ratio == 1
  assert control.flops_ratio == pytest.approx(1, abs=1e-3)
  # Half the examples get a first pass.
  middle = (equal.flops_ratio + full.flops_ratio) / 2
  assert half.flops_ratio == pytest.approx(middle, abs=0.01)


def test_samplers_that_an_arm_cannot_have_are_refused_before_training(tmp_path):
  config = command_line.load_config(str(tiny_run.write_config(tmp_path)))
  config.model.block_length = 8
  config.sample.num_steps = 8
  config.compare.step_counts = (8,)
  base = ModelDescription(DiTConfig(35, 32, 8, 1, 2, 4), 2, 'smiles_qm9')
  compare._check_samplers(resolve(config), base)
  config.compare.step_counts = (6, 8)  # Of four blocks.
  with pytest.raises(BadInput, match=r'sample\.block_length: found 8; wanted a divi'):
    compare._check_samplers(resolve(config), base)
  # Of the base, which sees both ways.
  config.compare.step_counts, config.sample.cache = (8,), 'exact'
  with pytest.raises(BadInput, match=r"sample\.cache: found 'exact'; wanted one of"):
    compare._check_samplers(resolve(config), base)


@pytest.mark.long
def test_whole_comparison(tmp_path, capsys):
  base_config = tiny_run.write_config(tmp_path)
  program = tiny_run.Program(capsys)
  base, judge = tmp_path / 'base', tmp_path / 'judge'
  vanilla = f'--config={base_config}', '--config.method.rate=0'
  program.figures(*vanilla, f'--workdir={base}')
  program.figures(
    *vanilla,
    '--config.method.objective=causal',
    '--config.model.architecture=llama',
    f'--workdir={judge}',
  )
  path = tmp_path / 'compare.py'
  text = base_config.read_text().replace('  return config\n', COMPARE)
  path.write_text(text.format(base=str(base), judge=str(judge)))
  workdir = tmp_path / 'run'
  code, out, err = program.run(f'--config={path}', f'--workdir={workdir}')
  assert code == 0, err
  figures = json.loads(out.splitlines()[-1])
  assert figures['seeds'] == 2
  assert figures['arms']['rate 1'] == 6
  assert 'generative perplexity' in out
  report = json.loads((workdir / 'report' / 'report.json').read_text())
  assert len(report['runs']) == 10
  assert {r['samples']['3']['evaluations'] for r in report['runs']} == {3}
  for run in report['runs']:
    curve = [x for x in run['training_curve'] if 'heldout_nelbo' in x]
    assert bool(curve) == (run['train_steps'] > 0)
    conditioned = run['arm'] in ('rate 0.5', 'rate 1')
    assert all(('heldout_nelbo_two_pass' in x) == conditioned for x in curve)
  assert (workdir / 'report' / 'index.html').stat().st_size > 10_000
  assert len(report['trajectory']['tokens']) == 4
  with_, without = report['trajectory']['beliefs']['samples']
  assert set(with_['state'][-1] + without['state'][-1]) <= {'w', 'f'}
  assert len(with_['entropy']) == len(without['entropy']) == 3
  assert not any(report['trajectory']['masked'][-1])
  assert set(report['cost']) == {'train_step_ratio', 'sampler_ratio'}

  # An arm is what --mode=train makes of the same base with the same seed.
  alone = tmp_path / 'alone'
  program.figures(
    *vanilla, f'--workdir={alone}', f'--config.checkpoint={base}', '--config.seed=1'
  )
  arm = workdir / 'arms' / 'rate_0-equal_steps' / 'seed_1'
  assert tiny_run.model_bytes(alone) == tiny_run.model_bytes(arm)
  assert store.load_model(arm.parents[1] / 'rate_1' / 'seed_0')[0].injection != 'none'

  # The same command again measures nothing anew but the times.
  (workdir / 'arms' / 'rate_1' / 'seed_0' / 'result.json').unlink()
  before = json.loads(json.dumps(report['runs']))
  program.figures(f'--config={path}', f'--workdir={workdir}')
  after = json.loads((workdir / 'report' / 'report.json').read_text())['runs']
  for run in (*before, *after):
    del run['seconds']
  assert after == before
