"""Damaged files of tokenizers: a clean error or a tokenizer, and never a special id."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data.tokenizers import from_files, from_files_for_new_model
from scmdm_jax.data.tokenizers.training import train_sentencepiece
from scmdm_jax.errors import BadInput, DamagedData
from tests.data.tokenizers import tiny

FUZZ = settings(max_examples=150, deadline=None, derandomize=True)
MERGES = '\n'.join(' '.join(pair) for pair in tiny.MERGES)
VOCABULARY = tiny.bpe_vocabulary()
CONFIG = tiny.CONFIG | {
  'mask_token': None,
  'added_tokens_decoder': {'300': {'content': '<x>', 'special': True}},
  'extra_special_tokens': ['<y>'],
  'cls_token': {'content': '<z>'},
}
SIDE = {
  'tokenizer_config.json': json.dumps(CONFIG).encode(),
  'special_tokens_map.json': json.dumps(CONFIG).encode(),
  'added_tokens.json': b'{"<q>": 301, "<r>": 302}',
}
WHOLE = {
  'json': tiny.files(tiny.bpe()) | SIDE,
  'words': tiny.files(tiny.word_level()) | SIDE,
  'unigram': tiny.files(tiny.unigram()) | SIDE,
  'merges': {
    'vocab.json': json.dumps(VOCABULARY | {'<|endoftext|>': 268}).encode(),
    'merges.txt': f'#version: 0.2\n{MERGES}\n'.encode(),
    'tokenizer_config.json': b'{}',
  },
  'sentencepiece': {
    'tokenizer.model': train_sentencepiece([tiny.TEXT] * 20, 310),
    'tokenizer_config.json': b'{"eos_token": "</s>"}',
  },
}
TEXTS = ('low <s> [PAD] \u65e5\n\x00 \u00e9', '', 'a' * 50)
ODD = st.sampled_from(
  [
    *(None, True, 0, -1, 2**31, 2**63, 1e308, '', 'a', '<s>', '\ud800', 'x' * 10_000),
    *([], {}, [[]], {'a': 1}, ['a'], {'type': 'BPE'}, {'Regex': '('}, {'String': ''}),
    {'type': 'Precompiled', 'precompiled_charsmap': 'AAAA'},
    {'type': 'Replace', 'pattern': {'String': ''}, 'content': 'x'},
    {'type': 'FixedLength', 'length': 0},
    {'type': 'WordPiece', 'prefix': '##', 'cleanup': True},
    {'type': 'CTC', 'pad_token': '', 'word_delimiter_token': '', 'cleanup': True},
  ]
)


def check(files, mask):
  """One error of ours, of one line of bounded length, or a tokenizer that works."""
  try:
    tokenizer = (
      from_files_for_new_model(files, causal=False, where='here')
      if mask is None
      else from_files(files, mask_id=mask, vocab_size=400, where='here')
    )
    for text in TEXTS:
      ids = tokenizer.encode_text(text).tolist()
      assert not {tokenizer.mask_id, *tokenizer.invisible_ids} & set(ids)
      assert isinstance(tokenizer.decode(ids), str)
  except BadInput as error:
    assert '\n' not in str(error)
    assert len(str(error)) < 1500
    return error
  return None


@pytest.mark.parametrize('kind', WHOLE)
def test_whole_files_are_read(kind):
  assert check(WHOLE[kind], 399) is None


@pytest.mark.parametrize('kind', WHOLE)
@FUZZ
@given(st.data())
def test_altered_bytes(kind, data):
  files = dict(WHOLE[kind])
  name = data.draw(st.sampled_from(sorted(files)))
  content = files[name]
  start = data.draw(st.integers(0, len(content)))
  cut = data.draw(st.integers(0, 40))
  noise = data.draw(st.binary(max_size=12))
  files[name] = content[:start] + noise + content[start + cut :]
  check(files, data.draw(st.sampled_from([None, 300, 399])))


@pytest.mark.parametrize('kind', WHOLE)
@FUZZ
@given(st.data())
def test_any_bytes(kind, data):
  files = dict(WHOLE[kind])
  files[data.draw(st.sampled_from(sorted(files)))] = data.draw(st.binary(max_size=60))
  check(files, data.draw(st.sampled_from([None, 300, 399])))


def paths(value, path=()):
  """Where there is something in a JSON value, but for long lists and objects."""
  yield path
  items = value.items() if isinstance(value, dict) else enumerate(value)
  for key, inner in list(items)[:12] if isinstance(value, dict | list) else ():
    if isinstance(inner, dict | list):
      yield from paths(inner, (*path, key))
    else:
      yield (*path, key)


@pytest.mark.parametrize('kind', ['json', 'words', 'unigram'])
@FUZZ
@given(st.data())
def test_other_values_of_fields(kind, data):
  files = dict(WHOLE[kind])
  name = data.draw(st.sampled_from([*SIDE, *['tokenizer.json'] * 3]))
  value = json.loads(files[name])
  for _ in range(data.draw(st.integers(1, 2))):
    path = data.draw(st.sampled_from([p for p in paths(value) if p]))
    node = value
    for key in path[:-1]:
      node = node[key]
    node[path[-1]] = json.loads(json.dumps(data.draw(ODD)))
  files[name] = json.dumps(value).encode()
  check(files, data.draw(st.sampled_from([None, 300, 399])))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('pre_tokenizer', {'type': 'FixedLength', 'length': 0}),
    ('normalizer', {'type': 'Precompiled', 'precompiled_charsmap': 'AAAA'}),
  ],
)
def test_what_makes_the_library_panic_is_one_error(field, value, capfd):
  """A panic is no `Exception`, and writes a report of its own to standard error."""
  error = check(tiny.files(tiny.bpe() | {field: value}), None)
  assert isinstance(error, DamagedData)
  assert 'not a tokenizer that the library' in str(error)
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('kind', ['json', 'words', 'sentencepiece'])
def test_an_id_far_beyond_the_others_takes_no_time(kind):
  config = {'eos_token': '<x>', 'added_tokens_decoder': {}}
  config['added_tokens_decoder'][str(2**24 - 1)] = {'content': '<x>', 'special': True}
  files = dict(WHOLE[kind], **{'tokenizer_config.json': json.dumps(config).encode()})
  started = time.process_time()
  for mask in (None, 399):
    error = check(files, mask)
    assert error is not None and '16777215' in str(error)
  assert time.process_time() - started < 5
