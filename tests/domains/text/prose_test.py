"""docs/prose.py: of packages written here, as a program of its own."""

import json
import pathlib
import subprocess
import sys

import pytest

from scmdm_jax.data import documents

SCRIPT = pathlib.Path(__file__).parents[3] / 'docs' / 'prose.py'
PAGE = '<html><head><title>no</title></head><body><p>Why, Mr. {}?</p></body></html>'


LEGS = range(39, -1, -1)


def entry(kind, gloss):
  return f'00001740 {kind} n 01 entity 0 000 | {gloss}  \n'


def unpacked(root):
  """Two pages and two files of WordNet; returns the nouns in order."""
  pages, wordnet = root / 'usr/share/doc/anarchism/html', root / 'usr/share/wordnet'
  pages.mkdir(parents=True)
  wordnet.mkdir()
  for name in ('a', 'b'):
    (pages / f'{name}.html').write_text(PAGE.format(name * 3))
  nouns = [('05', f'a beast of {n} legs; "as big as {n} mice"') for n in LEGS]
  nouns += [('20', 'a herb'), ('04', 'a herb'), ('03', 'of no kind'), ('18', 61 * 'x')]
  licence = '  1 This software | and database is provided to you.\n'
  (wordnet / 'data.noun').write_text(licence + ''.join(entry(*one) for one in nouns))
  (wordnet / 'data.verb').write_text(entry('29', 'to run; "he RAN 3 miles"'))
  (wordnet / 'index.noun').write_text('not read')
  return nouns


def made(source):
  command = [sys.executable, str(SCRIPT), f'--source={source}']
  return subprocess.run(command, capture_output=True, text=True)


def records(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_glosses_letters_and_questions(tmp_path):
  nouns = unpacked(tmp_path)
  done = made(tmp_path)
  assert done.returncode == 0, done.stderr
  glosses = [r['text'] for r in records(tmp_path / 'glosses.jsonl')]
  lines = [gloss for _, gloss in nouns] + ['to run; "he RAN 3 miles"']
  assert glosses == ['\n'.join(x) + '\n' for x in (lines[:32], lines[32:])]
  # A page and a file of WordNet each begin a document.
  first, second, *beasts, last = [
    text for _, text in documents.read([tmp_path / 'letters.jsonl'])
  ]
  assert (first, second) == ('why mr aaa ', 'why mr bbb ')
  assert last == 'to run he ran miles '
  [text] = beasts
  assert text.startswith('a beast of legs as big as mice a beast of legs')
  assert 'software' not in text
  assert f'{sum(map(len, (first, second, text, last)))} letters' in done.stdout
  # Of 40 questions that are asked once, the first and the 21st are held out.
  test = records(tmp_path / 'questions/test.jsonl')
  assert test == [
    {'prompt': f'a beast of {n} legs: what kind?', 'response': 'animal'}
    for n in (19, 39)
  ]
  train = records(tmp_path / 'questions/train.jsonl')
  herbs = [r for r in train if r['prompt'] == 'a herb: what kind?']
  assert [r['response'] for r in herbs] == ['act', 'plant'] and len(train) == 40
  assert not [r for r in train if r in test]
  [asked] = records(tmp_path / 'asked.jsonl')
  assert asked['messages'] == [{'role': 'user', 'content': test[1]['prompt']}]
  assert asked['answer'] == 'animal'


@pytest.mark.parametrize('missing', ['usr/share/doc', 'usr/share/wordnet/data.noun'])
def test_what_is_not_unpacked_is_one_line(tmp_path, missing):
  unpacked(tmp_path)
  (tmp_path / missing).rename(tmp_path / 'elsewhere')
  done = made(tmp_path)
  assert done.returncode == 1 and done.stderr.startswith('error: --source')
  assert (
    missing.rpartition('/')[2] in done.stderr and len(done.stderr.splitlines()) == 1
  )
  assert not list(tmp_path.glob('*.jsonl'))
