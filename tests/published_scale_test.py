"""The configs of published scale, two steps of each on a reduced instance.

Reduced: the same file, with smaller sizes given on the command line as a user would.
The models to adapt are laid out as they are published, with random weights.
"""

import json
import math
import pathlib

import jax
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scmdm_jax.checkpoints import store
from scmdm_jax.checkpoints.model_config import description_from_config
from scmdm_jax.domains.genomes.builder import SETS
from scmdm_jax.domains.genomes.files import read_fasta
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.runs import compiling
from scmdm_jax.verbs.export import export_model
from tests import tiny_run
from tests.compiling import quick_jit
from tests.models.parameters import random_params

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[1]
VERSES = [v for v in (ROOT / 'tests/acts27.txt').read_text().split('\n') if v]
LENGTH = 16
PIECES = 320
# What a published config.json says, at another size; the mask is not the last id where
# the published one is not.
SIZES = {
  'mdlm': {
    'vocab_size': PIECES + 1,
    'model_length': LENGTH,
    'hidden_dim': 8,
    'n_blocks': 2,
    'n_heads': 2,
    'cond_dim': 4,
  },
  'llada': {
    'vocab_size': 340,
    'embedding_size': 340,
    'mask_token_id': 330,
    'd_model': 8,
    'n_layers': 2,
    'n_heads': 2,
    'n_kv_heads': 2,
    'mlp_hidden_size': 16,
    'max_sequence_length': LENGTH,
  },
  'Dream': {
    'vocab_size': 340,
    'mask_token_id': 330,
    'hidden_size': 16,
    'intermediate_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'max_position_embeddings': LENGTH,
  },
}
SMALLER = (
  '--config.mesh.fsdp=1',
  '--config.mesh.tensor=1',
  '--config.plan.topology=',
  f'--config.data.length={LENGTH}',
  '--config.train.num_steps=2',
  '--config.train.warmup_steps=1',
  '--config.train.log_every=1',
  '--config.train.batch_size=4',
  '--config.sample.num_samples=3',
  '--config.sample.batch_size=2',
  '--config.sample.num_steps=2',
  '--config.compare.step_counts=(2,)',
)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    compiling.compiled_step.cache_clear()
    yield
    compiling.compiled_step.cache_clear()


def published(directory, name):
  """The model of configs/models/`name`.json, reduced, as a directory of its layout."""
  config = json.loads((ROOT / 'configs' / 'models' / f'{name}.json').read_text())
  config |= SIZES[config['model_type']]
  description = description_from_config(config, name)
  params = random_params(description, scale=0.1)
  store.save_model(directory / 'ours', description, params, {}, {})
  export_model(str(directory / 'ours'), str(directory / name))
  return directory / name


def runs_two_steps(program, workdir, config, sampling, *options):
  """Plans, trains and samples.

  Returns: the samples' tokens, int [3, L], and the workdir of the trained model.
  """
  configs, trained = ROOT / 'configs', workdir / 'trained'
  for name in dict.fromkeys((config, sampling)):
    plan = program.figures(
      f'--config={configs / name}',
      *('--mode=plan', *SMALLER, *options),
      f'--workdir={workdir / "plan" / name}',
    )
    assert plan['ok']
  figures = program.figures(
    f'--config={configs / config}',
    *('--mode=train', *SMALLER, *options),
    f'--workdir={trained}',
  )
  assert figures['steps'] == 2
  curve = tiny_run.curve(trained)
  assert [step for step, *_ in curve] == [1, 2]
  assert all(math.isfinite(x) and x > 0 for _, *xs in curve for x in xs)
  program.figures(
    f'--config={configs / sampling}',
    *('--mode=sample', *SMALLER, *options, f'--config.checkpoint={trained}'),
    f'--workdir={workdir / "sampled"}',
  )
  lines = (workdir / 'sampled' / 'samples.jsonl').read_text().splitlines()
  return np.array([json.loads(line)['tokens'] for line in lines]), trained


