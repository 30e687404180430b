import dataclasses
import json

import numpy as np
import pytest

from scmdm_jax.data import tokenizers
from scmdm_jax.data.tokenizers.protocol import up_to_end
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from tests.data.tokenizers import tiny

FIRST = len(tiny.bpe_vocabulary())
EOS, BOS, PAD, MASK = range(FIRST, FIRST + 4)
FILES = tiny.files(tiny.bpe())


def load(mask_id=MASK, vocab_size=FIRST + 6, **config):
  files = tiny.files(tiny.bpe(), tiny.CONFIG | config)
  return tokenizers.from_files(
    files, mask_id=mask_id, vocab_size=vocab_size, where='here'
  )


TOKENIZER = load()
LOW = TOKENIZER.encode_text('low').tolist()


def test_special_tokens():
  found = (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id, TOKENIZER.mask_id)
  assert found == (BOS, EOS, PAD, MASK)
  assert TOKENIZER.invisible_ids == (EOS, BOS, PAD)
  assert TOKENIZER.tokens[MASK] == '[MASK]'
  assert TOKENIZER.vocab_size == len(TOKENIZER.tokens) == FIRST + 6


def test_a_text_ends_and_is_padded():
  ids = TOKENIZER.encode('low', len(LOW) + 3)
  assert ids.dtype == np.int32
  assert ids.tolist() == [*LOW, EOS, PAD, PAD]
  assert load(pad_token=None).encode('low', len(LOW) + 2).tolist() == [*LOW, EOS, EOS]
  assert TOKENIZER.encode('low', len(LOW) + 1)[-1] == EOS


def test_too_long_a_text():
  long = 'low ' * 1000
  with pytest.raises(BadInput, match='tokens; wanted at most the length, 8') as caught:
    TOKENIZER.encode(long, 8)
  assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
  ('prompt', 'expected'),
  [
    ('', [MASK] * 9),
    ('low', [*LOW, *[MASK] * (9 - len(LOW))]),
    ('<mask>low', [MASK, *LOW, *[MASK] * (8 - len(LOW))]),
    ('<mask:3>low<mask><end>', [MASK, MASK, MASK, *LOW, MASK, EOS, PAD, PAD, PAD]),
    ('<end>', [EOS, *[PAD] * 8]),
    ('<mask:0><end>', [EOS, *[PAD] * 8]),
    ('<mask: 3>low<mask><end> \n', [MASK, MASK, MASK, *LOW, MASK, EOS, PAD, PAD, PAD]),
    ('[MASK]low', [MASK, *LOW, *[MASK] * (8 - len(LOW))]),
    ('<s>low<|endoftext|>', [BOS, *LOW, EOS, *[PAD] * (7 - len(LOW))]),
  ],
)
def test_prompts(prompt, expected):
  assert TOKENIZER.encode_prompt(prompt, 9).tolist() == (expected + [PAD] * 9)[:9]


def test_a_prompt_without_masks_is_the_text():
  prompt = 'low <tool> x[mask] <|im_start|> lower'
  np.testing.assert_array_equal(
    TOKENIZER.encode_prompt(f'{prompt}<end>', 50), TOKENIZER.encode(prompt, 50)
  )


def test_rows_that_began_with_a_start_are_prompted_with_one():
  framed = dataclasses.replace(TOKENIZER, framed=True)
  for prompt, expected in {
    'low': [BOS, *LOW, *[MASK] * (8 - len(LOW))],
    '<s>low': [BOS, *LOW, *[MASK] * (8 - len(LOW))],
    '<mask:2>low<end>': [BOS, MASK, MASK, *LOW, EOS, *[PAD] * (5 - len(LOW))],
    '': [BOS, *[MASK] * 8],
  }.items():
    assert framed.encode_prompt(prompt, 9).tolist() == expected
  with pytest.raises(BadInput, match='wanted at most the length, 9'):
    framed.encode_prompt('<mask:9>', 9)
  # The end stands for a start that there is not, as in packed rows.
  framed = dataclasses.replace(load(bos_token=None), framed=True)
  assert framed.encode_prompt('low', 9).tolist()[: 1 + len(LOW)] == [EOS, *LOW]
  # Texts alone stay as they are.
  assert framed.encode_text('low').tolist() == LOW


