"""What every run says of its data; a domain's own options stand in its folder."""

import dataclasses
import pathlib

from scmdm_jax.settings.rules import at_least, option

# As data.tokenizer: the checkpoint's own, or one made of the training texts.
CHECKPOINT_TOKENIZER = 'checkpoint'
TRAINED_TOKENIZER = 'sentencepiece:'


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where it lies.

  Each domain adds the options that only it has in a class derived from this one; the
  settings of a run are of a class that has them all (`registry.data_settings`), which
  also gives `name` and `tokenizer` their defaults.
  """

  # Behind it the published sets of a domain, from files downloaded elsewhere, and one
  # for data of one's own.
  name: str = ''
  directory: str = ''  # Prepared data; '' is ~/.cache/scmdm_jax.
  # A file or a folder that the data set is made of; the domain's builder says which.
  source: str = ''
  # The name of a built-in tokenizer; the path of a tokenizer, a file or a directory;
  # 'checkpoint': the one that the checkpoint brings along; or 'sentencepiece:1024':
  # that many pieces, learnt from the training texts.
  tokenizer: str = option('', 'a name or a path', lambda x: x != '')
  length: int = at_least(32, 1)  # Tokens per example, padding included.

  @property
  def folder(self) -> pathlib.Path:
    """Where prepared data sets lie."""
    if self.directory:
      return pathlib.Path(self.directory).expanduser()
    return pathlib.Path.home() / '.cache' / 'scmdm_jax'
