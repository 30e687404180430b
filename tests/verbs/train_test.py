import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest

from scmdm_jax import command_line
from scmdm_jax.checkpoints import store, training_store
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import adapting, compiling, opening, starting, workdir
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.training.step import OptimizerConfig
from scmdm_jax.verbs import train
from tests import tiny_run
from tests.compiling import quick_jit

pytestmark = pytest.mark.slow

MESH = one_device()
KEY = jax.random.key(0)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    compiling.compiled_step.cache_clear()  # Compilations are counted below.
    yield


@pytest.fixture(scope='module')
def config_path(tmp_path_factory):
  """A config file; runs of this module share its prepared data set."""
  return tiny_run.write_config(tmp_path_factory.mktemp('config'))


@pytest.fixture
def settings_with(config_path):
  def make(**changes):
    config = command_line.load_config(str(config_path))
    config.update_from_flattened_dict(
      {name.replace('__', '.'): value for name, value in changes.items()}
    )
    return resolve(config)

  return make


def run(settings, path):
  with workdir.opened(str(path), settings) as directory:
    return train.run(settings, directory)


def refusal(settings, path):
  with pytest.raises(BadInput) as caught:
    run(settings, path)
  message = str(caught.value)
  assert '\n' not in message
  return message


@pytest.fixture(scope='module')
def base(config_path, tmp_path_factory):
  """A model trained at rate 0, as the base of an adaptation."""
  config = command_line.load_config(str(config_path))
  config.method.rate = 0.0
  path = tmp_path_factory.mktemp('base') / 'run'
  run(resolve(config), path)
  return path


def test_a_run_leaves_all_its_parts(base):
  names = {path.name for path in base.iterdir()}
  assert names == {
    *('.lock', 'config.json', 'metadata.json', 'metrics.jsonl'),
    *('checkpoints', 'model', 'tensorboard'),
  }
  assert [step for step, *_ in tiny_run.curve(base)] == [1, 2, 3, 4, 5, 6]
  # Every second step was saved; the newest two are kept.
  assert sorted(path.name for path in (base / 'checkpoints').iterdir()) == [
    *('4', '4.digests.json', '6', '6.digests.json')
  ]
  extra = json.loads((base / 'model' / 'model.json').read_text())['extra']
  assert extra == {
    'carried': {},
    'estimate': 'same_t',
    'base': '',
    'base_license': '',
    'imported_from': '',
    'license': 'unknown',
    'objective': 'masked',
    'schedule': 'log_linear',
    'rate': 0.0,
    'steps': 6,
    'batch_size': 8,
    'learning_rate': 1e-2,
    'data': 'qm9',
    'length': 32,
    'seed': 0,
  }


def test_at_rate_zero_nothing_is_added(base):
  description, params = store.load_model(base)
  assert description.injection == 'none'
  assert params['self_conditioning'] == {}


def test_the_model_is_the_average_of_the_last_checkpoint(base):
  description, params = store.load_model(base)
  state = adapting.initial_state(params, OptimizerConfig())
  with training_store.TrainingStore(base / 'checkpoints', 2) as checkpoints:
    state, data_state, _ = checkpoints.restore(6, state)
  assert state.step == 6
  assert data_state
  for saved, average in zip(*map(jax.tree.leaves, (params, state.ema)), strict=True):
    np.testing.assert_array_equal(saved, average)
  assert any(
    np.any(np.asarray(average) != np.asarray(last))
    for average, last in zip(
      *map(jax.tree.leaves, (state.ema, state.params)), strict=True
    )
  )
  assert description.tokenizer == 'smiles_qm9'


def test_adaptation_continues_the_base(base, settings_with, tmp_path, caplog):
  settings = settings_with(checkpoint=str(base), method__rate=1.0)
  opened = opening.open_run(settings, tmp_path)
  start = starting.starting_point(settings, opened, KEY, MESH)
  description, params = start.description, start.params
  assert description.injection == 'embedding'
  _, old = store.load_model(base)
  for mine, theirs in zip(
    *map(jax.tree.leaves, (params['backbone'], old['backbone'])), strict=True
  ):
    np.testing.assert_array_equal(mine, theirs)

  compiling.compiled_step.cache_clear()  # Another test may have compiled the same step.
  with jax.log_compiles(), caplog.at_level('WARNING', logger='jax'):
    figures = run(settings, tmp_path / 'run')
  # Loaded and fresh parameters together: still one compilation of the step.
  assert caplog.text.count('Finished XLA compilation of jit(train_step)') == 1
  description, params = store.load_model(tmp_path / 'run')
  assert description.injection == 'embedding'
  assert figures['parameters'] == sum(x.size for x in jax.tree.leaves(params))
  extra = json.loads((tmp_path / 'run' / 'model' / 'model.json').read_text())['extra']
  assert (extra['base'], extra['rate']) == (str(base), 1.0)
  assert extra['base_license'] == 'unknown'
  # What has been adapted keeps its injection, and no other may take its place.
  again = settings_with(checkpoint=str(tmp_path / 'run'), method__rate=0.0)
  opened = opening.open_run(again, tmp_path)
  start = starting.starting_point(again, opened, KEY, MESH)
  assert start.description.injection == 'embedding'
  other = settings_with(checkpoint=str(tmp_path / 'run'), method__injection='gate')
  with pytest.raises(BadInput) as caught:
    starting.starting_point(other, opened, KEY, MESH)
  assert str(caught.value) == (
    "method.injection: found 'gate', but the checkpoint has 'embedding'; wanted the "
    'same'
  )


