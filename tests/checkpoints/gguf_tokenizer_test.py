import io
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers

from scmdm_jax.checkpoints.gguf_tokenizer import tokenizer_files
from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.errors import BadInput, DamagedData
from tests.checkpoints import tiny_gguf as tiny

FIELDS = {
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': 'smollm',
  'tokenizer.ggml.tokens': tiny.TOKENS,
  'tokenizer.ggml.token_type': np.array(tiny.TYPES, np.int32),
  'tokenizer.ggml.merges': tiny.MERGES,
  'tokenizer.ggml.bos_token_id': 0,
  'tokenizer.ggml.eos_token_id': 0,
}


def rebuilt(**changed):
  fields = FIELDS | {f'tokenizer.ggml.{name}': v for name, v in changed.items()}
  files = tokenizer_files(fields, 'model.gguf')
  text = files['tokenizer.json'].decode()
  return tokenizers.Tokenizer.from_str(text), json.loads(files['tokenizer_config.json'])


def test_tokens_keep_their_ids_and_text_its_bytes():
  tokenizer, config = rebuilt()
  # By hand: 'ab' merges, ' ab' merges, every digit stands alone.
  for text, ids in {
    'ab': [7],
    'ab ab': [7, 8],
    'a b': [1, 4, 2],
    'c12': [3, 5, 6],
    'abc<end>': [7, 3, 0],
    'd<say>': [11, 9],
  }.items():
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
  # The padding of the table is no token.
  assert tokenizer.get_vocab() == {
    token: i for i, token in enumerate(tiny.TOKENS) if token != '[PAD10]'
  }
  assert config['bos_token'] == config['eos_token'] == '<end>'
  assert 'pad_token' not in config
  assert config['add_bos_token'] is False


def pieces(pre, text):
  """How `text` is cut into words, by a tokenizer that knows single characters only."""
  alphabet = sorted({c for c in tokenizers.pre_tokenizers.ByteLevel.alphabet()})
  tokenizer, _ = rebuilt(
    pre=pre,
    tokens=alphabet,
    token_type=np.ones(len(alphabet), np.int32),
    merges=[],
    bos_token_id=None,
    eos_token_id=None,
  )
  assert tokenizer.decode(tokenizer.encode(text).ids) == text
  cut = tokenizer.pre_tokenizer.pre_tokenize_str(text)
  return [text[start:stop] for _, (start, stop) in cut]


# By hand from the patterns the models are published with.
@pytest.mark.parametrize(
  ('pre', 'wanted'),
  [
    ('gpt-2', ['I', "'m", ' 12345', '\n\n', ' (', 'ok', ')']),
    ('smollm', ['I', "'m", ' ', '1', '2', '3', '4', '5', '\n\n', ' (', 'ok', ')']),
    ('llama-bpe', ['I', "'m", ' ', '123', '45', '\n\n', ' (', 'ok', ')']),
    ('qwen2', ['I', "'m", ' ', '1', '2', '3', '4', '5', '\n\n', ' (', 'ok', ')']),
  ],
)
def test_text_is_cut_as_the_name_says(pre, wanted):
  assert pieces(pre, "I'm 12345\n\n (ok)") == wanted


@pytest.mark.parametrize(
  ('changed', 'error', 'line'),
  [
    ({'model': 't5'}, BadInput, "tokenizer.ggml.model is 't5'; only 'gpt2'"),
    ({'model': None}, BadInput, 'tokenizer.ggml.model is None'),
    ({'pre': 'gpt-4o'}, BadInput, "pre is 'gpt-4o'; wanted one of gpt-2, smollm"),
    ({'pre': np.ones(2)}, BadInput, 'wanted one of gpt-2'),
    ({'tokens': None}, DamagedData, 'no list of strings in tokenizer.ggml.tokens'),
    ({'tokens': ['a'] * 12}, DamagedData, 'a token twice'),
    ({'tokens': ['a']}, DamagedData, 'for each of 1 tokens'),
    ({'token_type': np.ones(12)}, DamagedData, 'a whole number for each of 12'),
    ({'token_type': 'x'}, DamagedData, 'a whole number for each of 12'),
    ({'merges': ['a b', 'x y']}, DamagedData, 'merges do not fit'),
    ({'merges': ['ab']}, DamagedData, 'merges do not fit'),
    ({'merges': None}, DamagedData, 'no list of strings in tokenizer.ggml.merges'),
    ({'eos_token_id': 12}, DamagedData, 'eos_token_id is 12; wanted an id below 12'),
    ({'bos_token_id': 'x'}, DamagedData, "bos_token_id is 'x'"),
  ],
)
def test_what_does_not_fit_is_named(changed, error, line):
  with pytest.raises(error, match=line) as caught:
    rebuilt(**changed)
  assert type(caught.value) is error
  assert str(caught.value).startswith('model.gguf: ')
  assert '\n' not in str(caught.value)


