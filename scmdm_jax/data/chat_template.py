"""Chat templates: conversations to text, and which of it the assistant wrote.

A template is Jinja, as `transformers` renders it (its `chat_template_utils`): in the
immutable sandbox, with loop controls, `tojson`, `raise_exception`, `strftime_now`, and
`{% generation %}`, which marks what the assistant writes. Without such marks an answer
is what a conversation's rendering has beyond that of the turns before it.
"""

import dataclasses
import datetime
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scmdm_jax.data import reading
from scmdm_jax.data.tokenizers import files as tokenizer_files
from scmdm_jax.errors import BadInput, first_line

Message = Mapping[str, Any]
# Characters of Unicode's last private plane, which no conversation may have: where an
# answer begins and ends, and from there on what stands for special tokens' spelling.
BEGIN, END = '\U0010f800', '\U0010f801'
FIRST_STAND_IN = 0x10F802
_PRIVATE = re.compile('[\U0010f800-\U0010ffff]')
_MARKED = re.compile(r'\{%-?\s*generation\b')


class _Generation(jinja2.ext.Extension):
  """`{% generation %}`: what stands between is put between BEGIN and END."""

  tags = {'generation'}  # noqa: RUF012 (Jinja's own is a set)

  def parse(self, parser: Any) -> Any:
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    call = self.call_method('_marked')
    return nodes.CallBlock(call, [], [], body).set_lineno(line)

  def _marked(self, caller: Any) -> str:
    return f'{BEGIN}{caller()}{END}'


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)


def _tojson(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, jinja2.ext.loopcontrols],
  )
  environment.filters['tojson'] = _tojson
  environment.globals['raise_exception'] = _refuse
  environment.globals['strftime_now'] = lambda form: datetime.datetime.now().strftime(
    form
  )
  return environment


@functools.lru_cache
def _compiled(source: str) -> jinja2.Template:
  return _environment().from_string(source)


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """A template with the special tokens that it may write.

  source: Jinja.
  where: its file, for messages.
  special: `bos_token` and its like -> how the vocabulary writes it.

  Raises:
    BadInput: no template.
  """

  source: str
  where: str
  special: Mapping[str, str]

  def __post_init__(self):
    try:
      _compiled(self.source)
    except jinja2.TemplateError as error:
      line = getattr(error, 'lineno', None) or 1
      raise BadInput(
        f'{self.where}: line {line} of the chat template: {first_line(error)}; wanted '
        'Jinja as transformers renders it'
      ) from error

  @property
  def digest(self) -> str:
    """SHA-256 (hex) of what decides a rendering."""
    what = [self.source, dict(self.special)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

  def render(self, messages: Sequence[Message], prompt: bool = False) -> str:
    """The text of a conversation; with `prompt` the assistant's next turn is begun.

    Raises:
      BadInput: the template refuses the conversation, or wants what it must not have.
    """
    return self._rendered(messages, prompt).replace(BEGIN, '').replace(END, '')

  def _rendered(self, messages: Sequence[Message], prompt: bool = False) -> str:
    try:
      return _compiled(self.source).render(
        messages=[dict(m) for m in messages],
        tools=None,
        documents=None,
        add_generation_prompt=prompt,
        **self.special,
      )
    except Exception as error:  # Whatever a template does wrong.
      raise BadInput(
        f'{self.where}: the chat template does not render it ({first_line(error)})'
      ) from error

  def answers(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and where its answers stand in it, (start, stop).

    Raises:
      BadInput: as `render`; or the text of a turn changes as others follow, so that it
        takes `{% generation %}` to say what is an answer.
    """
    text = self._rendered(messages)
    if _MARKED.search(self.source):
      return _unmarked(text)
    spans = []
    for i, message in enumerate(messages):
      if message['role'] == 'assistant':
        before = self.render(messages[:i], prompt=True) if i else ''
        after = self.render(messages[: i + 1])
        if not (after.startswith(before) and text.startswith(after)):
          raise BadInput(
            f'{self.where}: turn {i + 1} is rendered otherwise when others follow; '
            'wanted a chat template with {% generation %} around what the assistant '
            'writes'
          )
        spans.append((len(before), len(after)))
    return text, spans


def _unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
  """A rendering without its marks, and what stood between them."""
  pieces, spans, length = [], [], 0
  for i, part in enumerate(re.split(f'{BEGIN}|{END}', text)):
    if i % 2:
      spans.append((length, length + len(part)))
    pieces.append(part)
    length += len(part)
  return ''.join(pieces), spans


def check_characters(text: str) -> None:
  """Refuses the private characters that are used here.

  Raises:
    BadInput: there is one.
  """
  if found := _PRIVATE.search(text):
    raise BadInput(
      f'has the private character U+{ord(found[0]):X}, which is used here; wanted '
      'text without it'
    )


def of_files(
  files: tokenizer_files.Files, where: str, special: Mapping[str, str]
) -> ChatTemplate | None:
  """The template among a tokenizer's files: one of its own, or in its config.

  Of several that the config names it is the one called `default`. None: none.

  Raises:
    BadInput: no template, or none of them is the default.
    DamagedData: the config cannot be read.
  """
  name = tokenizer_files.CHAT_TEMPLATE
  if name in files:
    data = tokenizer_files.read_bytes(files, name, where)
    return ChatTemplate(reading.decode(data, name), f'{where}/{name}', special)
  if tokenizer_files.CONFIG not in files:
    return None
  config = tokenizer_files.read_json(files, tokenizer_files.CONFIG, where)
  found = config.get('chat_template')
  where = f'{where}/{tokenizer_files.CONFIG}'
  if isinstance(found, list):
    named = {t.get('name'): t.get('template') for t in found if isinstance(t, dict)}
    found = named.get('default')
    if found is None:
      raise BadInput(
        f'{where}: chat_template has {[*named]}; wanted one named default, or '
        'data.chat_template=FILE'
      )
  if found is None:
    return None
  if not isinstance(found, str):
    raise BadInput(f'{where}: chat_template is {found!r:.60}; wanted a text')
  return ChatTemplate(found, where, special)
