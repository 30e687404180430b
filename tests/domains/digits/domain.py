"""A domain of its own: scikit-learn's digits of 8 x 8, a few levels per pixel."""

import base64
import dataclasses

import numpy as np

from scmdm_jax.data.tokenizers.characters import CharacterTokenizer
from scmdm_jax.domains.options import CHECKPOINT_TOKENIZER, DataSettings
from scmdm_jax.domains.protocol import BuiltIn, Domain, Figure
from scmdm_jax.errors import BadInput
from scmdm_jax.report import pictures
from scmdm_jax.settings.rules import at_least
from tests.data.encoded import Encoded

LENGTH = 64
LEVELS = CharacterTokenizer('levels', ('[MASK]', '[PAD]', '[UNK]'), '0123')


@dataclasses.dataclass(frozen=True)
class DigitSettings(DataSettings):
  """How digits become rows."""

  darkest: int = at_least(3, 1, 'Digits: the largest level of a pixel, 3 at most.')


def check_settings(data, evaluation, judge):
  del evaluation, judge
  if data.length != LENGTH or data.darkest > 3:
    raise BadInput(
      f'data: found length {data.length}, darkest {data.darkest}; wanted 64 and 3'
    )
  if data.tokenizer not in (LEVELS.name, CHECKPOINT_TOKENIZER):
    raise BadInput(f'data.tokenizer: found {data.tokenizer!r}; wanted {LEVELS.name!r}')


def read_rows(data, tokenizer, split):
  """A digit per row; every tenth is held out."""
  from sklearn import datasets

  images = datasets.load_digits().data.astype(int)  # [1797, 64], from 0 to 16.
  held_out = np.arange(len(images)) % 10 == 0
  levels = np.minimum(images[held_out == (split == 'test')] * 4 // 17, data.darkest)
  return Encoded([''.join(map(str, row)) for row in levels], tokenizer, data.length)


def ink(rows):
  """Mean level of a pixel of rows [N, 64]."""
  return float(np.mean(np.maximum(np.asarray(rows) - len(LEVELS.specials), 0)))


def measuring(data, evaluation, readers):
  del evaluation
  test = read_rows(data, readers.tokenizer, 'test')
  wanted = ink([test[i] for i in range(len(test))])
  return lambda samples: {'ink': ink(samples), 'ink_error': abs(ink(samples) - wanted)}


def show(data, samples, tokenizer):
  del data, tokenizer
  shown = []
  for row in samples:
    levels = np.maximum(row - len(LEVELS.specials), 0) * 85
    png = pictures.png(levels.reshape(8, 8, 1).astype(np.uint8))
    image = f'data:image/png;base64,{base64.b64encode(png).decode()}'
    shown.append({'caption': 'a digit', 'image': image})
  return shown


DOMAIN = Domain(
  name='digits',
  data_sets=('optical_digits',),
  settings=DigitSettings,
  tokenizers=(BuiltIn('levels', lambda name: name == 'levels', lambda _: LEVELS),),
  judge='causal',
  read_rows=read_rows,
  measuring=measuring,
  figures={
    'ink_error': Figure('error of ink', 'lower', quality=True),
    'ink': Figure('ink'),
  },
  swept=('ink_error',),
  check_settings=check_settings,
  show=show,
  film='what is masked is black.',
)
