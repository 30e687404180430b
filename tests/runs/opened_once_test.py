"""A run opens each checkpoint that it names once, whatever the verb."""

import collections
import json

import jax
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from tests import tiny_run
from tests.compiling import quick_jit
from tests.models.parameters import random_params

ADAPTED = ModelDescription(
  DiTConfig(35, 32, 8, 1, 2, 4), 2, 'smiles_qm9', injection='embedding'
)
VANILLA = ModelDescription(DiTConfig(35, 32, 8, 1, 2, 4), 2, 'smiles_qm9')
JUDGE = ModelDescription(DecoderConfig(35, 32, 8, 1, 2, 2, 16), None, 'smiles_qm9')
SAMPLER = (
  '--config.sample.num_samples=2',
  '--config.sample.batch_size=2',
  '--config.sample.num_steps=2',
)
SCORER = (
  '--config.evaluate.num_examples=2',
  '--config.evaluate.batch_size=2',
  '--config.evaluate.repeats=1',
  '--config.evaluate.carried_steps=(1,)',
)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """A folder with a config file, three models, and a file of texts."""
  folder = tmp_path_factory.mktemp('models')
  for name, description in (
    ('adapted', ADAPTED),
    ('vanilla', VANILLA),
    ('judge', JUDGE),
  ):
    store.save_model(folder / name, description, random_params(description), {})
  (folder / 'texts.jsonl').write_text(json.dumps({'text': 'CCO'}) + '\n')
  tiny_run.write_config(folder)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  ('mode', 'checkpoint', 'judge', 'options'),
  [
    ('train', 'adapted', '', ('--config.train.num_steps=3',)),
    ('sample', 'adapted', '', SAMPLER),
    ('judge', '', 'judge', ('--source={}/texts.jsonl',)),
    ('plan', 'adapted', '', ()),
    pytest.param(
      'evaluate', 'adapted', 'judge', (*SAMPLER, *SCORER), marks=pytest.mark.long
    ),
    pytest.param(
      'compare',
      'vanilla',
      'judge',
      (
        *(*SAMPLER, *SCORER, '--config.compare.step_counts=(2,)'),
        *('--config.compare.seeds=(0,)', '--config.compare.rates=(1.0,)'),
        '--config.compare.benchmark_pairs=0',
      ),
      marks=pytest.mark.long,
    ),
    pytest.param(
      'benchmark',
      'adapted',
      'judge',
      (
        *(*SAMPLER, '--config.benchmark.rounds=1', '--config.benchmark.train=False'),
        *('--config.benchmark.torch=False', '--config.benchmark.batch_sizes=(1,2)'),
      ),
      marks=pytest.mark.long,
    ),
  ],
)
def test_each_checkpoint_is_opened_once(
  models, tmp_path, capsys, monkeypatch, mode, checkpoint, judge, options
):
  opened, read = collections.Counter(), collections.Counter()
  open_model, load_params = store.open_model, store.load_params

  def opening(path, *arguments, **more):
    opened[store.find_model(path)] += 1
    return open_model(path, *arguments, **more)

  def loading(model, **more):
    read[model.directory] += 1
    return load_params(model, **more)

  monkeypatch.setattr(store, 'open_model', opening)
  monkeypatch.setattr(store, 'load_params', loading)
  given = {'checkpoint': checkpoint, 'judge': judge}
  tiny_run.Program(capsys).figures(
    *(f'--mode={mode}', f'--config={models}/tiny.py', f'--workdir={tmp_path}/run'),
    *(f'--config.{k}={models / v}' for k, v in given.items() if v),
    *(option.format(models) for option in options),
  )
  named = {models / name for name in (checkpoint, judge) if name}
  assert {path: opened[path] for path in named} == dict.fromkeys(named, 1)
  if mode != 'plan':  # Which reads no weights.
    assert {path: read[path] for path in named} == dict.fromkeys(named, 1)
