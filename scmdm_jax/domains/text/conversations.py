"""Conversations out of files: who spoke, checked turn by turn.

A record is {"messages": [{"role", "content"}, ...]}, or {"prompt", "response"}, of
which the messages are made. A conversation travels as one text, the JSON of its
messages, so that data sets of texts hold it like any other document.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scmdm_jax.data import chat_template, reading, tables
from scmdm_jax.errors import BadInput

ENDINGS = (*tables.JSON, *tables.PARQUET)
ROLES = ('system', 'user', 'assistant', 'tool', 'developer')
_PAIR = ('prompt', 'response')


def read(
  files: Sequence[pathlib.Path],
  column: str = 'messages',
  empty: Callable[[pathlib.Path], object] = lambda _: None,
) -> Iterator[tuple[str, str]]:
  """The conversations of files and their places, as `documents.read` gives texts.

  Args:
    files: JSON, JSON lines or parquet.
    column: of the messages.
    empty: called with every file that has no conversation.

  Raises:
    BadInput: a record that is no conversation with an answer.
    DamagedData: a file that cannot be unpacked or parsed.
  """
  for path in files:
    found = 0
    for place, record in _records(path, column):
      found += 1
      place = f'{path}: {place}'
      try:
        yield place, json.dumps(messages_of(record, column), ensure_ascii=False)
      except BadInput as error:
        raise BadInput(f'{place}: {error}; correct or remove it') from error
    if not found:
      empty(path)


def parse(text: str) -> list[dict[str, Any]]:
  """The messages of a conversation that `read` gave."""
  return json.loads(text)


def plain(text: str) -> str:
  """What is spoken in a conversation that `read` gave, a line each turn."""
  return '\n'.join(message['content'] for message in parse(text)) + '\n'


def _records(path: pathlib.Path, column: str) -> Iterator[tuple[str, Any]]:
  with reading.opened(path) as file:
    is_parquet = file.read(4) == b'PAR1'
  if not is_parquet and reading.suffix(path) not in tables.PARQUET:
    yield from tables.records(path)
    return
  try:
    rows = tables.parquet_rows(path, [(column,)])
    yield from ((place, {column: value}) for place, (value,) in rows)
  except tables.NoColumn:
    rows = tables.parquet_rows(path, [(name,) for name in _PAIR])
    for place, values in rows:
      yield place, dict(zip(_PAIR, values, strict=True))


def messages_of(record: Any, column: str = 'messages') -> list[dict[str, Any]]:
  """The messages of a record, checked.

  Raises:
    BadInput: says what is wrong with it.
  """
  if not isinstance(record, dict):
    raise BadInput('no JSON object; wanted one with "messages" of a conversation')
  if column in record:
    messages = record[column]
  elif all(name in record for name in _PAIR):
    messages = [
      {'role': 'user', 'content': record['prompt']},
      {'role': 'assistant', 'content': record['response']},
    ]
  else:
    raise BadInput(
      f'found {[*record][:20]!r:.120}; wanted "{column}", or "prompt" and "response"'
    )
  if not isinstance(messages, list) or not messages:
    raise BadInput(f'{column} is {messages!r:.60}; wanted a list of one turn or more')
  checked = [_turn(i, message) for i, message in enumerate(messages, 1)]
  if not any(m['role'] == 'assistant' and m['content'].strip() for m in checked):
    raise BadInput('the assistant says nothing; wanted an answer to learn from')
  return checked


def _turn(number: int, message: Any) -> dict[str, Any]:
  if not isinstance(message, dict):
    raise BadInput(f'turn {number} is {message!r:.60}; wanted an object')
  turn = {name: value for name, value in message.items() if value is not None}
  for name in ('role', 'content'):
    value = turn.get(name)
    if not isinstance(value, str):
      found = 'missing' if value is None else f'{value!r:.60}'
      raise BadInput(f'{name} of turn {number} is {found}; wanted a text')
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise BadInput(
        f'{name} of turn {number} has half of a surrogate pair at character '
        f'{error.start}; wanted Unicode'
      ) from error
    try:
      chat_template.check_characters(value)
    except BadInput as error:
      raise BadInput(f'{name} of turn {number} {error}') from error
  if turn['role'] not in ROLES:
    raise BadInput(
      f'role of turn {number} is {turn["role"]!r:.60}; wanted one of {", ".join(ROLES)}'
    )
  return turn
