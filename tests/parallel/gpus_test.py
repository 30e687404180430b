"""Programs of GPUs, by their compiler; skipped without jax's CUDA plugin."""

import importlib.util
import json

import pytest

from tests import tiny_run

_PLUGINS = ('jax_cuda12_plugin', 'jax_cuda13_plugin')
pytestmark = [
  pytest.mark.long,
  pytest.mark.timeout(600),
  pytest.mark.skipif(
    not any(map(importlib.util.find_spec, _PLUGINS)),
    reason="wants the compiler of GPUs: pip install 'jax[cuda12]'",
  ),
]


@pytest.mark.parametrize(('kind', 'room'), [('h100', 80e9), ('a100', 80e9)])
def test_a_training_step_is_planned_for_gpus_that_are_not_there(
  kind, room, tmp_path, capsys
):
  program = tiny_run.Program(capsys)
  code, out, _ = program.run(
    f'--config={tiny_run.write_config(tmp_path)}',
    '--mode=plan',
    f'--workdir={tmp_path / "run"}',
    f'--config.plan.topology={kind}:2x2',
    '--config.method.rate=1.0',
  )
  found = json.loads(out.splitlines()[-1])
  assert code == 0
  assert found['devices'] == 4
  assert found['room'] == room
  # Four copies of the parameters: each device sends the gradients once at least.
  assert found['communication']['bytes_per_step'] >= 4 * found['parameters']
