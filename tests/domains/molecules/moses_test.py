"""MOSES (Polykovskiy et al. 2020), 1.9 million molecules: read, and learnt from.

Its files come with the package: `pip install --no-deps molsets==0.3.1`, of which
nothing is imported.
"""

import gzip
import importlib.metadata
import itertools
import json
import pathlib

import pytest

from scmdm_jax.domains.molecules import smiles
from tests import tiny_run

NAMES = ('train', 'test', 'test_scaffolds')


def moses():
  """The folder of its files; None where the package is not installed."""
  try:
    package = importlib.metadata.distribution('molsets')
  except importlib.metadata.PackageNotFoundError:
    return None
  return pathlib.Path(str(package.locate_file('moses/dataset/data')))


pytestmark = [
  pytest.mark.long,
  pytest.mark.timeout(1800),
  pytest.mark.skipif(moses() is None, reason='molsets is not installed'),
]

CONFIG = """
from scmdm_jax.settings import default_config

def get_config():
  config = default_config()
  config.data.name = 'molecules'
  config.data.source = {source!r}
  config.data.directory = {data!r}
  config.data.tokenizer = 'smiles'
  config.data.length = 0
  config.model.hidden_dim, config.model.num_blocks = 48, 2
  config.train.num_steps, config.train.warmup_steps = 300, 30
  config.train.learning_rate = 3e-3
  config.train.ema_decay = 0.95
  config.sample.num_samples = config.sample.batch_size = 32
  config.evaluate.num_examples, config.evaluate.repeats = 128, 2
  config.evaluate.carried_steps = (32,)
  return config
"""


def test_all_of_it_is_read():
  folder, census = moses(), smiles.Census()
  assert folder is not None
  counts = {}
  for name in NAMES:
    counts[name] = 0
    for _, text in smiles.read(folder / f'{name}.csv.gz'):
      counts[name] += 1
      census.add(text)
  # As published: 1,584,663 to train on (its paper says 1.6 million), 176 thousand each
  # to test on.
  assert counts['train'] == 1_584_663
  assert counts['test'] > 176_000 and counts['test_scaffolds'] > 176_000
  # C, N, S, O, F, Cl, Br and H only, neutral molecules: a small vocabulary.
  facts = census.facts()
  letters = {piece for piece in facts['pieces'] if piece.strip('[]')[0].isalpha()}
  assert letters == {
    *('Br', 'C', 'Cl', 'F', 'N', 'O', 'S', 'c', 'n', 'o', 's'),
    '[nH]',
    '[H]',
  }
  assert 50 < facts['longest'] < 60


def test_train_sample_and_judge(tmp_path, capsys):
  folder, source = moses(), tmp_path / 'moses'
  assert folder is not None
  source.mkdir()
  for name in NAMES:  # Of every file the first ones: a small test.
    with gzip.open(folder / f'{name}.csv.gz', 'rt') as file:
      lines = ''.join(itertools.islice(file, 3001))
    (source / f'{name}.csv.gz').write_bytes(gzip.compress(lines.encode()))
  config = tmp_path / 'config.py'
  config.write_text(CONFIG.format(source=str(source), data=str(tmp_path / 'data')))
  program = tiny_run.Program(capsys)
  run = f'--config={config}'
  program.figures(run, f'--workdir={tmp_path / "base"}', '--config.method.rate=0.0')
  split = json.loads((tmp_path / 'base/metadata.json').read_text())['data']['split']
  assert split['documents'] == {'train': 3000, 'test': 6000}
  causal = ('--config.model.architecture=llama', '--config.method.objective=causal')
  judge = tmp_path / 'judge'
  program.figures(run, f'--workdir={judge}', *causal)
  found = program.figures(
    *(run, '--mode=evaluate', f'--workdir={tmp_path / "measured"}'),
    *(f'--config.checkpoint={tmp_path / "base"}', f'--config.judge={judge}'),
    '--config.data.tokenizer=checkpoint',
  )
  assert found['held_out_rows'] == 128
  # Uniform over the 31 pieces that occur would be 3.4 nats per position; knowing where
  # the padding begins, and nothing else, half of that (1.26 measured).
  assert 0.3 < found['likelihood']['nelbo_null'] < 1.7
  # So small a model writes no molecules yet: its judge finds its tokens less likely
  # than a guess among all (61 measured), and has to be asked to say so.
  assert found['samples']['generative_perplexity'] > 1
  assert 0 <= found['samples']['valid_rate'] <= 1
  # Sampling needs neither the molecules nor what was prepared of them.
  program.figures(
    *(run, '--mode=sample', f'--workdir={tmp_path / "drawn"}'),
    *(f'--config.checkpoint={tmp_path / "base"}', '--config.data.tokenizer=checkpoint'),
    *('--config.data.source=', f'--config.data.directory={tmp_path / "nowhere"}'),
    '--config.sample.prompt=C<mask>C(=O)N<end>',
  )
  for line in (tmp_path / 'drawn/samples.jsonl').read_text().splitlines():
    text = json.loads(line)['text']
    assert text.startswith('C') and text.endswith('C(=O)N')
    assert len(smiles.pieces(text)) == 8
