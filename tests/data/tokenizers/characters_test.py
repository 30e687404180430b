import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmdm_jax.domains.genomes.tokenizer import DNA
from scmdm_jax.domains.text.tokenizer import TEXT8
from scmdm_jax.errors import BadInput

FUZZ = settings(max_examples=200, deadline=None, derandomize=True)

BOTH = pytest.mark.parametrize('tokenizer', [DNA, TEXT8], ids=lambda t: t.name)


def test_published_ids():
  assert (DNA.vocab_size, DNA.mask_id, DNA.pad_id, DNA.unk_id) == (12, 3, 4, 6)
  assert DNA.encode_text('ACGTN').tolist() == [7, 8, 9, 10, 11]
  assert (TEXT8.vocab_size, TEXT8.mask_id, TEXT8.pad_id) == (35, 4, 5)
  assert TEXT8.encode_text('az ').tolist() == [8, 33, 34]


@BOTH
@FUZZ
@given(text=st.text())
def test_no_text_yields_a_special_id_but_unknown(tokenizer, text):
  ids = tokenizer.encode_text(text + '[MASK][PAD]')
  assert ids.dtype == np.int32
  ids_of = {c: len(tokenizer.specials) + i for i, c in enumerate(tokenizer.characters)}
  ids_of |= {c.swapcase(): i for c, i in ids_of.items()}  # Either case is the letter.
  expected = [ids_of.get(c, tokenizer.unk_id) for c in text]
  assert ids[: len(text)].tolist() == expected
  assert tokenizer.mask_id not in ids and tokenizer.pad_id not in ids


@BOTH
def test_every_character_round_trips(tokenizer):
  text = tokenizer.characters
  ids = tokenizer.encode(text, 40)
  assert ids[len(text) :].tolist() == [tokenizer.pad_id] * (40 - len(text))
  assert tokenizer.decode(ids) == text


def test_half_a_surrogate_pair_is_unknown():
  assert DNA.encode_text('A\ud800').tolist() == [7, DNA.unk_id]


def test_leftover_specials_show():
  assert DNA.decode([7, DNA.mask_id, DNA.unk_id, DNA.pad_id]) == 'A[MASK][UNK]'
  with pytest.raises(ValueError, match=r'12 is not in \[0, 12\)'):
    DNA.decode([12])


def test_prompts():
  assert DNA.encode_prompt('A_C', 5).tolist() == [7, 3, 8, 3, 3]
  assert DNA.encode_prompt('A_C$', 5).tolist() == [7, 3, 8, 4, 4]
  assert DNA.encode_prompt('', 2).tolist() == [3, 3]
  with pytest.raises(BadInput, match=r"prompt 'AX': 'X' is not in the vocabulary of d"):
    DNA.encode_prompt('AX', 5)
  with pytest.raises(BadInput, match='6 characters; wanted at most the length, 5'):
    DNA.encode_prompt('A_CGTN', 5)


def test_length_is_the_whole_window():
  assert DNA.encode('ACGT', 4).tolist() == [7, 8, 9, 10]
  with pytest.raises(BadInput, match='5 characters; wanted at most the length, 4'):
    DNA.encode('ACGTN', 4)


def test_fingerprints_differ():
  assert len({DNA.fingerprint, TEXT8.fingerprint}) == 2
  assert len(DNA.fingerprint) == 64