@pytest.mark.long
def test_a_judge_is_trained_by_the_same_command(settings_with, tmp_path):
  settings = settings_with(method__objective='causal', model__architecture='llama')
  run(settings, tmp_path / 'run')
  description, params = store.load_model(tmp_path / 'run')
  assert (description.family, description.mask_id) == ('llama', None)
  assert params['self_conditioning'] == {}
  first, *_, last = tiny_run.curve(tmp_path / 'run')
  # About ln 35 = 3.56 nats at the start, when all tokens are equally likely.
  assert first[1] == pytest.approx(np.log(35), abs=0.7)
  assert last[1] < first[1]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'data__length': 33},
      'data.length: found 33; wanted at most 32, the length of checkpoint {}',
    ),
    (
      {'method__objective': 'causal', 'method__rate': 0.0},
      "method.objective: found 'causal'; wanted 'masked', as checkpoint {} is",
    ),
  ],
)
def test_a_checkpoint_that_does_not_fit(
  base, settings_with, tmp_path, changes, message
):
  settings = settings_with(checkpoint=str(base), **changes)
  assert refusal(settings, tmp_path / 'run') == message.format(base)


def test_a_checkpoint_that_is_not_there(settings_with, tmp_path):
  settings = settings_with(checkpoint=str(tmp_path / 'nothing'))
  message = refusal(settings, tmp_path / 'run')
  assert message.startswith(f'{tmp_path / "nothing"}: no such directory')


def test_data_that_do_not_fit(base, settings_with, tmp_path):
  with_base = functools.partial(settings_with, checkpoint=str(base), method__rate=0.0)
  message = refusal(with_base(data__length=5), tmp_path / 'short')
  wanted = r".*qm9_sample\.csv: line \d+: '\S+' takes \d+ tokens"
  assert re.match(wanted, message), message
  # 240 molecules, 5% of which are the test split.
  message = refusal(with_base(train__batch_size=500), tmp_path / 'big')
  assert message.startswith('train.batch_size: 500 is more than the 228 records')
  missing = str(tmp_path / 'nothing.csv')
  message = refusal(settings_with(data__source=missing), tmp_path / 'missing')
  assert message.startswith(f'{missing}: cannot read (No such file or directory)')


def test_sizes_that_do_not_fit_each_other(settings_with, tmp_path):
  message = refusal(settings_with(model__num_heads=3), tmp_path / 'run')
  assert message == 'model: hidden_dim 8 is not a multiple of num_heads 3'


def test_a_run_that_diverges_keeps_its_checkpoints(
  base, settings_with, tmp_path, monkeypatch
):
  calls = []

  def spoiled(step):
    def train_step(*arguments):
      state, metrics = step(*arguments)
      calls.append(1)
      bad = {'loss': np.float32(np.nan)} if len(calls) == 5 else {}
      return state, metrics | bad

    return train_step

  settings = settings_with(checkpoint=str(base), method__rate=0.0, train__skip_limit=0)
  healthy = compiling.compiled_step
  monkeypatch.setattr(compiling, 'compiled_step', lambda *a: spoiled(healthy(*a)))
  with pytest.raises(DamagedData, match='training stopped at step 5: loss is nan'):
    run(settings, tmp_path / 'run')
  assert [step for step, *_ in tiny_run.curve(tmp_path / 'run')] == [1, 2, 3, 4]
  assert not (tmp_path / 'run' / 'model').exists()
  with training_store.TrainingStore(tmp_path / 'run' / 'checkpoints', 2) as checkpoints:
    assert checkpoints.steps() == [2, 4]
  # The same command goes on from step 4.
  monkeypatch.setattr(compiling, 'compiled_step', healthy)
  run(settings, tmp_path / 'run')
  assert [step for step, *_ in tiny_run.curve(tmp_path / 'run')] == [1, 2, 3, 4, 5, 6]
  run(settings, tmp_path / 'whole')
  assert tiny_run.curve(tmp_path / 'run') == tiny_run.curve(tmp_path / 'whole')
  assert tiny_run.model_bytes(tmp_path / 'run') == tiny_run.model_bytes(
    tmp_path / 'whole'
  )


def test_a_finished_run_is_left_as_it_is(base, config_path):
  config = command_line.load_config(str(config_path))
  config.method.rate = 0.0
  model, metrics = tiny_run.model_bytes(base), tiny_run.curve(base)
  times = {p: p.stat().st_mtime_ns for p in (base / 'checkpoints').rglob('*')}
  figures = run(resolve(config), base)
  assert figures['steps'] == 6
  assert tiny_run.model_bytes(base) == model
  assert tiny_run.curve(base) == metrics
  assert {p: p.stat().st_mtime_ns for p in (base / 'checkpoints').rglob('*')} == times


def test_runs_of_different_length_share_one_compiled_step(base, settings_with):
  description, _ = store.load_model(base)
  steps = set()
  for changes in (
    {'train__num_steps': 6},
    {'train__num_steps': 9, 'train__learning_rate': 0.5, 'seed': 3},
    {'train__warmup_steps': 0, 'train__batch_size': 16, 'train__log_every': 7},
  ):
    settings = settings_with(**changes)
    optimizer = adapting.optimizer_of(settings.train)
    steps.add(compiling.compiled_step(description, settings.method, optimizer, MESH))
  assert len(steps) == 1
  other = dataclasses.replace(settings.method, rate=0.5)
  assert compiling.compiled_step(description, other, optimizer, MESH) not in steps
