import json

import numpy as np
import pytest
import tokenizers

from scmdm_jax.checkpoints.gguf_tokenizer import tokenizer_files
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
    ({'model': 'llama'}, BadInput, "tokenizer.ggml.model is 'llama'; only 'gpt2'"),
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
