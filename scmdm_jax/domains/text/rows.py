"""Rows of text: documents one after the other, cut to length."""

import functools
import pathlib

from scmdm_jax import files
from scmdm_jax.data import packing, sources
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.sources import Documents
from scmdm_jax.data.tokenizers import Tokenizer, training
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.domains.text import builder, chat, conversations
from scmdm_jax.domains.text.options import TextSettings

# As data.tokenizer, with a number of pieces behind it: learnt from the training texts.
LEARNT = 'sentencepiece:'


def prepared(data: DataSettings) -> builder.Text:
  """The builder of the data set, prepared if need be.

  Raises:
    BadInput: no source, or an unsuitable one.
    DamagedData: the source, or what an earlier run prepared, cannot be read.
  """
  config = builder.config_of(data.name, data.source or None)
  return sources.prepared(builder.Text, config, data.folder)


def documents(data: DataSettings, split: str) -> Documents:
  """The documents of a split, prepared if need be; they are not read yet.

  They are not held in memory but pass by once, on their way to `packing`.
  Errors as `prepared`, or no such split.
  """
  found = prepared(data)
  config = found.builder_config
  assert isinstance(config, builder.TextConfig)
  return Documents(
    f'{config.name}-{split}',
    sources.count(found, data.name, split),
    functools.partial(sources.texts, found, split, builder.TEXT_COLUMN),
    functools.partial(builder.find, config),
  )


def read_rows(data: TextSettings, tokenizer: Tokenizer, split: str) -> Rows:
  """Documents one after the other, cut into rows int32 `[L]`; or conversations."""
  if data.name == builder.CHAT:
    return chat.read_rows(data, documents(data, split), tokenizer)
  return packing.packed_rows(
    documents(data, split),
    tokenizer,
    data.length,
    data.folder,
    data.frame,
    data.unknown,
  )


def learnt_tokenizer(data: TextSettings) -> pathlib.Path | None:
  """A SentencePiece model learnt from the training split, made once.

  None unless `data.tokenizer` asks for it.
  """
  if not data.tokenizer.startswith(LEARNT):
    return None
  size = int(data.tokenizer.removeprefix(LEARNT))
  found = documents(data, 'train')
  folder = data.folder / 'tokenizers' / f'{found.key}-{size}'
  path = folder / 'tokenizer.model'
  if not path.exists():
    with sources.locked(folder):
      if not path.exists():
        texts = found.texts()
        if data.name == builder.CHAT:
          texts = map(conversations.plain, texts)
        files.write_bytes(path, training.train_sentencepiece(texts, size))
  return path
