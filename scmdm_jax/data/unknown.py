"""How much of the data a tokenizer does not know: counted, reported, or refused."""

import math
from collections.abc import Iterable

import numpy as np

from scmdm_jax.data import journal
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput

_EXAMPLES = 10  # Pieces that are named.


def count(ids: np.ndarray, tokenizer: Tokenizer) -> int:
  """How many of these ids stand for what the tokenizer does not know."""
  return (
    0 if tokenizer.unk_id is None else int(np.count_nonzero(ids == tokenizer.unk_id))
  )


def examples(pieces: Iterable[str], tokenizer: Tokenizer) -> list[str]:
  """The first few of these pieces or characters that the tokenizer does not know."""
  found: list[str] = []
  for piece in pieces:
    if len(found) < _EXAMPLES and count(tokenizer.encode_text(piece), tokenizer):
      found.append(piece)
  return found


def check(
  what: str,
  tokenizer: Tokenizer,
  unknown: int,
  tokens: int,
  named: Iterable[str],
  limit: float,
) -> None:
  """Tells of unknown tokens.

  Args:
    what: which data, for people.
    tokenizer: of the run.
    unknown: tokens that are unknown.
    tokens: all of them.
    named: examples of what is unknown.
    limit: largest share that is allowed.

  Raises:
    BadInput: there are more.
  """
  if not unknown:
    return
  share = unknown / tokens
  those = ' '.join(ascii(piece) for piece in named)
  found = f'{tokenizer.name} does not know {unknown} of {tokens} tokens of {what}'
  found += f' ({share:.2%}{": " + those if those else ""})'
  if share > limit:
    enough = math.ceil(share * 1000) / 1000
    raise BadInput(
      f'data.tokenizer: {found}; wanted at most {limit:.2%}; give another tokenizer or '
      f'other data, or allow it with --config.data.unknown={enough:g}'
    )
  journal.note(f'unknown in {what}', {'unknown': unknown, 'tokens': tokens}, found)
