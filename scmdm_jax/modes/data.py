"""The data of a run: its examples as rows of token ids, whatever the domain."""

import os
import pathlib

from scmdm_jax.data import packing, pipeline, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer, training
from scmdm_jax.settings import DataSettings


def directory(data: DataSettings) -> pathlib.Path:
  """Where prepared data sets lie."""
  if data.directory:
    return pathlib.Path(os.path.expanduser(data.directory))
  return pathlib.Path.home() / '.cache' / 'scmdm_jax'


def domain(data: DataSettings) -> str:
  """What the data are, 'molecules' or 'text': it decides how samples are judged."""
  return 'molecules' if data.name == 'qm9' else 'text'


def read_rows(data: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """The examples of 'train' or 'test', int32 [L] each, prepared first if need be.

  A molecule is an example; documents are packed.
  """
  arguments = data.name, directory(data), split, data.source or None
  if domain(data) == 'molecules':
    return pipeline.Encoded(sources.open_split(*arguments), tokenizer, data.length)
  return packing.packed_rows(
    sources.open_documents(*arguments),
    tokenizer,
    data.length,
    directory(data),
    data.frame,
  )


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
        temporary = folder / 'tokenizer.tmp'
        temporary.write_bytes(model)
        temporary.rename(path)
  return path


def known_texts(data: DataSettings) -> frozenset[str]:
  """What novelty is measured against: all molecules of both splits; of text nothing."""
  if domain(data) != 'molecules':
    return frozenset()
  return frozenset(sources.all_texts(data.name, directory(data), data.source or None))