@pytest.mark.parametrize(
  ('model', 'config', 'sampling'),
  [
    ('mdlm_owt', 'owt_paper.py', 'owt_paper.py'),
    ('mdlm_owt', 'mdlm_owt.py', 'mdlm_owt.py:v6e'),
    ('llada_8b', 'llada_8b.py', 'llada_8b.py:sample'),
    ('dream_7b', 'dream_7b.py', 'dream_7b.py:sample'),
  ],
)
def test_text(model, config, sampling, tmp_path, capsys):
  checkpoint = published(tmp_path, model)
  source = tmp_path / 'train-00000-of-00001.parquet'
  parquet.write_table(pa.table({'text': VERSES}), source)
  tokens, trained = runs_two_steps(
    tiny_run.Program(capsys),
    tmp_path,
    config,
    sampling,
    f'--config.checkpoint={checkpoint}',
    f'--config.plan.model={checkpoint / "config.json"}',
    '--config.data.name=openwebtext',
    f'--config.data.source={source}',
    f'--config.data.directory={tmp_path / "data"}',
    f'--config.data.tokenizer=sentencepiece:{PIECES}',
    '--config.train.accumulate=2',
  )
  # Only ids that a piece has are drawn: no mask, none of the undefined ones behind.
  assert tokens.shape == (3, LENGTH)
  assert tokens.max() < PIECES
  _, before = store.load_model(tmp_path / 'ours')
  description, after = store.load_model(trained)
  assert description.family == model.split('_')[0]
  # Everything is adapted, the new parameters among it.
  for part in ('backbone', 'self_conditioning'):
    assert jax.tree.leaves(after[part])
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(after))
  same = jax.tree.map(np.array_equal, before['backbone'], after['backbone'])
  assert not any(jax.tree.leaves(same))


def test_molecules(tmp_path, capsys):
  program = tiny_run.Program(capsys)
  options = (
    f'--config.data.source={tiny_run.MOLECULES}',
    f'--config.data.directory={tmp_path / "data"}',
    '--config.data.length=32',
    '--config.model.hidden_dim=8',
    '--config.model.num_blocks=2',
    '--config.model.num_heads=2',
    '--config.model.cond_dim=4',
  )
  pretrain, adapt = 'qm9_paper.py:pretrain', 'qm9_paper.py'
  _, base = runs_two_steps(program, tmp_path / '1', pretrain, pretrain, *options)
  tokens, adapted = runs_two_steps(
    program, tmp_path / '2', adapt, adapt, *options, f'--config.checkpoint={base}'
  )
  assert tokens.shape == (3, 32)
  assert store.load_model(base)[1]['self_conditioning'] == {}
  assert jax.tree.leaves(store.load_model(adapted)[1]['self_conditioning'])


def test_genomes(tmp_path, capsys):
  program = tiny_run.Program(capsys)
  (tmp_path / 'species').mkdir()
  (sequence,) = read_fasta(ROOT / 'tests/genomes/E_coli.fna')
  for i, name in enumerate(SETS['ten_species']):
    bases = sequence[i * 600 : (i + 1) * 600].decode()
    (tmp_path / 'species' / f'{name}.fa').write_text(f'>{name}\n{bases}\n')
  options = (
    f'--config.data.source={tmp_path / "species"}',
    f'--config.data.directory={tmp_path / "data"}',
    '--config.model.hidden_dim=8',
    '--config.model.num_blocks=2',
    '--config.model.num_heads=2',
    '--config.model.cond_dim=4',
    '--config.model.window=3',
  )
  first, adapt = 'ten_species_paper.py:base', 'ten_species_paper.py'
  _, base = runs_two_steps(program, tmp_path / '1', first, first, *options)
  tokens, adapted = runs_two_steps(
    program, tmp_path / '2', adapt, adapt, *options, f'--config.checkpoint={base}'
  )
  # The three samples are of the first three species.
  assert tokens.shape == (3, LENGTH)
  assert tokens[:, 0].tolist() == list(get_tokenizer('species:10').class_ids[:3])
  assert store.load_model(base)[0].architecture.window == 3
  assert jax.tree.leaves(store.load_model(adapted)[1]['self_conditioning'])
  figures = program.figures(
    f'--config={ROOT / "configs" / "ten_species_paper.py:classifier"}',
    *(*SMALLER, *options, f'--workdir={tmp_path / "classifier"}'),
  )
  assert figures['steps'] == 2 and 0 <= figures['macro_f1'] <= 1