def test_prompts_that_cannot_be():
  for count in ('10', '999999999', '9999999999', '9' * 9999):
    with pytest.raises(BadInput, match='wanted at most the length, 9'):
      TOKENIZER.encode_prompt(f'<mask:{count}>', 9)
  for near in ('<mask:-1>', '<mask:x>', 'a [PAD]', 'low <|endoftext|> low', '<end'):
    with pytest.raises(BadInput, match='neither text nor markup'):
      TOKENIZER.encode_prompt(f'low {near}', 50)
  with pytest.raises(BadInput, match='no mask'):
    load(mask_id=None).encode_prompt('low', 9)


def test_decode_hides_the_frame_and_shows_a_mask():
  assert TOKENIZER.decode([BOS, *LOW, MASK, *LOW, EOS, PAD]) == 'low[MASK]low'
  with pytest.raises(ValueError, match='is not in'):
    TOKENIZER.decode([FIRST + 6])
  with pytest.raises(ValueError, match='-1 is not in'):
    TOKENIZER.decode([-1])


def test_decode_shows_where_a_text_ends_and_another_begins():
  end = '<|endoftext|>'
  for ids, expected in {
    (BOS, *LOW, EOS, *LOW, EOS): f'low{end}low',
    (*LOW, EOS, BOS, *LOW): f'low{end}low',
    (*LOW, EOS, EOS, PAD, EOS, *LOW): f'low{end}low',
    (*LOW, BOS, *LOW, PAD): f'low{end}low',
    (EOS, EOS, *LOW, EOS, EOS, PAD): 'low',
    (*LOW, PAD, *LOW): 'lowlow',  # Padding ends nothing.
    (BOS, EOS, PAD): '',
    (): '',
  }.items():
    assert TOKENIZER.decode(ids) == expected
  padded_with_ends = load(pad_token=None)
  assert padded_with_ends.decode([*LOW, EOS, EOS]) == 'low'
  assert padded_with_ends.decode([*LOW, EOS, *LOW]) == f'low{end}low'


def test_an_answer_ends_where_the_model_ended_it():
  samples = np.array(
    [
      [BOS, 7, 8, EOS, 9, EOS],  # The prompt is two tokens long.
      [BOS, 7, 8, 9, 9, 9],
      [BOS, EOS, 8, 9, 9, EOS],  # An end inside the prompt is the prompt's.
      [BOS, 7, EOS, 9, EOS, 8],
      [BOS, 7, EOS, 9, 5, EOS],  # Infilled: given up to the fifth token.
      [BOS, 7, EOS, 9, EOS, 8],  # Not prompted.
    ]
  )
  starts = np.full_like(samples, MASK)
  starts[:4, :2] = samples[:4, :2]
  starts[4, [0, 1, 4]] = samples[4, [0, 1, 4]]
  found = up_to_end(samples, starts, TOKENIZER)
  assert found.tolist() == [
    [BOS, 7, 8, EOS, PAD, PAD],
    [BOS, 7, 8, 9, 9, 9],
    [BOS, EOS, 8, 9, 9, EOS],
    [BOS, 7, EOS, PAD, PAD, PAD],
    [BOS, 7, EOS, 9, 5, EOS],
    [BOS, 7, EOS, 9, EOS, 8],
  ]
  text8 = registry.get_tokenizer('text8')  # Has no end.
  np.testing.assert_array_equal(up_to_end(samples, starts, text8), samples)


def test_a_padded_embedding_leaves_ids_undefined():
  last = FIRST + 6  # Five specials and the ordinary one.
  padded = load(mask_id=last + 2, vocab_size=last + 10, mask_token=None)
  assert padded.undefined_ids == ((last, last + 2), (last + 3, last + 10))
  assert padded.tokens[last + 2] == '<mask>'
  assert padded.decode([*LOW, last + 2]) == 'low<mask>'
  assert load().undefined_ids == ()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'vocab_size': FIRST},
      f"token '<tool>' has id {FIRST + 5}; the model has {FIRST} ids",
    ),
    ({'mask_id': EOS, 'mask_token': None}, f'is {EOS}, which is its eos token'),
    ({'mask_id': BOS, 'mask_token': None}, f'is {BOS}, which is its bos token'),
    (
      {'mask_id': PAD, 'mask_token': None},
      f'is {PAD}, which is its pad token; wanted an id of its own: name',
    ),
    ({'mask_id': EOS}, f'is {EOS}, that of the tokenizer {MASK}; wanted the same'),
    ({'mask_id': 3, 'mask_token': None}, "which is the ordinary token '"),
    ({'mask_id': 9999, 'mask_token': None}, f'is 9999; wanted one of its {FIRST + 6}'),
    ({'mask_id': -1, 'mask_token': None}, 'is -1; wanted one of'),
    ({'eos_token': None}, 'no token ends a text; wanted eos_token'),
    ({'eos_token': '<none>'}, "eos_token is '<none>', which is none of its"),
  ],
  ids=str,
)
def test_tokenizers_that_do_not_fit_the_model(arguments, message):
  with pytest.raises(BadInput) as caught:
    load(**arguments)
  assert str(caught.value).startswith('here/tokenizer.json: ')
  assert message in str(caught.value)


