"""Prompts as templates: text, masked positions, and perhaps an end.

`<mask>` is one masked position, `<mask:12>` twelve; `[MASK]`, `<|mask|>` and the mask
as the model's vocabulary writes it are the same, and any of them may have a number.
`<end>`, or the model's own end token, closes the text; its own start token may begin
it. Capitals (but those of `[MASK]`) and blanks inside the brackets or behind the end do
not matter. What is nearly one of these is refused: as text it would become part of the
prompt, and nothing would be masked where a mask was wanted.
"""

import re
import unicodedata
from typing import NamedTuple

from scmdm_jax.data.tokenizers.protocol import quoted
from scmdm_jax.errors import BadInput

# How a token is written that stands for no text: [PAD], </s>, <|im_end|>.
MARKUP = re.compile(r'<[^<>\s]+>|\[[^][\s]+\]|\{[^{}\s]+\}')

_COUNT = r'\s*(?::\s*([0-9]+)\s*)?'
_MASKS = rf'(?i:<\s*mask{_COUNT}>)|(?i:<\s*\|\s*mask{_COUNT}\|\s*>)|\[\s*MASK{_COUNT}\]'
_END = re.compile(r'<\s*end\s*>\s*', re.IGNORECASE)
# Of < and > and what word processors make of them. A bracket of another kind is one of
# ordinary text unless there is nothing in it but the word and a number; and the one in
# x[mask] is an index.
_OPEN, _CLOSE = r'[<\u2039\u00ab][\s|/\\_]*', r'[\s|/\\_:]*(?:[>\u203a\u00bb]|$)'
_NOT_A_WORD = r'(?![^\W\d_])'
_NEAR = re.compile(
  rf'{_OPEN}masks?{_NOT_A_WORD}|{_OPEN}end{_CLOSE}'
  r'|(?<!\w)[\[{][\s|/\\_]*masks?[\s|/_\d:;=.,+-]*(?:[\]}>]|$)'
  r'|[\[{][\s|/\\_]*end[\s|/\\_:]*[\]}>]?\s*$',
  re.IGNORECASE,
)
_LARGEST = 10**9  # Masked positions; no sequence is that long.


class Written(NamedTuple):
  """How the vocabulary of a model writes the tokens that a template may name."""

  mask: str
  start: str
  end: str
  pad: str


class Template(NamedTuple):
  """A parsed prompt."""

  started: bool  # Whether it begins with the start token.
  parts: list[str | int]  # Stretches of text, and numbers of masked positions.
  closed: bool  # Whether the text ends there.


def parse(text: str, written: Written) -> Template:
  """Reads a prompt.

  Args:
    text: the prompt.
    written: tokens of the model.

  Raises:
    BadInput: a near miss of a mask or an end, an end before the end, or a start token
      behind the start.
  """
  rest, started, closed = text, False, False
  if MARKUP.fullmatch(written.start) and rest.startswith(written.start):
    rest, started = rest.removeprefix(written.start), True
  stripped = rest.rstrip()
  if MARKUP.fullmatch(written.end) and stripped.endswith(written.end):
    rest, closed = stripped.removesuffix(written.end), True
  elif ends := [match for match in _END.finditer(rest) if match.end() == len(rest)]:
    rest, closed = rest[: ends[0].start()], True
  own = f'{re.escape(written.mask)}|' if MARKUP.fullmatch(written.mask) else ''
  parts: list[str | int] = []
  position = 0
  for match in re.finditer(own + _MASKS, rest):
    parts.append(_checked(rest[position : match.start()], text, written))
    count = next(filter(None, match.groups()), '1').lstrip('0') or '0'
    parts.append(int(count) if len(count) < 10 else _LARGEST)
    position = match.end()
  parts.append(_checked(rest[position:], text, written))
  return Template(started, [part for part in parts if part != ''], closed)


def _checked(part: str, whole: str, written: Written) -> str:
  """A stretch of text without anything that is nearly markup."""
  plain = unicodedata.normalize('NFKC', part)  # Full-width brackets are brackets.
  stem = re.escape(written.mask.strip('<>[]{}|'))
  own = re.compile(f'{_OPEN}{stem}{_NOT_A_WORD}' if stem else '(?!)', re.IGNORECASE)
  found = _NEAR.search(plain) or _END.search(plain) or own.search(plain)
  near = found[0] if found else ''
  for token in (written.start, written.end, written.pad):
    if not near and MARKUP.fullmatch(token) and token.lower() in part.lower():
      near = token
  if near:
    raise BadInput(
      f'prompt {quoted(whole)}: {near!r} is neither text nor markup; wanted <mask> or '
      f'<mask:12> for masked positions, and <end> for the end of the text, at its end '
      'only'
    )
  return part
