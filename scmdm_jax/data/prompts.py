"""Prompts in a file: one JSON object per line, each to be answered once.

`{"prompt": text}` is to be continued; what looks like markup in it stays text.
`{"text": template}` has masked positions, written as in `tokenizers/template`, and is
continued, too, unless it is closed. `{"messages": [{"role", "content"}, ...]}` is a
conversation whose next turn is wanted. `id`, a text or a whole number, is the line's
number where it is missing.
"""

import json
import pathlib
from typing import Any, NamedTuple

from scmdm_jax.data import reading
from scmdm_jax.data.tokenizers.protocol import quoted
from scmdm_jax.errors import BadInput, first_line

KINDS = ('prompt', 'text', 'messages')
_MOST = 1 << 24  # Characters of a line.


class Asked(NamedTuple):
  """A line of a file of prompts.

  Attributes:
    place: file and line, for messages.
    id: what it is called in the file of answers.
    kind: one of `KINDS`.
    value: what stands there: a text, or a list of messages.
  """

  place: str
  id: str | int
  kind: str
  value: Any


def read(path: pathlib.Path) -> list[Asked]:
  """Returns the prompts of a file in its order; blank lines count, but are none.

  Raises:
    BadInput: no such file, no prompt in it, or a line that is none; with its number.
    DamagedData: it cannot be unpacked.
  """
  found: list[Asked] = []
  places: dict[str, str] = {}
  for number, line in enumerate(reading.lines(path), 1):
    if line.strip():
      asked = _asked(line, number, f'{path}: line {number}')
      earlier = places.setdefault(str(asked.id), asked.place)
      if earlier != asked.place:
        raise BadInput(
          f'{asked.place}: id is {quoted(str(asked.id))}, as in {earlier}; wanted each '
          'only once'
        )
      found.append(asked)
  if not found:
    raise BadInput(f'{path}: no prompt in it; wanted a JSON object on every line')
  return found


def _asked(line: str, number: int, place: str) -> Asked:
  if len(line) > _MOST:
    raise BadInput(f'{place}: {len(line)} characters; wanted up to {_MOST}')
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as e:
    raise BadInput(f'{place}: no JSON ({first_line(e)}); correct it') from e
  kinds = [kind for kind in KINDS if isinstance(record, dict) and kind in record]
  if len(kinds) != 1:
    found = ' and '.join(kinds) or quoted(line)
    raise BadInput(f'{place}: found {found}; wanted an object with one of {KINDS}')
  name = record.get('id', number)
  if type(name) not in (int, str):
    raise BadInput(f'{place}: id is {name!r:.60}; wanted a text or a whole number')
  value = record[kinds[0]]
  if kinds[0] == 'messages':
    _check_messages(value, place)
  elif not isinstance(value, str):
    raise BadInput(f'{place}: {kinds[0]} is {value!r:.60}; wanted a text')
  elif not value:
    raise BadInput(f'{place}: {kinds[0]} is empty; wanted a text')
  return Asked(place, name, kinds[0], value)


def _check_messages(messages: Any, place: str) -> None:
  """Refuses what is no conversation that waits for an answer."""
  if not isinstance(messages, list) or not messages:
    raise BadInput(f'{place}: messages is {messages!r:.60}; wanted a list of turns')
  for i, turn in enumerate(messages):
    texts = isinstance(turn, dict) and [turn.get('role'), turn.get('content')]
    if not texts or not all(isinstance(text, str) for text in texts):
      raise BadInput(
        f'{place}: messages[{i}] is {turn!r:.60}; wanted {{"role", "content"}}, both '
        'texts'
      )
  roles = [turn['role'] for turn in messages]
  if set(roles) == {'system'}:
    raise BadInput(f'{place}: only a system turn; wanted a turn of the user behind it')
  if roles[-1] in ('assistant', 'system'):
    raise BadInput(
      f'{place}: the last turn is of role {roles[-1]!r}; wanted one to be answered'
    )
