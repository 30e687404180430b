"""Data, tokenizer, code and options that change between stop and resume."""

import shutil

import numpy as np
import pytest

from scmdm_jax.checkpoints.training_store import TrainingStore
from scmdm_jax.errors import BadInput
from scmdm_jax.runs import provenance
from tests import tiny_run

MADE = {'data': 'd1', 'tokenizer': 't1', 'code': 'c1'}
STATE = {'x': np.ones(3, np.float32)}


@pytest.mark.parametrize('name', MADE)
def test_what_changed_is_refused_or_taken_on(tmp_path, name, caplog):
  with TrainingStore(tmp_path, 1, provenance=MADE) as steps:
    steps.save(1, STATE, {}, {})
  now = MADE | {name: 'other'}
  with (
    TrainingStore(tmp_path, 1, provenance=now) as steps,
    pytest.raises(BadInput, match=f'1: {name} was .1, now it is other; go on'),
  ):
    steps.restore(1, STATE)
  with TrainingStore(tmp_path, 1, provenance=now, accept=(name,)) as steps:
    steps.restore(1, STATE)
  assert f'{name} was {MADE[name]}, now it is other' in caplog.text
  with TrainingStore(tmp_path, 1, provenance=MADE) as steps:
    steps.restore(1, STATE)


def test_steps_of_older_versions_are_taken(tmp_path):
  with TrainingStore(tmp_path, 1) as steps:
    steps.save(1, STATE, {}, {})
  with TrainingStore(tmp_path, 1, provenance=MADE) as steps:
    steps.restore(1, STATE)


@pytest.mark.slow
def test_an_edited_source_file_is_refused(program, tmp_path, fault):
  config = tiny_run.write_config(tmp_path)
  source = tmp_path / 'molecules.csv'
  shutil.copy(tiny_run.MOLECULES, source)
  options = [
    *(f'--config={config}', f'--workdir={tmp_path / "run"}'),
    f'--config.data.source={source}',
  ]
  program.figures(*options)
  text = source.read_text().splitlines(keepends=True)
  source.write_text(''.join([*text[:1], *text[2:]]))
  message = program.refusal(*options)
  assert f'{tmp_path}/run/checkpoints/6: data was ' in message
  assert 'train.accept_changes' in message
  accepted = '--config.train.accept_changes=("data",)'
  assert program.run(*options, accepted)[0] == 0
  fault('A source file edited between stop and resume', 1, 'exit 2', 'refused by name')


def test_other_options_may_be_taken_on(program, trained, tmp_path):
  config, run = trained
  shutil.copytree(run, tmp_path / 'run')
  options = [f'--config={config}', f'--workdir={tmp_path / "run"}']
  more = '--config.train.num_steps=8'
  assert program.refusal(*options, more).startswith('train.num_steps: found 8')
  program.figures(*options, more, '--config.train.accept_changes=("options",)')
  assert [n for n, *_ in tiny_run.curve(tmp_path / 'run')] == [*range(1, 9)]


class Rows:
  def __init__(self, texts, parts):
    self.texts, self.parts = texts, parts

  def __len__(self):
    return 3


def test_data_digests_differ_where_the_data_do():
  parts = [np.arange(9, dtype=np.uint16), np.arange(4, dtype=np.uint16)]
  first = provenance.data_digest(Rows(('a', 'b'), parts))
  assert first == provenance.data_digest(Rows(('a', 'b'), [x.copy() for x in parts]))
  others = [
    Rows(('ab', ''), parts),
    Rows(('a', 'c'), parts),
    Rows(('a', 'b'), parts[::-1]),
    Rows(('a', 'b'), [parts[0] + 1, parts[1]]),
    Rows(('a', 'b'), [parts[0].astype(np.uint32), parts[1]]),
  ]
  assert len({first, *map(provenance.data_digest, others)}) == 6


def test_large_arrays_are_read_in_pieces(monkeypatch):
  monkeypatch.setattr(provenance, '_MOST_BYTES', 1 << 12)
  data = np.zeros(1 << 14, np.uint8)
  first = provenance.data_digest(Rows((), data))
  for i in (0, data.size - 1):
    data[i] = 1
    assert provenance.data_digest(Rows((), data)) != first
    data[i] = 0
