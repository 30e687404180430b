import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.domains import registry
from scmdm_jax.domains.images.tokenizer import PixelTokenizer
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput

FUZZ = settings(max_examples=200, deadline=None, derandomize=True)
SIXTEEN = PixelTokenizer(16)


def test_ids_are_values_then_classes_then_the_mask():
  assert (SIXTEEN.vocab_size, SIXTEEN.mask_id) == (27, 26)
  assert SIXTEEN.class_ids == tuple(range(16, 26))
  assert SIXTEEN.encode_text('<class 3>000f').tolist() == [19, 0, 15]
  assert len(SIXTEEN.tokens) == len(set(SIXTEEN.tokens)) == 27
  # The published set of values is its own.
  published = PixelTokenizer(256)
  assert published.encode_text('00ff').tolist() == [0, 255]
  assert published.vocab_size == 267


@FUZZ
@given(ids=st.lists(st.integers(0, 25)))
def test_values_and_classes_round_trip(ids):
  text = SIXTEEN.decode(ids)
  assert SIXTEEN.encode_text(text).tolist() == ids
  assert SIXTEEN.encode(text, len(ids)).tolist() == ids


@FUZZ
@given(text=st.text())
def test_no_text_yields_the_mask(text):
  try:
    ids = SIXTEEN.encode_text(text)
  except BadInput as error:
    assert '\n' not in str(error)
  else:
    assert ids.dtype == np.int32 and SIXTEEN.mask_id not in ids


@pytest.mark.parametrize('text', ['10', '0', '0F', '<class 10>', '_', ' 00', '<mask>'])
def test_what_is_no_value_is_named(text):
  with pytest.raises(
    BadInput, match=r'is not in the vocabulary of pixels:16; use two h'
  ):
    SIXTEEN.encode_text(f'<class 3>{text}')


def test_a_row_has_its_length():
  with pytest.raises(BadInput, match='2 tokens; wanted 3, the length of a row'):
    SIXTEEN.encode('<class 0>00', 3)


def test_a_prompt_asks_for_a_class_or_for_the_rest_of_an_image():
  mask = SIXTEEN.mask_id
  assert SIXTEEN.encode_prompt('<class 9>', 4).tolist() == [25, mask, mask, mask]
  assert SIXTEEN.encode_prompt('_0f_', 5).tolist() == [mask, 15, mask, mask, mask]
  with pytest.raises(BadInput, match='2 tokens; wanted at most 1'):
    SIXTEEN.encode_prompt('__', 1)
  with pytest.raises(BadInput, match="and '_' for a masked position"):
    SIXTEEN.encode_prompt('?', 1)


def test_leftover_masks_show():
  assert SIXTEEN.decode([19, SIXTEEN.mask_id, 15]) == '<class 3>_0f'
  with pytest.raises(ValueError, match='token id 27'):
    SIXTEEN.decode([27])


@pytest.mark.parametrize('name', ['pixels:2', 'pixels:16', 'pixels:256'])
def test_known_by_name(name):
  found = get_tokenizer(name)
  assert isinstance(found, PixelTokenizer) and found.name == name
  again = PixelTokenizer(found.levels)
  assert found.fingerprint == again.fingerprint
  assert found.fingerprint != PixelTokenizer(17).fingerprint


@pytest.mark.parametrize(
  'name',
  [
    'pixels',
    'pixels:',
    'pixels:1',
    'pixels:257',
    'pixels:016',
    'pixels:²',
    'pixels:16:',
    'pixels:16:9',
  ],
)
def test_other_numbers_of_levels_are_no_tokenizer(name):
  assert not registry.is_built_in(name)
  with pytest.raises(BadInput, match='pixels:LEVELS'):
    get_tokenizer(name)


def test_checkpoints_of_before_keep_their_tokenizer():
  digest = '5d918ca57e9dade1c38438c12affff66185a5983da004c110b2e039a857211a5'
  assert get_tokenizer('pixels:16').fingerprint == digest
