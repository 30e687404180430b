"""The whole job on prose: a tokenizer learnt, a model trained, sampled and judged."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from tests import tiny_run
from tests.compiling import quick_jit

PROSE = pathlib.Path(__file__).parents[2] / 'acts27.txt'
_CONFIG = """\
  config.data.name = 'text'
  config.data.length = 16
  config.data.tokenizer = 'sentencepiece:320'
  config.method.rate = 0.0
  config.sample.num_samples = 4
  config.sample.batch_size = 2
  config.sample.num_steps = 4
  config.evaluate.num_examples = 6
  config.evaluate.batch_size = 3
  config.evaluate.repeats = 1
  config.evaluate.carried_steps = (2,)
  return config
"""


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    yield


def write_config(directory, source):
  path = tiny_run.write_config(directory)
  text = path.read_text().replace(str(tiny_run.MOLECULES), str(source))
  path.write_text(text.replace('  return config\n', _CONFIG))
  return path


def documents(directory):
  """Every verse a document, and one that spells out what no document may become."""
  verses = [*PROSE.read_text().split('\n'), 'A literal [MASK], <mask> and </s>.']
  source = directory / 'verses.jsonl'
  source.write_text(''.join(json.dumps({'text': v}) + '\n' for v in verses if v))
  return source


@pytest.mark.long
def test_train_sample_and_evaluate_on_prose(tmp_path, capsys):
  config = write_config(tmp_path, documents(tmp_path))
  program = tiny_run.Program(capsys)
  base, judge = tmp_path / 'base', tmp_path / 'judge'
  program.figures(f'--config={config}', f'--workdir={base}')
  program.figures(
    f'--config={config}',
    f'--workdir={judge}',
    '--config.method.objective=causal',
    '--config.model.architecture=llama',
  )
  # The model brings its tokenizer along; nothing of the data is needed to sample.
  measured = tmp_path / 'measured'
  figures = program.figures(
    '--mode=evaluate',
    f'--config={config}',
    f'--workdir={measured}',
    f'--config.checkpoint={base}',
    f'--config.judge={judge}',
    '--config.data.tokenizer=checkpoint',
  )
  samples = figures['samples']
  assert samples['count'] == 4
  assert 'valid' not in samples
  # Six steps teach little: about as surprised as a uniform model of 321 ids is.
  assert 100 < samples['generative_perplexity'] < 1000
  assert figures['perplexity']['nelbo_null'] == pytest.approx(
    math.exp(figures['likelihood']['nelbo_null'])
  )
  lines = (measured / 'samples.jsonl').read_text().splitlines()
  tokens = np.array([json.loads(line)['tokens'] for line in lines])
  assert tokens.shape == (4, 16) and not (tokens == 320).any()


@pytest.mark.parametrize(
  ('content', 'options', 'message'),
  [
    (b'', [], 'its files are empty; wanted text'),
    (b'caf\xe9', [], r'prose.txt: not UTF-8 at byte 3 (0xe9)'),
    (b'too little ' * 9, [], 'no SentencePiece model of 320 pieces'),
    (b'x' * 99, ['--config.data.tokenizer=text8'], 'train.batch_size: 8 is more than'),
    (b'x' * 99, ['--config.data.source='], 'data.source: not given; dataset text'),
    (b'x' * 99, ['--config.data.tokenizer=smiles_qm9'], 'wanted it for molecules'),
    (b'x' * 99, ['--config.data.tokenizer=sentencepiece:9'], 'pieces from 300'),
  ],
  ids=('empty', 'latin', 'short', 'few', 'sourceless', 'smiles', 'small'),
)
def test_mistakes_are_one_line(tmp_path, capsys, content, options, message):
  source = tmp_path / 'prose.txt'
  source.write_bytes(content)
  config = write_config(tmp_path, source)
  said = tiny_run.Program(capsys).refusal(
    f'--config={config}', f'--workdir={tmp_path / "run"}', *options
  )
  assert message in said
