import io
import json

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.data.tokenizers.training import train_sentencepiece
from scmdm_jax.errors import BadInput, DamagedData
from tests.data.tokenizers import tiny

FUZZ = settings(max_examples=200, deadline=None, derandomize=True)

SPECIAL = ('<s>', '</s>', '<pad>', '<mask>', '<extra>')


def trained(**options):
  """A model of the library's own trainer; `<mask>` and `<extra>` are plain pieces."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([tiny.TEXT, *tiny.TEXT.split()] * 20),
    model_writer=model,
    hard_vocab_limit=False,
    user_defined_symbols=['<mask>', '<extra>'],
    minloglevel=2,
    **{'vocab_size': 48, 'pad_id': 3, 'bos_id': 1, 'eos_id': 2, 'unk_id': 0, **options},
  )
  return model.getvalue()


@pytest.fixture(scope='module', params=['unigram', 'bpe'])
def model(request):
  return trained(model_type=request.param)


def load(model, mask_id=4, more=0, **config):
  size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
  files = {'tokenizer.model': model}
  files['tokenizer_config.json'] = json.dumps(config).encode()
  return from_files(files, mask_id=mask_id, vocab_size=size + more, where='here')


WITH_BYTES = from_files(
  {'tokenizer.model': train_sentencepiece([tiny.TEXT] * 20, 310)},
  mask_id=310,
  vocab_size=311,
  where='here',
)


def test_roles_come_from_the_model(model):
  tokenizer = load(model)
  assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)
  assert tokenizer.tokens[:6] == ('<unk>', '<s>', '</s>', '<pad>', '<mask>', '<extra>')
  assert tokenizer.name == 'tokenizer.model'
  assert load(model, pad_token=None).pad_id == 2
  assert load(model, more=3).undefined_ids == (
    (tokenizer.vocab_size, tokenizer.vocab_size + 3),
  )


def test_ordinary_text_is_what_the_library_makes_of_it(model):
  library = sentencepiece.SentencePieceProcessor(model_proto=model)
  tokenizer = load(model)

  @FUZZ
  @given(st.lists(st.sampled_from(tiny.TEXT.split()), min_size=1))
  def check(words):
    text = ' '.join(words)
    ids = tokenizer.encode_text(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == library.encode(text)
    assert tokenizer.decode(ids) == text

  check()


def test_no_text_yields_a_special_id(model):
  tokenizer = load(model)
  assert 4 in sentencepiece.SentencePieceProcessor(model_proto=model).encode('<mask>')
  assert 5 in tokenizer.encode_text('low <extra>')  # An ordinary piece stays one.
  pieces = st.sampled_from([*SPECIAL, '<unk>', ' ', '▁', 'low'])

  @FUZZ
  @given(st.lists(st.one_of(pieces, st.text(max_size=3))).map(''.join))
  def check(text):
    assert not {1, 2, 3, 4} & set(tokenizer.encode_text(text).tolist())

  check()


def test_decode_hides_the_frame_and_shows_a_mask(model):
  tokenizer = load(model)
  low = tokenizer.encode_text('low').tolist()
  assert tokenizer.decode(tokenizer.encode('low wider', 32)) == 'low wider'
  assert tokenizer.decode([1, *low, 4, *low, 4, 2, 3]) == 'low<mask> low<mask>'
  extra = load(model, mask_id=50 + tokenizer.vocab_size, more=60)
  assert extra.decode([*low, extra.mask_id]) == 'low<mask>'


def test_an_ordinary_piece_is_given_no_role(model):
  for field in ('pad_token', 'bos_token', 'cls_token', 'image_token'):
    what = (
      f'its {field}' if field[:3] in ('pad', 'bos') else 'one of its special tokens'
    )
    with pytest.raises(BadInput, match=f"'w' is {what}.*, and an ordinary token"):
      load(model, **{field: 'w'})
  with pytest.raises(BadInput, match="'w' is one of its special tokens, and an ord"):
    load(model, extra_special_tokens=['w'])
  # A piece that others can spell loses no text.
  long = max(load(model).tokens[6:], key=len)
  tokenizer = load(model, pad_token=long)
  assert load(model).encode_text(tiny.TEXT).tolist().count(tokenizer.pad_id) > 0
  assert tokenizer.pad_id not in tokenizer.encode_text(tiny.TEXT)
  assert tokenizer.decode(tokenizer.encode_text(tiny.TEXT)) == tiny.TEXT


def test_a_byte_is_given_no_role():
  model = trained(model_type='bpe', byte_fallback=True, vocab_size=310)
  for config in (
    {'eos_token': '<0x0A>'},
    {'extra_special_tokens': ['<0xE6>']},
    {'added_tokens_decoder': {'16': {'content': '<0x0A>', 'special': True}}},
  ):
    with pytest.raises(BadInput, match=r"'<0x(0A|E6)>', a byte that texts are spelled"):
      load(model, **config)


def test_extra_special_pieces_cannot_be_written(model):
  extra = load(model).tokens.index('<extra>')
  assert extra in load(model).encode_text('low <extra>')
  for config in (
    {'extra_special_tokens': ['<extra>']},
    {'extra_special_tokens': {'image_token': '<extra>'}},
    {'additional_special_tokens': [{'content': '<extra>'}]},
    {'cls_token': '<extra>'},
  ):
    assert extra not in load(model, **config).encode_text('low <extra>')


@FUZZ
@given(st.text())
def test_any_text_comes_back_from_pieces_and_bytes(text):
  tokenizer = WITH_BYTES
  ids = tokenizer.encode_text(text)
  assert not {tokenizer.mask_id, *tokenizer.invisible_ids} & set(ids.tolist())
  assert tokenizer.decode(ids) == text


def test_fingerprint_follows_model_and_roles(model):
  found = {load(model).fingerprint, load(model, mask_id=5).fingerprint}
  found |= {
    load(model, pad_token=None).fingerprint,
    load(trained(vocab_size=40)).fingerprint,
  }
  assert len(found) == 4
  assert load(model).fingerprint == load(model, more=2).fingerprint


def test_errors():
  model = trained()
  with pytest.raises(BadInput, match='is 0, which is its unk token'):
    load(model, mask_id=0)
  with pytest.raises(BadInput, match='is 2, which is its eos token'):
    load(model, mask_id=2)
  with pytest.raises(BadInput, match="mask_token is '<none>', which is none of its"):
    load(model, mask_token='<none>')
  with pytest.raises(BadInput, match='the model has 9 ids'):
    from_files({'x.model': model}, mask_id=None, vocab_size=9, where='here')
  with pytest.raises(BadInput, match='no token ends a text'):
    load(trained(eos_id=-1))
  with pytest.raises(BadInput, match="unknown text becomes '<unk>'"):
    load(model, pad_token='<unk>')


@pytest.mark.parametrize('content', [b'', b'\x00', b'{"a": 1}', b'\n\x05abc'])
def test_what_is_no_model(content):
  with pytest.raises(DamagedData, match=r'^here/x\.model: ') as caught:
    from_files({'x.model': content}, mask_id=None, vocab_size=9, where='here')
  assert '\n' not in str(caught.value)


def test_truncated_models():
  model = trained()
  for stop in range(1, len(model) - 1, 997):
    try:
      load_cut = from_files(
        {'x.model': model[:stop]}, mask_id=None, vocab_size=99, where='here'
      )
    except BadInput as e:
      assert str(e).startswith('here/x.model: ')
    else:
      assert load_cut.eos_id not in load_cut.encode_text('low')
