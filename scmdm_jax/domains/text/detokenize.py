"""Undoes what published corpora did to their text before it was released.

WikiText, PTB, LM1B and the scientific papers come with spaces around punctuation and
with stand-ins for numbers; MDLM's zero-shot figures are on text put back together by
these rules (kuleshov-group/mdlm, dataloader.py, after GPT-2's), so a figure can be
compared only if they are the same, oddities included.
"""

import functools
import re
from collections.abc import Callable, Sequence

# What to find and what to put there, in this order; patterns where compiled. A rule of
# brackets is a function.
Rules = Sequence[tuple[str | re.Pattern[str], str] | Callable[[str], str]]


def _tight(*pairs: tuple[str, str]) -> Rules:
  """No space inside pairs of brackets or quotes, whatever stands between them."""
  return [functools.partial(_tightened, *pair) for pair in pairs]


def _tightened(opening: str, closing: str, text: str) -> str:
  r"""What `\(\s*([^)]*?)\s*\)` -> `(\1)` makes of a text, in linear time."""
  pieces, end = [], 0
  while (start := text.find(opening, end)) >= 0:
    stop = text.find(closing, start + 1)
    if stop < 0:
      break
    pieces += [text[end : start + 1], text[start + 1 : stop].strip(), closing]
    end = stop + 1
  return ''.join([*pieces, text[end:]])


def _spaced(*pairs: tuple[str, str]) -> Rules:
  """One space less inside each side of a pair that holds no other of its marks."""
  rules = []
  for a, b in pairs:
    marks = ''.join(re.escape(mark) for mark in sorted({a, b}))
    pattern = rf'{re.escape(a)} ([^{marks}]+) {re.escape(b)}'
    rules.append((re.compile(pattern), rf'{a}\1{b}'))
  return rules


_WIKITEXT: Rules = [
  ("s '", "s'"),
  # As published: the replacement, too, is the text [0-9] (nothing known matches).
  (re.compile("/' [0-9]/"), "/'[0-9]/"),
  *((f' @{mark}@ ', mark) for mark in '-,.'),
  *((f' {mark} ', f'{mark} ') for mark in ':;.!?,'),
  *_tight(('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ("'", "'")),
  ('= = = =', '===='),
  ('= = =', '==='),
  ('= =', '=='),
  (' ° ', '°'),
  (' \n', '\n'),
  ('\n ', '\n'),
  (' N ', ' 1 '),
  (" 's", "'s"),
]

_PTB: Rules = [
  (" 's", "'s"),
  ("s ' ", "s' "),
  (" n't", "n't"),
  (' \n ', '\n'),
  ('\\/', '/'),
  # Numbers in a row share the space between them, so that one pass leaves every other.
  *[(' N ', ' 1 ')] * 10,
  ('$ 1', '$1'),
  ('# 1', '#1'),
  ('<unk>', '?'),
]

_LM1B: Rules = [
  ('http : / / ', 'http://'),
  ('https : / / ', 'https://'),
  (re.compile(r" '(\w+)"), r"'\1"),
  (re.compile(r' (\w+) \. '), r' \1. '),
  (re.compile(r' (\w+) \.$'), r' \1.'),
  (' ? ', '? '),
  (re.compile(r' \?$'), '?'),
  (' ! ', '! '),
  (re.compile(r' !$'), '!'),
  *((f' {mark} ', f'{mark} ') for mark in ',:;'),
  (' / ', '/'),
  *_spaced(('"', '"'), ("'", "'"), ('(', ')'), ('[', ']')),
  ('$ ', '$'),
  ('£ ', '£'),
]

_RULES: dict[str, Rules] = {
  'wikitext': _WIKITEXT,
  'ptb': _PTB,
  'lm1b': _LM1B,
  'lambada': [('“', '"'), ('”', '"')],
  'pubmed': [*_WIKITEXT, *_LM1B],
  'arxiv': [*_WIKITEXT, *_LM1B],
}


def detokenize(name: str, text: str) -> str:
  """A document of the data set `name` as MDLM reads it; others stay as they are."""
  for rule in _RULES.get(name, ()):
    if callable(rule):
      text = rule(text)
      continue
    wanted, instead = rule
    if isinstance(wanted, str):
      text = text.replace(wanted, instead)
    else:
      text = wanted.sub(instead, text)
  return '\n' + text.strip() if name == 'lambada' else text