def test_a_new_model_takes_the_mask_of_the_tokenizer_or_one_id_more():
  def new(causal=False, **config):
    files = tiny.files(tiny.bpe(), tiny.CONFIG | config)
    return tokenizers.from_files_for_new_model(files, causal=causal, where='here')

  assert (new().mask_id, new().vocab_size) == (MASK, FIRST + 6)
  extra = new(mask_token=None)
  assert (extra.mask_id, extra.vocab_size) == (FIRST + 6, FIRST + 7)
  assert extra.undefined_ids == ()
  judge = new(causal=True)
  assert (judge.mask_id, judge.vocab_size) == (None, FIRST + 6)


def test_built_in_names():
  for name in ('smiles_qm9', 'dna', 'text8'):
    assert registry.get_tokenizer(name).name == name
  with pytest.raises(BadInput, match=r"'smiles' is not known.*'dna', .*'smiles_qm9'"):
    registry.get_tokenizer('smiles')


def test_files_of_a_directory(tmp_path):
  for name in (*FILES, 'config.json', 'model.safetensors', 'vocab.json'):
    (tmp_path / name).write_bytes(FILES.get(name, b'{}'))
  found = tokenizers.collect(tmp_path)
  assert sorted(found) == ['tokenizer.json', 'tokenizer_config.json', 'vocab.json']
  assert all(path.parent == tmp_path for path in found.values())
  assert tokenizers.collect(tmp_path / 'none') == {}
  assert tokenizers.files_at(tmp_path) == found
  by_file = tokenizers.files_at(tmp_path / 'tokenizer.json')
  assert sorted(by_file) == sorted(FILES)
  read = tokenizers.from_files(
    by_file, mask_id=MASK, vocab_size=FIRST + 6, where=str(tmp_path)
  )
  assert read.fingerprint == TOKENIZER.fingerprint
  with pytest.raises(BadInput, match='no file or directory'):
    tokenizers.files_at(tmp_path / 'none')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(BadInput, match=r'no tokenizer file; wanted tokenizer\.json'):
    tokenizers.files_at(tmp_path / 'empty')


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({}, 'found no tokenizer file'),
    ({'a.model': b'', 'b.model': b''}, r'found a\.model, b\.model; wanted'),
    ({'vocab.json': b'{"a": 0}'}, r'merges\.txt: no such file'),
    ({'tokenizer.json': b'[]'}, r'tokenizer\.json: a JSON list, wanted an object'),
    ({'tokenizer.json': b'{"model"'}, r'tokenizer\.json: not JSON'),
    ({'tokenizer.json': b'[' * 100_000}, r'tokenizer\.json: not JSON'),
    (
      {**FILES, 'special_tokens_map.json': b'\xff'},
      r'special_tokens_map\.json: not JS',
    ),
    (
      {**FILES, 'added_tokens.json': b'{"x": "1"}'},
      r"added_tokens\.json: .*'x' has the",
    ),
    (
      {**FILES, 'added_tokens.json': json.dumps({'x': EOS}).encode()},
      r"tokenizer\.json: id 268 is '<|endoftext|>' and 'x'",
    ),
    (
      {**FILES, 'tokenizer_config.json': b'{"eos_token": 3}'},
      r'tokenizer_config\.json: eos_token is 3, wanted a text',
    ),
  ],
)
def test_files_that_are_none(files, message):
  with pytest.raises(BadInput, match=message) as caught:
    tokenizers.from_files(files, mask_id=None, vocab_size=999, where='here')
  assert '\n' not in str(caught.value)
