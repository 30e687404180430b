"""Every published set of texts, as its publisher has it, before a model of nothing.

The files are small; their columns, names and oddities are the published ones.
"""

import json
import pathlib

import jax
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scmdm_jax.checkpoints import store
from scmdm_jax.data.tokenizers import files_at, from_files_for_new_model
from scmdm_jax.data.tokenizers.training import train_sentencepiece
from scmdm_jax.domains import registry
from scmdm_jax.domains.text.options import TextSettings
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.runs import scoring
from tests import tiny_run
from tests.compiling import quick_jit

PROSE = pathlib.Path(__file__).parents[2] / 'acts27.txt'
LENGTH = 12


def parquet_of(path, rows):
  parquet.write_table(pa.Table.from_pylist(rows), path)


def lines_of(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


# Name, file, writer, rows, and what is read of the first document, by hand.
SETS = {
  'wikitext': (
    'test-00000-of-00001.parquet',
    parquet_of,
    [
      {'text': ' = Robert <unk> = \n'},
      {'text': ''},
      {'text': ' He was 1 @,@ 000 @-@ odd ; a "star" . \n'},
    ],
    ' = Robert <unk> =\n',
  ),
  'ptb': (
    'ptb_text_only-test.parquet',
    parquet_of,
    [{'sentence': "no it was n't black monday"}, {'sentence': 'but <unk> N million'}],
    "no it wasn't black monday",
  ),
  'lambada': (
    'lambada_test.jsonl',
    lines_of,
    [{'text': 'In my palm is a clear stone , “he said”\nand lyra is here'}],
    '\nIn my palm is a clear stone , "he said"\nand lyra is here',
  ),
  'ag_news': (
    'test-00000-of-00001.parquet',
    parquet_of,
    [
      {'text': 'Fears for T N pension after talks Unions say', 'label': 2},
      {'text': 'The Race is On: Second Private Team', 'label': 3},
    ],
    'Fears for T N pension after talks Unions say',
  ),
  'pubmed': (
    'test.jsonl',
    lines_of,
    [{'article': 'anxiety affects quality of life ( see 1 ) .', 'abstract': 'x'}],
    'anxiety affects quality of life (see 1) .',
  ),
  'arxiv': (
    'test-00000-of-00001.parquet',
    parquet_of,
    [{'article': 'for about 20 years the problem of @xmath0 .', 'abstract': 'x'}],
    'for about 20 years the problem of @xmath0 .',
  ),
  'lm1b': (
    'test-00000-of-00001.parquet',
    parquet_of,
    [{'text': 'He asked , " Why ? " and it was so .'}, {'text': 'It is true .'}],
    'He asked, "Why?" and it was so.',
  ),
}


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    scoring._compiled.cache_clear()
    yield
    scoring._compiled.cache_clear()


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
  """A SentencePiece model made of other prose."""
  path = tmp_path_factory.mktemp('pieces') / 'tokenizer.model'
  path.write_bytes(train_sentencepiece([PROSE.read_text()], 320))
  return path


def tokenizer_at(path):
  return from_files_for_new_model(files_at(path), causal=False, where=str(path))


def write_set(name, directory):
  file, write, rows, _ = SETS[name]
  write(directory / file, rows)
  return directory / file


@pytest.mark.parametrize('name', SETS)
def test_rows_are_the_text_of_the_set(name, pieces, tmp_path):
  data = TextSettings(
    name=name,
    source=str(write_set(name, tmp_path)),
    directory=str(tmp_path / 'data'),
    length=LENGTH,
    frame=False,
  )
  tokenizer = tokenizer_at(pieces)
  rows = registry.of(data).read_rows(data, tokenizer, 'test')
  read = np.concatenate([rows[i] for i in range(len(rows))])
  assert len(read) == len(rows) * LENGTH
  wanted = SETS[name][3]
  ids = tokenizer.encode_text(wanted)
  shown = min(len(ids), len(read))
  assert read[:shown].tolist() == ids[:shown].tolist()
  assert shown >= LENGTH
  if len(read) > len(ids):
    assert read[len(ids)] == tokenizer.eos_id


@pytest.mark.long
@pytest.mark.parametrize('name', SETS)
def test_a_uniform_model_is_as_perplexed_as_it_has_tokens(
  name, pieces, tmp_path, capsys
):
  tokenizer = tokenizer_at(pieces)
  description = ModelDescription(
    DiTConfig(tokenizer.vocab_size, LENGTH, 16, 1, 2, 8), tokenizer.mask_id, ''
  )
  params = denoiser.init_params(jax.random.key(0), description)
  store.save_model(tmp_path / 'model', description, params, {}, {})
  figures = tiny_run.Program(capsys).figures(
    '--mode=evaluate',
    f'--config={tiny_run.write_config(tmp_path)}',
    f'--workdir={tmp_path / "run"}',
    f'--config.checkpoint={tmp_path / "model"}',
    f'--config.data.name={name}',
    f'--config.data.source={write_set(name, tmp_path)}',
    f'--config.data.tokenizer={pieces}',
    f'--config.data.length={LENGTH}',
    '--config.data.frame=False',
    '--config.evaluate.num_examples=2',
    '--config.evaluate.batch_size=2',
    '--config.evaluate.repeats=1',
    '--config.evaluate.carried_steps=(1,)',
    '--config.sample.num_samples=2',
    '--config.sample.batch_size=2',
    '--config.sample.num_steps=2',
  )
  # In one step everything is masked and revealed; the mask itself is never drawn.
  found = figures['perplexity']['carried_nelbo']['1']
  assert found == pytest.approx(tokenizer.vocab_size - 1, rel=1e-4)


def test_a_literal_mask_is_text(pieces, tmp_path):
  spelt = 'what [MASK] and <mask> and </s> and <|endoftext|> spell'
  lines_of(tmp_path / 'lambada_test.jsonl', [{'text': spelt}])
  data = TextSettings(
    name='text',
    source=str(tmp_path / 'lambada_test.jsonl'),
    directory=str(tmp_path / 'data'),
    length=LENGTH,
    frame=False,
  )
  tokenizer = tokenizer_at(pieces)
  rows = registry.of(data).read_rows(data, tokenizer, 'test')
  read = np.concatenate([rows[i] for i in range(len(rows))])
  assert spelt.startswith(tokenizer.decode(read)) and len(read) > 2 * LENGTH
  special = (tokenizer.mask_id, tokenizer.bos_id, tokenizer.eos_id)
  assert not np.isin(read, special).any()
