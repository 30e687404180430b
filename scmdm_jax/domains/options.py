"""What every run says of its data; a domain's own options stand in its folder."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

from scmdm_jax.buckets import paths
from scmdm_jax.settings.rules import at_least, option, plain, within

# As data.tokenizer: the checkpoint's own.
CHECKPOINT_TOKENIZER = 'checkpoint'


def tokenizer_option(default: str, names: Collection[str] = ()) -> Any:
  """Returns the field `tokenizer`; `names` are the built-in ones, for its meaning."""
  built_in = f'a built-in one ({", ".join(names)})' if names else 'a built-in one'
  meaning = (
    f'The name of {built_in}; the path of a tokenizer, a file or a directory; '
    "or 'checkpoint': the one that the checkpoint brings along."
  )
  return option(default, 'a name or a path', lambda x: x != '', meaning)


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where it lies.

  Each domain adds the options that only it has in a class derived from this one; the
  settings of a run are of a class that has them all (`registry.data_settings`), which
  also gives `name` and `tokenizer` their defaults.
  """

  name: str = plain(
    '',
    "Which data set: a published one, from files downloaded elsewhere, or one's own.",
  )
  directory: str = plain('', "Prepared data; '' is ~/.cache/scmdm_jax.")
  source: str = plain(
    '',
    'A file or a folder that the data set is made of; each domain says which.',
  )
  tokenizer: str = tokenizer_option('')
  length: int = at_least(
    32,
    0,
    (
      "Tokens per example, padding included; 0: the checkpoint's, or else as "
      'many as the longest example takes.'
    ),
  )
  unknown: float = within(
    0.01, 0, 1, 'Largest share of tokens that the tokenizer may not know.'
  )

  @property
  def folder(self) -> pathlib.Path:
    """Where prepared data sets lie."""
    if self.directory:
      return paths.local_directory(self.directory)
    return pathlib.Path.home() / '.cache' / 'scmdm_jax'
