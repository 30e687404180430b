"""Where the data of a run lie, and tokenizers made of them."""

import os
import pathlib

from scmdm_jax import files
from scmdm_jax.data import sources
from scmdm_jax.data.tokenizers import training
from scmdm_jax.settings.options import DataSettings


def directory(data: DataSettings) -> pathlib.Path:
  """Where prepared data sets lie."""
  if data.directory:
    return pathlib.Path(os.path.expanduser(data.directory))
  return pathlib.Path.home() / '.cache' / 'scmdm_jax'


def trained_tokenizer(data: DataSettings, vocab_size: int) -> pathlib.Path:
  """A SentencePiece model made of the training split, made once."""
  documents = sources.open_documents(
    data.name, directory(data), 'train', data.source or None
  )
  folder = directory(data) / 'tokenizers' / f'{documents.key}-{vocab_size}'
  path = folder / 'tokenizer.model'
  if not path.exists():
    with sources.locked(folder):
      if not path.exists():
        model = training.train_sentencepiece(documents.texts(), vocab_size)
        files.write_bytes(path, model)
  return path
