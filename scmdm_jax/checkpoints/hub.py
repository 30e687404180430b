"""Repositories of the Hugging Face hub as sources: `hf://owner/name@revision`.

The library `huggingface_hub`, which is optional, fetches into its own cache. Of a
repository only what an import reads is fetched: no code, no pickles, no second copy of
the weights in another format, and nothing in folders.
"""

import pathlib
import re
from typing import Any

from scmdm_jax.checkpoints import digests
from scmdm_jax.errors import BadInput

_ADDRESS = re.compile(r'hf://([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w./-]*))?')
WANTED = (
  'config.json',
  'generation_config.json',
  '*.safetensors',
  '*.safetensors.index.json',
  'tokenizer*',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.*',
  'merges.txt',
  '*.model',
  'chat_template.*',
  'README.md',
)
NEVER = ('*/*', '*.py')


def is_address(source: str) -> bool:
  """Returns whether a source is one of the hub."""
  return source.startswith('hf://')


def snapshot(source: str) -> pathlib.Path:
  """Fetches a repository and returns the directory of that revision in the cache.

  Args:
    source: hf://owner/name@revision, the revision being a branch, a tag or a commit;
      without one, the branch `main`.

  Raises:
    BadInput: no such address, repository or revision, it cannot be reached, or
      `huggingface_hub` is missing.
  """
  match = _ADDRESS.fullmatch(source)
  if match is None:
    raise BadInput(f'{source}: wanted hf://owner/name or hf://owner/name@revision')
  try:
    import huggingface_hub
  except ImportError as e:
    raise BadInput(
      f'{source}: wants the library huggingface_hub; pip install huggingface_hub'
    ) from e
  try:
    found = huggingface_hub.snapshot_download(
      match[1],
      revision=match[2],
      allow_patterns=list(WANTED),
      ignore_patterns=list(NEVER),
    )
  # Its errors have no common class: of the repository, the cache, the connection.
  except Exception as e:
    first = str(e).strip().split('\n')[0]
    raise BadInput(
      f'{source}: cannot be fetched ({type(e).__name__}: {first}); wanted a repository '
      'that is public, or that the token in HF_TOKEN may read'
    ) from e
  return pathlib.Path(found)


def provenance(directory: pathlib.Path) -> dict[str, Any]:
  """Returns the commit of a snapshot and the SHA-256 of each of its files, by name."""
  files = sorted(path for path in directory.iterdir() if path.is_file())
  return {
    'revision': directory.name,
    'files': {path.name: digests.of_file(path) for path in files},
  }
