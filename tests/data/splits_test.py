"""Splits by the names of files, or by content."""

import hashlib
import pathlib

import numpy as np
import pytest

from scmdm_jax.data import journal, splits
from scmdm_jax.errors import BadInput

ROOT = pathlib.Path('/train/test')  # What lies above a source says nothing.


def named(names):
  found, rule = splits.named([ROOT / name for name in names], ROOT)
  plain = {k: [str(p.relative_to(ROOT)) for p in v] for k, v in found.items()}
  return plain, rule


@pytest.mark.parametrize(
  ('names', 'train', 'test'),
  [
    (
      ['data/train-00000-of-00001.parquet', 'data/test-00000-of-00001.parquet'],
      ['data/train-00000-of-00001.parquet'],
      ['data/test-00000-of-00001.parquet'],
    ),
    (['train.txt', 'validation.txt'], ['train.txt'], ['validation.txt']),
    (['TRAIN.txt', 'Dev.txt'], ['TRAIN.txt'], ['Dev.txt']),
    (['my_training.txt', 'my_eval.txt'], ['my_training.txt'], ['my_eval.txt']),
    (['train.txt', 'evaluation.txt'], ['train.txt'], ['evaluation.txt']),
    (['w.train.raw', 'w.valid.raw', 'w.test.raw'], ['w.train.raw'], ['w.test.raw']),
    (
      ['train1.txt', 'train2.txt', 'val1.txt'],
      ['train1.txt', 'train2.txt'],
      ['val1.txt'],
    ),
    (['train/a.txt', 'test/b.txt'], ['train/a.txt'], ['test/b.txt']),
    # Where every file lies in such a folder, what the files are called says nothing.
    (['train/crash-test.txt', 'dev/x.txt'], ['train/crash-test.txt'], ['dev/x.txt']),
    (['en/train/a.txt', 'en/test/a.txt'], ['en/train/a.txt'], ['en/test/a.txt']),
    # Some by folder, some by name.
    (['train/a.txt', 'test.txt'], ['train/a.txt'], ['test.txt']),
    (['lambada_test.jsonl'], None, ['lambada_test.jsonl']),
    (
      ['train-00000.txt', 'train-00001.txt'],
      ['train-00000.txt', 'train-00001.txt'],
      None,
    ),
    (['latest.txt', 'strained.txt', 'contest.txt', 'devil.txt'], None, None),
    (['train_and_test.txt'], None, None),  # One file of both is cut by content.
  ],
)
def test_splits_that_names_say(names, train, test):
  wanted = {k: v for k, v in (('train', train), ('test', test)) if v is not None}
  assert named(names)[0] == wanted


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (['train.txt', 'essay.txt'], r'essay\.txt names no split, and train\.txt train'),
    (['test/a.txt', 'a.txt'], r'a\.txt names no split, and test/a\.txt test'),
    (['train.txt', 'test-train.txt'], r'test-train\.txt names test and train'),
    (['a/train/test/x.txt', 'b/y.txt'], r'x\.txt names test and train'),
  ],
)
def test_what_cannot_be_decided_is_refused_by_name(names, message):
  with pytest.raises(BadInput, match=message):
    named(names)


def test_the_rule_says_what_is_left_out():
  rule = named(['train.txt', 'valid.txt', 'test.txt'])[1]
  assert rule == "files name the split: test is 'test', 'validation' left out"
  rule = named(['train/a.txt', 'val/b.txt'])[1]
  assert rule == "folders name the split: test is 'validation'"


@pytest.mark.parametrize(
  ('name', 'data'),
  [
    *((name, False) for name in ('README.md', 'readme.txt', 'README_en.md', 'LICENSE')),
    *((name, False) for name in ('LICENCE.txt', 'dataset_infos.json', 'state.json')),
    *((name, False) for name in ('requirements.txt', 'SHA256SUMS.txt', 'NOTICE')),
    *(
      (name, True) for name in ('read.txt', 'index.html', 'state.txt', 'license.jsonl')
    ),
    *((name, True) for name in ('licensed_texts.txt', 'metadata.jsonl', 'noticed.txt')),
  ],
)
def test_cards_and_licences_are_no_data(name, data):
  assert splits.is_data(pathlib.Path(name)) == data


def test_five_percent_by_content():
  texts = [str(i) for i in range(100)]
  keys = np.array([splits.key(text) for text in texts], np.uint64)
  held_out = splits.by_content(keys, ROOT)
  digests = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
  assert {texts[i] for i in np.flatnonzero(held_out)} == set(digests[:5])
  with pytest.raises(BadInput, match='all 3 documents are the same'):
    splits.by_content(keys[[1, 1, 1]], ROOT)


def test_a_report_is_said_once_and_kept(capsys, monkeypatch):
  # What tests before it noted is not its own.
  monkeypatch.setattr(journal, '_entries', {})
  monkeypatch.setattr(journal, '_unsaid', {})
  facts = {'rule': 'by hand', 'left_out': list('abcdefg'), 'left_out_count': 9}
  for _ in range(2):
    splits.report(facts, {'train': 3, 'test': 1})
    journal.say()
  wanted = 'split: by hand; 3 train, 1 test; not read: a, b, c, d, e and 4 more\n'
  assert capsys.readouterr().err == wanted
  kept = journal.entries()['split']
  assert kept['documents'] == {'train': 3, 'test': 1}
