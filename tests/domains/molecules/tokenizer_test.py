import hashlib
import json
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.errors import BadInput

TOKENIZER = SmilesTokenizer()
# Written out from the published protocol, in its order.
PUBLISHED = [
  *('<bos>', '<eos>', '<mask>', '<pad>', '<unk>'),
  *('#', '(', ')', '-', '1', '2', '3', '4', '5', '=', 'C', 'F', 'N', 'O'),
  *('[C-]', '[CH-]', '[N+]', '[N-]', '[NH+]', '[NH2+]', '[NH3+]', '[O-]'),
  *('[c-]', '[cH-]', '[n-]', '[nH+]', '[nH]', 'c', 'n', 'o'),
]


def test_vocabulary_is_the_published_one():
  assert list(TOKENIZER.tokens) == PUBLISHED
  assert TOKENIZER.vocab_size == 35
  assert (TOKENIZER.bos_id, TOKENIZER.eos_id) == (0, 1)
  assert (TOKENIZER.mask_id, TOKENIZER.pad_id, TOKENIZER.unk_id) == (2, 3, 4)


def test_encode_frames_the_pieces():
  ids = TOKENIZER.encode('C[NH2+]C#N', 8)
  assert ids.dtype == np.int32
  assert ids.tolist() == [0, 15, 24, 15, 5, 17, 1, 3]


@pytest.mark.parametrize('text', PUBLISHED[5:])
def test_every_token_round_trips(text):
  ids = TOKENIZER.encode(text, 32)
  assert ids[1] == PUBLISHED.index(text)
  assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize(
  'text',
  ['<mask>', 'C<mask>O', '[<mask>]', '_', '<bos><eos><pad>', '[', 'Cl', 'C\nO', '%12'],
)
def test_no_text_yields_a_special_id_but_unknown(text):
  pieces = TOKENIZER.encode(text, 32)
  inner = pieces[1 : pieces.tolist().index(TOKENIZER.eos_id)]
  assert TOKENIZER.unk_id in inner
  assert all(i == TOKENIZER.unk_id or i > 4 for i in inner)


def test_no_piece_is_lost():
  # '<mask>' is six pieces, chlorine and a bracket atom one each.
  assert np.count_nonzero(TOKENIZER.encode('<mask>', 32) == 4) == 6
  assert np.count_nonzero(TOKENIZER.encode('ClBr[Fe+2]%12\n', 32) == 4) == 5


def test_length_counts_the_frame():
  assert TOKENIZER.encode('C' * 30, 32).tolist() == [0, *[15] * 30, 1]
  text = 'C' * 31
  with pytest.raises(BadInput, match=f'{text}.*31 tokens; length 32 .*room for 30'):
    TOKENIZER.encode(text, 32)


def test_decode_strips_frame_ids_anywhere_and_nothing_else():
  assert TOKENIZER.decode([0, 15, 3, 16, 1, 17, 3, 3]) == 'CFN'
  assert TOKENIZER.decode(np.array([0, 15, 2, 4, 1])) == 'C<mask><unk>'
  assert TOKENIZER.decode([0, 1, 3]) == ''


@pytest.mark.parametrize('wrong', [-1, 35])
def test_decode_refuses_ids_outside_the_vocabulary(wrong):
  with pytest.raises(ValueError, match=rf'{wrong} is not in \[0, 35\)'):
    TOKENIZER.decode([0, wrong])


def test_prompt_masks_holes_and_the_rest():
  assert TOKENIZER.encode_prompt('C_=O', 8).tolist() == [0, 15, 2, 14, 18, 2, 2, 2]


def test_prompt_with_an_end_masks_only_the_holes():
  assert TOKENIZER.encode_prompt('C_=O$', 8).tolist() == [0, 15, 2, 14, 18, 1, 3, 3]


def test_empty_prompt_fixes_only_bos():
  assert TOKENIZER.encode_prompt('', 4).tolist() == [0, 2, 2, 2]


def test_prompt_without_holes_equals_encode():
  np.testing.assert_array_equal(
    TOKENIZER.encode_prompt('C[NH2+]C#N$', 32), TOKENIZER.encode('C[NH2+]C#N', 32)
  )


@pytest.mark.parametrize(
  ('text', 'piece'),
  [('CX', 'X'), ('C<mask>', '<'), ('C$O', r'\$'), ('C$$', r'\$'), ('[_]', r'\[_\]')],
)
def test_prompt_refuses_unknown_pieces(text, piece):
  with pytest.raises(BadInput, match=f"'{piece}' is not in the vocabulary"):
    TOKENIZER.encode_prompt(text, 32)


def test_prompt_refuses_too_long_a_template():
  with pytest.raises(BadInput, match='7 tokens; length 8 leaves room for 6'):
    TOKENIZER.encode_prompt('_' * 7, 8)


def test_fingerprint_is_of_the_whole_definition():
  definition = ['smiles_qm9', PUBLISHED, r'\[[^\]]*\]|Br|Cl|%[0-9]{2}|.']
  expected = hashlib.sha256(json.dumps(definition).encode()).hexdigest()
  assert TOKENIZER.fingerprint == expected == SmilesTokenizer().fingerprint


def test_a_text_alone_is_the_inside_of_the_frame():
  text = 'C[NH2+]C#N?'
  framed = TOKENIZER.encode(text, 16)
  np.testing.assert_array_equal(TOKENIZER.encode_text(text), framed[1:7])
  assert TOKENIZER.encode_text('').shape == (0,)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('[]CBrl%1(='), max_size=30))
def test_pieces_are_those_of_the_pattern(text):
  tokenizer = SmilesTokenizer()
  assert tokenizer._split(text) == re.findall(tokenizer.pattern, text, re.DOTALL)


@pytest.mark.parametrize('unit', ['[', ']', '[C', '%', 'B', '[]', 'C'])
def test_time_grows_with_the_length_only(unit):
  seconds = []
  for count in (50_000, 400_000):
    start = time.process_time()
    SmilesTokenizer().encode_text(unit * count)
    seconds.append(time.process_time() - start)
  # Eight times as long: 8 if linear, 64 if quadratic.
  assert seconds[1] < 24 * seconds[0] + 0.2
