"""The benchmark of an accelerator, at toy sizes on a CPU: what it writes adds up."""

import dataclasses
import json

import jax
import pytest

from scmdm_jax.benchmarks import accelerator, contenders, measuring
from scmdm_jax.models import flops
from scmdm_jax.parallel import chips

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def quick():
  """Compiles without optimizing, which would take longer than everything else."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def test_it_measures_samplers_and_steps_of_both_models(monkeypatch, capsys):
  # A CPU of a known speed; of others there is no MFU.
  assert measuring.utilization(1e9, 1.0) is None
  chip = chips.Chip(jax.devices()[0].device_kind, 1e9, 2e12, 1e9)
  monkeypatch.setitem(chips.TPUS, 'known', chip)
  found = accelerator.measure(is_reduced=True)
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert {name: job for line in lines for name, job in line.items()} == found['jobs']
  assert found['jobs'].keys() == {'MDLM-OWT', 'LLaDA-8B'}
  for name, job in found['jobs'].items():
    sized = accelerator.JOBS[name].reduced()
    bench = accelerator.bench_of(sized, True)
    rows = job['sampling']['rows']
    assert rows.keys() == {'self-conditioned', 'vanilla', 'straightforward scan'}
    for kind, row in rows.items():
      seconds = sorted(row['seconds'])[1]
      assert row['tokens_per_second'] == pytest.approx(2 * 16 / seconds)
      assert row['ms_per_step'] == pytest.approx(1e3 * seconds / 4)
      work = flops.sampling(bench.description, 16, 4, kind == 'self-conditioned')
      assert row['mfu'] == pytest.approx(work * 32 / seconds / 2e12)
      # At least the bfloat16 weights.
      assert row['peak_bytes_of_program'] > 2 * job['parameters']
    assert rows['straightforward scan']['over_straightforward']['median'] == 1
    step = job['adaptation']
    middle = sorted(step['seconds'])[1]
    assert step['batch'] == [4, 16]
    assert step['tokens_per_second'] == pytest.approx(4 * 16 / middle)
    assert 0 < step['mfu'] < 1


def test_nothing_is_begun_too_late(monkeypatch):
  monkeypatch.setattr(accelerator, '_SECONDS', -1)
  job = accelerator.JOBS['MDLM-OWT'].reduced()
  bench = accelerator.bench_of(job, True)
  assert accelerator.sampling(bench, lambda: True)['rows'].keys() == {
    'self-conditioned'
  }


def test_pytorch_draws_beside_us(monkeypatch):
  torch = pytest.importorskip('torch')
  job = accelerator.JOBS['MDLM-OWT'].reduced()
  bench = accelerator.bench_of(job, True)
  asked = dataclasses.replace(bench.settings.benchmark, torch=True)
  settings = dataclasses.replace(bench.settings, benchmark=asked)

  def none(*_):
    raise RuntimeError('no compiler')

  monkeypatch.setattr(torch, 'compile', lambda _: none)
  (run,) = contenders.pytorch(bench._replace(settings=settings)).values()
  drawn = run()
  assert drawn.shape == (2, 16)
  assert int(drawn.min()) >= 0 and int(drawn.max()) < 299
