"""The published recipe and the small one on images, each with everything small."""

import json
import pathlib

import jax
import numpy as np
import pytest

from scmdm_jax.domains.images import files
from tests import tiny_run
from tests.compiling import quick_jit
from tests.domains.images.builder_test import write_cifar
from tests.domains.images.idx_files import write_fashion

CONFIGS = pathlib.Path(__file__).parents[3] / 'configs'
SMALL = {
  'model.hidden_dim': 16,
  'model.num_blocks': 1,
  'model.num_heads': 2,
  'model.cond_dim': 4,
  'train.batch_size': 4,
  'train.num_steps': 2,
  'train.warmup_steps': 1,
  'train.log_every': 1,
  'sample.num_samples': 3,
  'sample.batch_size': 2,
  'sample.num_steps': 4,
  'evaluate.num_examples': 4,
  'evaluate.batch_size': 4,
  'evaluate.repeats': 1,
  'evaluate.carried_steps': (2,),
  'data.tokenizer': 'pixels:4',
}


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


def options(**changes):
  return [f'--config.{name}={value}' for name, value in changes.items()]


@pytest.mark.long
def test_the_published_recipe_trains_and_samples(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(files, 'CIFAR_RECORDS', 2)
  data = {
    'data.source': write_cifar(tmp_path / 'cifar'),
    'data.directory': tmp_path / 'data',
    'data.side': 4,
    'data.length': 49,
  }
  program = tiny_run.Program(capsys)
  config = f'--config={CONFIGS / "cifar10_paper.py"}'
  base, drawn = tmp_path / 'base', tmp_path / 'drawn'
  small = options(**SMALL, **data)
  figures = program.figures(
    f'{config}:pretrain', f'--workdir={base}', *small, '--config.train.accumulate=2'
  )
  assert figures['steps'] == 2 and figures['tokens'] == 2 * 4 * 49
  figures = program.figures(
    config,
    '--mode=sample',
    f'--workdir={drawn}',
    f'--config.checkpoint={base}',
    *small,
    '--config.train.accumulate=2',
    '--config.sample.guidance=1.0',
    '--config.compare.step_counts=(4,)',
  )
  assert figures['count'] == 3 and figures['evaluations'] == 8  # Two each.
  lines = (drawn / 'samples.jsonl').read_text().splitlines()
  rows = [json.loads(line)['tokens'] for line in lines]
  # Each class in turn, kept as it was given; nothing is left masked.
  assert [row[0] for row in rows] == [4, 5, 6]
  assert np.shape(rows) == (3, 49) and np.max(rows) < 14
  assert len(list((drawn / 'images').iterdir())) == 3
  assert (drawn / 'samples.png').is_file()


@pytest.mark.long
def test_the_comparison_of_images(tmp_path, capsys):
  data = {
    'data.source': write_fashion(tmp_path / 'fashion'),
    'data.directory': tmp_path / 'data',
    'data.side': 4,
    'data.length': 17,
  }
  program = tiny_run.Program(capsys)
  config = f'--config={CONFIGS / "fashion_small.py"}'
  base, judge, compared = (tmp_path / name for name in ('base', 'judge', 'compared'))
  small = options(**SMALL, **data)
  program.figures(f'{config}:base', f'--workdir={base}', *small)
  figures = program.figures(f'{config}:classifier', f'--workdir={judge}', *small)
  assert 0 <= figures['accuracy'] <= 1
  program.figures(
    config,
    f'--workdir={compared}',
    f'--config.checkpoint={base}',
    f'--config.judge={judge}',
    *small,
    '--config.data.tokenizer=checkpoint',
    '--config.compare.step_counts=(2,4)',
    '--config.compare.seeds=(0,)',
    '--config.compare.temperatures=(0.5,1.0)',
    '--config.compare.benchmark_pairs=0',
  )
  report = json.loads((compared / 'report' / 'report.json').read_text())
  assert report['domain'] == 'images'
  samples = report['runs'][0]['samples']['4']
  for name in ('frechet_distance', 'frechet_distance_real', 'class_accuracy'):
    assert np.isfinite(samples[name])
  swept = {row['metric'] for row in report['matched_entropy_summary']}
  assert swept == {'frechet_distance', 'class_accuracy'}
  page = (compared / 'report' / 'index.html').read_text()
  # Three samples of each of five arms, and the frames of a film of four steps.
  assert page.count('data:image/png;base64,') == 5 * 3 + 5
