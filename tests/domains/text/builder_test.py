import json
import os
import pathlib

import pyarrow as pa
import pytest
from pyarrow import parquet

from scmdm_jax.data import journal, sources
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.domains.text import builder, rows
from scmdm_jax.errors import BadInput, DamagedData


def write_lines(path, texts, field='text'):
  lines = [json.dumps({field: text}) + '\n' for text in texts]
  path.write_text(''.join(lines))
  return path


def read(name, directory, split, source):
  return rows.documents(DataSettings(name, str(directory), str(source)), split)


def splits(name, tmp_path, source):
  return [
    list(read(name, tmp_path / 'data', split, source).texts())
    for split in ('train', 'test')
  ]


def prepare(name, directory, source=''):
  data = DataSettings(name, str(directory), str(source))
  return pathlib.Path(rows.prepared(data).data_dir)


def test_documents_are_held_out_by_content(tmp_path):
  texts = [f'document {i}' for i in range(40)]
  train, test = splits('text', tmp_path, write_lines(tmp_path / 'a.jsonl', texts))
  assert len(test) == 2
  assert [text for text in texts if text not in test] == train  # In their order.
  # In another order and twice, the same are held out, with all their copies.
  source = write_lines(tmp_path / 'b.jsonl', [*reversed(texts), *texts])
  train, again = splits('text', tmp_path, source)
  assert sorted(again) == sorted([*test, *test])
  assert not set(train) & set(again)


def test_splits_that_the_files_name(tmp_path):
  source = tmp_path / 'set'
  source.mkdir()
  write_lines(source / 'train.jsonl', ["it 's N", 'two'], 'sentence')
  write_lines(source / 'test.jsonl', ['<unk> N N'], 'sentence')
  write_lines(source / 'validation.jsonl', ['left out'], 'sentence')
  assert splits('ptb', tmp_path, source) == [["it's N", 'two'], ['? 1 N']]


def test_a_test_set_alone(tmp_path):
  source = write_lines(tmp_path / 'lambada_test.jsonl', ['“a” '])
  data = tmp_path / 'data'
  assert list(read('lambada', data, 'test', source).texts()) == ['\n"a"']
  with pytest.raises(BadInput, match=r"'train' is not in .*choose from \['test'\]"):
    read('lambada', data, 'train', source)


def test_an_only_document_is_cut_as_text8_is(tmp_path):
  # 200 characters: 180 to train, 10 of validation that nobody asks for, 10 to test.
  text = ''.join(chr(ord('a') + i % 26) for i in range(200))
  (tmp_path / 'text8').write_text(text)
  assert splits('text8', tmp_path, tmp_path / 'text8') == [[text[:180]], [text[190:]]]


def test_the_last_documents_of_openwebtext_are_held_out(tmp_path, monkeypatch):
  monkeypatch.setattr(builder, '_OPENWEBTEXT_HELD_OUT', 3)
  texts = [str(i) for i in range(10)]
  source = write_lines(tmp_path / 'a.jsonl', texts)
  assert splits('openwebtext', tmp_path, source) == [texts[:7], texts[7:]]


def test_changed_files_are_prepared_anew(tmp_path):
  source = write_lines(tmp_path / 'a.jsonl', ['one', 'two'])
  first = prepare('text', tmp_path / 'data', source)
  assert prepare('text', tmp_path / 'data', source) == first
  state = source.stat()
  write_lines(source, ['one', 'six'])
  os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
  assert prepare('text', tmp_path / 'data', source) != first
  train, test = splits('text', tmp_path, source)
  assert sorted(train + test) == ['one', 'six']


def test_documents_pass_by_in_blocks(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, '_BLOCK', 3)
  texts = [str(i) for i in range(8)]
  write_lines(tmp_path / 'test.jsonl', texts)
  opened = read('text', tmp_path / 'data', 'test', tmp_path / 'test.jsonl')
  assert opened.count == 8
  for _ in range(2):
    assert list(opened.texts()) == texts


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    ([], 'its files are empty'),
    (['', ' \n'], 'its files are empty'),
    (['same', 'same'], 'all 2 documents are the same'),
    (['x'], '1 characters of text'),
  ],
)
def test_sets_that_cannot_be_split(tmp_path, texts, message):
  source = write_lines(tmp_path / 'a.jsonl', texts)
  with pytest.raises(BadInput, match=message) as caught:
    prepare('text', tmp_path / 'data', source)
  assert '\n' not in str(caught.value)


def test_a_set_without_a_source_says_what_it_wants(tmp_path):
  with pytest.raises(BadInput, match=r'data\.source: not given; .*ptb_text_only'):
    prepare('ptb', tmp_path)


def test_damage_names_the_directory_to_delete(tmp_path):
  source = write_lines(tmp_path / 'a.jsonl', [str(i) for i in range(40)])
  directory = prepare('text', tmp_path / 'data', source)
  (path,) = directory.glob('*train.array_record*')
  path.write_bytes(path.read_bytes()[:50])
  with pytest.raises(DamagedData, match='delete this directory'):
    splits('text', tmp_path, source)


def test_a_data_set_that_tfds_prepared_is_a_source(tmp_path, monkeypatch):
  monkeypatch.setattr(builder, '_BLOCK', 2)
  texts = [f'It is {word} .' for word in ('one', 'two', 'three', 'four', 'five')]
  (tmp_path / 'a').mkdir()
  write_lines(tmp_path / 'a' / 'train.jsonl', texts)
  write_lines(tmp_path / 'a' / 'test.jsonl', ['So : it is'])
  prepared = prepare('text', tmp_path / 'theirs', tmp_path / 'a')
  expected = [[text.replace(' .', '.') for text in texts], ['So: it is']]
  assert splits('lm1b', tmp_path, prepared) == expected
  with pytest.raises(BadInput, match=r"no feature article; found \['text'\]"):
    prepare('arxiv', tmp_path / 'data', prepared)
  info = prepared / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(BadInput, match='prepared as tfrecord; wanted array_record'):
    prepare('lm1b', tmp_path / 'data', prepared)
  info.write_text('{')
  with pytest.raises(DamagedData, match='not a data set of TFDS'):
    prepare('lm1b', tmp_path / 'data', prepared)


def test_a_folder_of_the_hub_keeps_its_split(tmp_path, capsys):
  source = tmp_path / 'set'
  (source / 'data').mkdir(parents=True)
  (source / 'README.md').write_text('# A card\n')
  parts = {
    'train': [f'train {i}' for i in range(80)],
    'test': [f't {i}' for i in range(20)],
  }
  for name, texts in parts.items():
    table = pa.table({'text': texts})
    parquet.write_table(table, source / 'data' / f'{name}-00000-of-00001.parquet')
  assert splits('text', tmp_path, source) == [parts['train'], parts['test']]
  kept = journal.entries()['split']
  assert kept['rule'] == "files name the split: test is 'test'"
  assert kept['documents'] == {'train': 80, 'test': 20}
  assert kept['left_out'] == ['README.md']
  journal.say()
  assert '80 train, 20 test; not read: README.md' in capsys.readouterr().err
  # Undecidable: one more file, which names none.
  (source / 'data' / 'more.txt').write_text('more')
  with pytest.raises(BadInput, match=r'more\.txt names no split'):
    prepare('text', tmp_path / 'data', source)


def test_a_document_is_found_in_its_file(tmp_path):
  write_lines(tmp_path / 'a.jsonl', ['one', 'two', 'three'])
  config = builder.config_of('text', tmp_path / 'a.jsonl')
  assert builder.find(config, 'two') == f'{tmp_path / "a.jsonl"}: line 2'
