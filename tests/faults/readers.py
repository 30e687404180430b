"""The readers of files of others, as functions of the bytes of one file.

Whatever the bytes are, a reader returns or raises `BadInput` with one printable line of
bounded length: `attempt` asserts it. Used by the property tests and by the fuzzer.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import safetensors.numpy

from scmdm_jax.checkpoints import disk, gguf_files, model_config, safetensors_files
from scmdm_jax.data import prompts, tokenizers
from scmdm_jax.data.tokenizers.training import train_sentencepiece
from scmdm_jax.domains.text import conversations
from scmdm_jax.errors import BadInput
from scmdm_jax.training import writer
from tests.checkpoints import manifests, tiny_gguf
from tests.data.tokenizers import tiny

TENSORS = {
  name: value[..., :4].copy()
  for name, value in tiny_gguf.hugging_face_tensors().items()
  if 'layers.1' not in name
}


class Reader(NamedTuple):
  """One reader: the name of its file, sound files, and what reads them.

  name: of the file in its directory.
  seeds: returns contents that are read without complaint.
  read: takes the path of the file.
  """

  name: str
  seeds: Callable[[], list[bytes]]
  read: Callable[[pathlib.Path], object]


def _safetensors(path: pathlib.Path) -> None:
  (path.parent / 'config.json').write_text('{}')
  source = safetensors_files.open_source(path.parent)
  for name in source.tensors:
    source.read(name)


def _index(path: pathlib.Path) -> None:
  for name in 'ab':
    file = path.parent / f'{name}.safetensors'
    file.write_bytes(safetensors.numpy.save({name: TENSORS['model.norm.weight']}))
  _safetensors(path)


def _gguf(path: pathlib.Path) -> None:
  source = gguf_files.open_source(path)
  for name in source.shapes:
    source.read(name)
  files = source.tokenizer_files()
  tokenizers.from_files(
    files, mask_id=None, vocab_size=tiny_gguf.VOCAB, where=str(path)
  ).encode_text('a b')


def _tokenizer(path: pathlib.Path) -> None:
  found = tokenizers.from_files_for_new_model(
    {path.name: path}, causal=False, where=str(path.parent)
  )
  ids = found.encode_text('low <s> [PAD] \u65e5\n\x00').tolist()
  assert not {found.mask_id, *found.invisible_ids} & set(ids)
  found.decode(ids)


def _config(path: pathlib.Path) -> None:
  config = disk.read_json(path)
  description = model_config.description_from_config(config, str(path))
  # What is believed can be said again, or is refused by name.
  model_config.config_from_description(description, 'float32')


READERS = {
  'safetensors': Reader(
    'model.safetensors',
    lambda: [safetensors.numpy.save(TENSORS, metadata={'format': 'pt'})],
    _safetensors,
  ),
  'index': Reader(
    safetensors_files.INDEX,
    lambda: [
      json.dumps(
        {'metadata': {}, 'weight_map': {n: f'{n}.safetensors' for n in 'ab'}}
      ).encode()
    ],
    _index,
  ),
  'gguf': Reader(
    'model.gguf', lambda: [tiny_gguf.llama(), tiny_gguf.llama('qwen2')], _gguf
  ),
  'tokenizer': Reader(
    'tokenizer.json',
    lambda: [
      json.dumps(kind()).encode() for kind in (tiny.bpe, tiny.word_level, tiny.unigram)
    ],
    _tokenizer,
  ),
  'sentencepiece': Reader(
    'tokenizer.model',
    lambda: [train_sentencepiece([tiny.TEXT] * 20, 310)],
    _tokenizer,
  ),
  'config': Reader(
    'config.json',
    lambda: [
      json.dumps(config).encode()
      for name, config in vars(manifests).items()
      if name.endswith('_CONFIG')
    ],
    _config,
  ),
  'chat': Reader(
    'talk.jsonl',
    lambda: [_CHAT, _CHAT.replace(b'\n', b'\r\n')],
    lambda path: [conversations.parse(t) for _, t in conversations.read([path])],
  ),
  'prompts': Reader(
    'prompts.jsonl',
    lambda: [b'{"prompt": "a", "id": 3}\n{"prompt": "b"}\n'],
    prompts.read,
  ),
  'metrics': Reader(
    'metrics.jsonl',
    lambda: [b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'],
    writer.read_metrics,
  ),
}
_CHAT = (
  b'{"messages": [{"role": "user", "content": "x"}, '
  b'{"role": "assistant", "content": "y"}]}\n{"prompt": "a", "response": "b"}\n'
)


def attempt(reader: Reader, content: bytes) -> BadInput | None:
  """Returns the complaint about `content`, checked; None where it was read."""
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory, reader.name)
    path.write_bytes(content)
    try:
      reader.read(path)
    except BadInput as error:
      text = str(error)
      assert text and '\n' not in text, text
      assert len(text) < 4000, len(text)
      return error
  return None