TEXT = 'low lower lowest new newer newest wide wider widest'


@pytest.fixture(scope='module')
def trained():
  """A SentencePiece model like Llama 2's, by the library's own trainer."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([TEXT, *TEXT.split()] * 20),
    model_writer=model,
    model_type='bpe',
    vocab_size=300,
    hard_vocab_limit=False,
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    user_defined_symbols=['<say>'],
    minloglevel=2,
  )
  return model.getvalue()


def sentencepiece_fields(model):
  """What GGUF keeps of a SentencePiece model: pieces, scores, types, ids."""
  library = sentencepiece.SentencePieceProcessor(model_proto=model)
  ids = range(library.get_piece_size())
  questions = (  # Types 2 to 6 of the format, in its order; anything else is 1.
    (2, library.is_unknown),
    (3, library.is_control),
    (5, library.is_unused),
    (6, library.is_byte),
  )
  types = [next((kind for kind, ask in questions if ask(i)), 1) for i in ids]
  types[library.piece_to_id('<say>')] = 4
  return {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': [library.id_to_piece(i) for i in ids],
    'tokenizer.ggml.scores': np.array([library.get_score(i) for i in ids], np.float32),
    'tokenizer.ggml.token_type': np.array(types, np.int32),
    'tokenizer.ggml.bos_token_id': library.bos_id(),
    'tokenizer.ggml.eos_token_id': library.eos_id(),
    'tokenizer.ggml.unknown_token_id': library.unk_id(),
  }


def test_sentencepiece_gives_the_ids_of_the_model_it_was(trained):
  wanted = sentencepiece.SentencePieceProcessor(model_proto=trained)
  files = tokenizer_files(sentencepiece_fields(trained), 'model.gguf')
  found = sentencepiece.SentencePieceProcessor(model_proto=files['tokenizer.model'])
  assert json.loads(files['tokenizer_config.json'])['eos_token'] == '</s>'
  assert (found.bos_id(), found.eos_id(), found.pad_id(), found.unk_id()) == (
    *(wanted.bos_id(), wanted.eos_id(), wanted.pad_id(), wanted.unk_id()),
  )
  for text in (TEXT, ' newer  lower ', 'slow <say> 東京\n🙂', '', 'wwwiiidest'):
    ids = wanted.encode(text)
    assert found.encode(text) == ids
    assert found.decode(ids) == wanted.decode(ids)
    tokenizer = from_files(
      files, mask_id=None, vocab_size=wanted.get_piece_size(), where='model.gguf'
    )
    if '<say>' not in text:
      assert tokenizer.encode_text(text).tolist() == ids


@pytest.mark.parametrize(
  ('name', 'value', 'error', 'line'),
  [
    ('scores', None, DamagedData, 'scores: wanted one for each of'),
    ('scores', np.zeros(3, np.float32), DamagedData, 'scores: wanted one for each'),
    (
      'precompiled_charsmap',
      np.zeros(3, np.uint8),
      BadInput,
      'charsmap is not rebuilt',
    ),
    ('eos_token_id', 10**6, DamagedData, 'eos_token_id is 1000000'),
  ],
)
def test_what_does_not_fit_a_sentencepiece_model(trained, name, value, error, line):
  fields = sentencepiece_fields(trained) | {f'tokenizer.ggml.{name}': value}
  with pytest.raises(error, match=line) as caught:
    tokenizer_files(fields, 'model.gguf')
  assert type(caught.value) is error


def test_a_piece_of_no_known_type_is_refused(trained):
  fields = sentencepiece_fields(trained)
  fields['tokenizer.ggml.token_type'][5] = 99
  with pytest.raises(DamagedData, match='token_type'):
    tokenizer_files(fields, 'model.gguf')


def test_byte_level_files_are_read_as_a_checkpoint_s_are():
  files = tokenizer_files(FIELDS, 'model.gguf')
  tokenizer = from_files(files, mask_id=None, vocab_size=14, where='model.gguf')
  assert tokenizer.encode_text('ab ab').tolist() == [7, 8]
  assert tokenizer.bos_id == tokenizer.eos_id == 0
  assert tokenizer.undefined_ids == ((10, 11), (12, 14))
