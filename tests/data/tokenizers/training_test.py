import pathlib

import pytest

from scmdm_jax.data.tokenizers import from_files_for_new_model
from scmdm_jax.data.tokenizers.training import train_sentencepiece
from scmdm_jax.errors import BadInput

PROSE = (pathlib.Path(__file__).parents[2] / 'acts27.txt').read_text()


def test_any_text_comes_back():
  model = train_sentencepiece([PROSE], 400)
  assert model == train_sentencepiece([PROSE], 400)
  files = {'tokenizer.model': model}
  pieces = from_files_for_new_model(files, causal=False, where='here')
  assert (pieces.vocab_size, pieces.mask_id) == (401, 400)
  odd = '  two  spaces \n\n a line\tand 中文 \U0001f600 <mask> [MASK] </s> <unk>'
  for text in (PROSE, odd, ' ', '\n'):
    ids = pieces.encode_text(text)
    assert pieces.decode(ids) == text
    assert not {pieces.mask_id, pieces.bos_id, pieces.eos_id} & set(ids.tolist())
  # It has learnt something: a piece of this prose is longer than a character.
  assert len(pieces.encode_text(PROSE)) < 0.7 * len(PROSE)


def test_a_size_that_the_texts_cannot_fill():
  with pytest.raises(BadInput, match='no SentencePiece model of 50000') as caught:
    train_sentencepiece(['too little text for that'], 50_000)
  assert '\n' not in str(caught.value)
  with pytest.raises(BadInput, match='no SentencePiece model of 400'):
    train_sentencepiece([], 400)
