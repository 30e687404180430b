"""What commit ad9a2a5 left behind is still read, sampled and resumed.

`fixtures/workdirs` holds, made by that commit from `config.py` in that folder: a
finished training, the same one stopped by SIGTERM after step 3 of 4, the safetensors
exported from the finished one, and a comparison of which one arm (rate 1) is missing.
Left out of them, to be small: TensorBoard's files, and the models of finished arms.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from tests import tiny_run
from tests.compiling import quick_jit

FIXTURES = pathlib.Path(__file__).parent / 'fixtures' / 'workdirs'


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A copy of the folder, as the working directory: its options name paths in it."""
  shutil.copytree(FIXTURES, tmp_path / 'copy')
  monkeypatch.chdir(tmp_path / 'copy')
  return tmp_path / 'copy'


def test_a_finished_training_is_read_and_left_as_it_is(here, capsys):
  before = tiny_run.model_bytes(here / 'finished')
  checkpoint = here / 'finished' / 'checkpoints' / '4' / '_CHECKPOINT_METADATA'
  changed = checkpoint.stat().st_mtime_ns
  program = tiny_run.Program(capsys)
  figures = program.figures('--config=config.py', '--workdir=finished')
  assert (figures['steps'], figures['parameters']) == (4, 2795)
  assert tiny_run.model_bytes(here / 'finished') == before
  assert checkpoint.stat().st_mtime_ns == changed
  verified = program.figures('--mode=verify', '--source=finished')
  assert verified['ok']
  assert len(verified['verified']) == 2  # Step 4, and the model.


def test_a_stopped_training_goes_on(here, capsys):
  tiny_run.Program(capsys).figures('--config=config.py', '--workdir=stopped')
  resumed, whole = tiny_run.curve(here / 'stopped'), tiny_run.curve(here / 'finished')
  assert [step for step, *_ in resumed] == [1, 2, 3, 4]
  assert resumed[:3] == whole[:3]
  # Step 4 is computed here, of the same examples, with noise that now follows from
  # them: that commit drew it for a step.
  assert resumed[3][1] == pytest.approx(whole[3][1], rel=0.3)
  assert resumed[3] != whole[3]
  _, found = store.load_model(here / 'stopped')
  _, wanted = store.load_model(here / 'finished')
  # Adam's step 4 moves a parameter by 2.2 times its rate, 2.5e-3, at the most.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1.1e-2), found, wanted
  )


def test_an_export_is_the_model_that_it_was_made_of(here, capsys):
  program = tiny_run.Program(capsys)
  program.figures('--mode=import', '--source=exported', '--workdir=imported')
  assert tiny_run.model_bytes(here / 'imported') == tiny_run.model_bytes(
    here / 'finished'
  )


@pytest.mark.slow
def test_a_comparison_goes_on_with_the_arm_that_is_missing(here, capsys):
  pytest.importorskip('matplotlib')
  arms = here / 'compared' / 'arms'
  kept = {path: path.read_bytes() for path in arms.glob('*/seed_0/result.json')}
  assert len(kept) == 3
  figures = tiny_run.Program(capsys).figures(
    '--config=config.py:compare', '--workdir=compared'
  )
  assert figures['arms']['rate 1'] == 4
  report = json.loads((here / 'compared' / 'report' / 'report.json').read_text())
  assert len(report['runs']) == 4
  assert all(path.read_bytes() == content for path, content in kept.items())
  # The base was measured by that commit, and rate 1 now.
  for run in report['runs']:
    (bound,) = (v for k, v in run['likelihood'].items() if k.startswith('carried'))
    assert 2 < bound['2'] < 4  # Nats per token; all 35 alike would be 3.56.
