"""The data of a run: its examples as rows of token ids, whatever the domain."""

import os
import pathlib

from scmdm_jax.data import pipeline, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.settings import DataSettings


def directory(data: DataSettings) -> pathlib.Path:
  """Where prepared data sets lie."""
  if data.directory:
    return pathlib.Path(os.path.expanduser(data.directory))
  return pathlib.Path.home() / '.cache' / 'scmdm_jax'


def read_rows(data: DataSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """The examples of 'train' or 'test', int32 [L] each, prepared first if need be."""
  texts = sources.open_split(data.name, directory(data), split, data.source or None)
  return pipeline.Encoded(texts, tokenizer, data.length)


def known_texts(data: DataSettings) -> frozenset[str]:
  """All texts of the data set, both splits: what novelty is measured against."""
  return frozenset(sources.all_texts(data.name, directory(data), data.source or None))
