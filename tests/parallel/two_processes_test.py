"""A run in 2 processes of 4 devices each and the same run on one device."""

import json

import numpy as np
import pytest

from tests import tiny_run
from tests.parallel import processes

MAIN = ('-m', 'scmdm_jax.main')
FOUR_DEVICES = {'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}
SPREAD = ('--config.mesh.fsdp=2', '--config.mesh.tensor=1')


def succeed(count, *arguments, **variables):
  code, out, err = processes.run(count, *MAIN, *arguments, **variables)
  assert code == 0, out + err
  return out


@pytest.mark.slow
def test_training_and_samples_are_those_of_one_device(tmp_path):
  config = tiny_run.write_config(tmp_path)
  train = (f'--config={config}', '--mode=train')
  succeed(2, *train, f'--workdir={tmp_path / "two"}', *SPREAD, **FOUR_DEVICES)
  succeed(1, *train, f'--workdir={tmp_path / "one"}')
  # Float32 sums in another order; 6 steps at a learning rate of 1e-2.
  curves = [tiny_run.curve(tmp_path / name) for name in ('two', 'one')]
  np.testing.assert_allclose(*curves, rtol=1e-4)
  two, one = (tiny_run.model_bytes(tmp_path / name) for name in ('two', 'one'))
  assert two.keys() == one.keys()
  for name in two:
    found, wanted = (np.frombuffer(m[name], np.float32) for m in (two, one))
    np.testing.assert_allclose(found, wanted, atol=1e-4, err_msg=name)

  sample = (
    f'--config={config}',
    '--mode=sample',
    f'--config.checkpoint={tmp_path / "two"}',
    '--config.sample.num_samples=12',
    '--config.sample.num_steps=4',
  )
  succeed(2, *sample, f'--workdir={tmp_path / "s2"}', *SPREAD, **FOUR_DEVICES)
  succeed(1, *sample, f'--workdir={tmp_path / "s1"}')
  texts = [
    (tmp_path / name / 'samples.jsonl').read_text().splitlines()
    for name in ('s2', 's1')
  ]
  assert len(texts[0]) == 12
  assert [json.loads(t) for t in texts[0]] == [json.loads(t) for t in texts[1]]
