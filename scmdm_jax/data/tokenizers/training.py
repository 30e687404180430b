"""A SentencePiece model made from the texts it is to read."""

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from scmdm_jax.errors import BadInput

# A stretch that SentencePiece doesn't skip for its length (4192 bytes); a line at most.
_STRETCH = re.compile(r'[^\n]{1,1000}\n*|\n+')
_CHARACTERS = 10_000_000  # Read of the texts; more changes little and takes memory.


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> bytes:
  """A `*.model` file of BPE pieces; any text comes back from its ids unchanged.

  Nothing is normalised and unknown characters are spelled in bytes. The same texts
  give the same model.

  Args:
    texts: read up to 10 million characters.
    vocab_size: pieces, the 256 bytes and 3 special ones included.

  Raises:
    BadInput: a size that the texts cannot fill, or too small for the bytes.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_stretches(texts),
      model_writer=model,
      model_type='bpe',
      vocab_size=vocab_size,
      byte_fallback=True,
      character_coverage=0.9995,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      allow_whitespace_only_pieces=True,
      num_threads=1,
      minloglevel=3,
    )
  except RuntimeError as error:
    reason = ' '.join(str(error).split())
    raise BadInput(
      f'data.tokenizer: no SentencePiece model of {vocab_size} pieces can be made of '
      f'these texts ({reason}); choose another size'
    ) from error
  return model.getvalue()


def _stretches(texts: Iterable[str]) -> Iterator[str]:
  read = 0
  for text in texts:
    for match in _STRETCH.finditer(text):
      if read >= _CHARACTERS:
        return
      read += len(match[0])
      yield match[0]
