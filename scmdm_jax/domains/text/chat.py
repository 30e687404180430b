"""Conversations to token ids, and rows of them in which the answers are learnt.

A rendering is cut at the special tokens that its template wrote; what a turn says is
text, also where it spells such a token. A token is learnt if any character of it is the
assistant's.
"""

import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from scmdm_jax.data import chat_template, journal, reading, sources, unknown
from scmdm_jax.data.chat_template import ChatTemplate
from scmdm_jax.data.sources import Documents
from scmdm_jax.data.tokenizers import SubwordTokenizer, Tokenizer
from scmdm_jax.domains.protocol import Conversing
from scmdm_jax.domains.text import conversations
from scmdm_jax.domains.text.options import TextSettings
from scmdm_jax.errors import BadInput, DamagedData

_PART = 20_000  # Conversations per part; each part keeps a file open.
_ROLES = ('bos', 'eos', 'pad', 'mask', 'unk')


def template_of(data: TextSettings, tokenizer: Tokenizer) -> ChatTemplate:
  """The chat template of a run: `data.chat_template`, or the tokenizer's own.

  Raises:
    BadInput: there is none, or it is no template.
    DamagedData: the tokenizer's files cannot be read.
  """
  ids = {role: getattr(tokenizer, f'{role}_id') for role in _ROLES}
  special = {
    f'{role}_token': str(tokenizer.tokens[i])
    for role, i in ids.items()
    if i is not None
  }
  if data.chat_template:
    path = pathlib.Path(data.chat_template).expanduser()
    return ChatTemplate(reading.text(path), str(path), special)
  found = chat_template.of_files(tokenizer.files, tokenizer.name, special)
  if found is None:
    raise BadInput(
      f'data.chat_template: not given, and the tokenizer {tokenizer.name} brings none; '
      'wanted a file with a Jinja template'
    )
  return found


def encode(
  messages: list[dict[str, Any]], template: ChatTemplate, tokenizer: SubwordTokenizer
) -> tuple[np.ndarray, np.ndarray]:
  """Ids of a conversation, int32 [N], and which of them are learnt, bool [N].

  Raises:
    BadInput: the template refuses the conversation.
  """
  spelt = _spelt(messages, tokenizer.specials)
  if spelt:
    messages = [_replaced(message, spelt) for message in messages]
  text, spans = template.answers(messages)
  learnt = np.zeros(len(text), bool)
  for start, stop in spans:
    learnt[start:stop] = True
  return _encoded(text, learnt, tokenizer, {v: k for k, v in spelt.items()})


def encode_prompt(
  messages: list[dict[str, Any]], template: ChatTemplate, tokenizer: SubwordTokenizer
) -> np.ndarray:
  """Ids of a conversation up to where the assistant's next turn begins, int32 [N].

  Raises:
    BadInput: the template refuses the conversation.
  """
  render, read = _speech(template, tokenizer)
  return read(render(messages))


def _speech(
  template: ChatTemplate, tokenizer: SubwordTokenizer
) -> tuple[Callable[..., str], Callable[[str], np.ndarray]]:
  """What renders conversations, and what makes ids of renderings; see `Conversing`."""
  meant: dict[str, str] = {}  # What stands for special tokens that turns spelt so far.

  def render(messages: list[dict[str, Any]], begun: str = '') -> str:
    turn = {'role': 'assistant', 'content': begun}
    for message in (*messages, turn):
      chat_template.check_characters(message['content'])
    for text in _spelt([*messages, turn], tokenizer.specials):
      if text not in meant.values():
        meant[chr(chat_template.FIRST_STAND_IN + len(meant))] = text
    # The longest first: one may hold another.
    spelt = sorted(meant.items(), key=lambda item: len(item[1]), reverse=True)
    spelt = {text: stand_in for stand_in, text in spelt}
    asked = [_replaced(m, spelt) for m in messages]
    return template.render(asked, prompt=True) + _replaced(turn, spelt)['content']

  def read(text: str) -> np.ndarray:
    return _encoded(text, np.zeros(len(text), bool), tokenizer, meant)[0]

  return render, read


def converse(data: TextSettings, tokenizer: Tokenizer) -> Conversing:
  """How a run with this tokenizer speaks.

  A turn ends with the special tokens that its template puts behind an answer.

  Raises:
    BadInput: no chat template, or a tokenizer that writes no special tokens.
  """
  if not isinstance(tokenizer, SubwordTokenizer):
    raise BadInput(
      f'data.tokenizer: {tokenizer.name} has no special tokens for turns; wanted that '
      'of a checkpoint'
    )
  template = template_of(data, tokenizer)
  example = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]
  ids, learnt = encode(example, template, tokenizer)
  special = set(tokenizer.specials.values())
  ends = sorted({int(i) for i in ids[learnt]} & special)

  return Conversing(*_speech(template, tokenizer), tuple(ends), template.source)


def _spelt(
  messages: Iterable[Mapping[str, Any]], specials: Mapping[str, int]
) -> dict[str, str]:
  """Special tokens that turns spell, each with a character to stand in for it."""
  spoken = '\0'.join(m['content'] for m in messages)
  found = [text for text in specials if text in spoken]
  # The longest first: one may hold another.
  found.sort(key=len, reverse=True)
  return {text: chr(chat_template.FIRST_STAND_IN + i) for i, text in enumerate(found)}


def _replaced(message: dict[str, Any], spelt: Mapping[str, str]) -> dict[str, Any]:
  content = message['content']
  for text, stand_in in spelt.items():
    content = content.replace(text, stand_in)
  return message | {'content': content}


def _encoded(
  text: str, learnt: np.ndarray, tokenizer: SubwordTokenizer, meant: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
  """Ids of a rendering and which are learnt, special tokens and text apart.

  Args:
    text: the rendering.
    learnt: bool [len(text)].
    tokenizer: of the run.
    meant: stand-in -> what it stands for.
  """
  ids: list[int] = []
  target: list[bool] = []
  written = sorted(tokenizer.specials, key=len, reverse=True)
  pattern = '|'.join(map(re.escape, written)) or '(?!)'
  at = 0
  for match in [*re.finditer(pattern, text), None]:
    stop = len(text) if match is None else match.start()
    if stop > at:
      part, flags = _restored(text[at:stop], learnt[at:stop], meant)
      ids += tokenizer.encode_text(part).tolist()
      spans = tokenizer.encoder.spans(part)
      target += [bool(flags[start:end].any()) for start, end in spans]
    if match is not None:
      ids.append(tokenizer.specials[match[0]])
      target.append(bool(learnt[match.start()]))
      at = match.end()
  return np.array(ids, np.int32), np.array(target, bool)


def _restored(
  text: str, learnt: np.ndarray, meant: Mapping[str, str]
) -> tuple[str, np.ndarray]:
  """Text with what stand-ins stand for, and its flags."""
  if not any(stand_in in text for stand_in in meant):
    return text, learnt
  pieces = [meant.get(character, character) for character in text]
  return ''.join(pieces), np.repeat(learnt, [len(piece) for piece in pieces])


class ChatRows:
  """Rows of conversations, int32 `[L]` each; see `pipeline.Answers`.

  Args:
    parts: the conversations in pieces; see `_coded`.
    data: length, buckets, what is cut and whether padding is learnt.
    tokenizer: of the run, whose end token fills a row where that is learnt, else its
      pad.
    what: which data they are, for messages.

  Raises:
    BadInput: none is left.
  """

  def __init__(
    self, parts: list[np.ndarray], data: TextSettings, tokenizer: Tokenizer, what: str
  ):
    self._parts = parts
    self._length = data.length
    self.padding_is_target = data.pad_target
    fill = tokenizer.eos_id if data.pad_target else tokenizer.pad_id
    self._fill = tokenizer.pad_id if fill is None else fill
    where, lengths = [], []
    for number, part in enumerate(parts):
      found = np.asarray(part[1 : part[0] + 1], np.int64)
      starts = 1 + len(found) + np.cumsum(found) - found
      where.append(np.stack([np.full(len(found), number), starts], axis=1))
      lengths.append(found)
    self._where, whole = np.concatenate(where), np.concatenate(lengths)
    long = whole > data.length
    self.lengths = np.minimum(whole, data.length)
    kept = ~long if data.too_long == 'leave_out' else np.ones(len(whole), bool)
    kept &= [bool((self._codes(i) & 1).any()) for i in range(len(whole))]
    facts = {
      'conversations': len(whole),
      'longer': int(long.sum()),
      'cut': int((long & kept).sum()),
      'left_out': int((~kept).sum()),
    }
    if long.any():
      journal.note(
        f'length of {what}',
        facts,
        f'{what}: {facts["longer"]} of {len(whole)} conversations have more than '
        f'data.length = {data.length} tokens: {facts["cut"]} are cut, '
        f'{facts["left_out"]} left out, which have no answer within it or are to be',
      )
    if not kept.any():
      raise BadInput(
        f'data.length: found {data.length}; wanted more, since no conversation of '
        f'{what} has an answer within it; the longest has {whole.max()} tokens'
      )
    self._where, self.lengths = self._where[kept], self.lengths[kept]
    ends = np.ceil(np.arange(1, data.buckets + 1) * data.length / data.buckets)
    self.sizes = ends.astype(int)[np.searchsorted(ends, self.lengths)]

  def _codes(self, index: int) -> np.ndarray:
    part, start = self._where[index]
    return self._parts[part][start : start + self.lengths[index]]

  def __len__(self) -> int:
    return len(self._where)

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    row = np.full(self._length, self._fill, np.int32)
    row[: self.lengths[index]] = self._codes(index) >> 1
    return row

  def target(self, index: int) -> np.ndarray:
    """Which positions of a row are learnt, bool `[L]`."""
    target = np.full(self._length, self.padding_is_target)
    target[: self.lengths[index]] = self._codes(index) & 1
    return target


def read_rows(
  data: TextSettings, documents: Documents, tokenizer: Tokenizer
) -> ChatRows:
  """The rows of a split, prepared under `data.folder` if need be.

  Raises:
    BadInput: a conversation that the template or the tokenizer refuses, or too much
      that it does not know.
    DamagedData: what an earlier run prepared cannot be read.
  """
  if not isinstance(tokenizer, SubwordTokenizer):
    raise BadInput(
      f'data.tokenizer: found {tokenizer.name!r} with data.name = {data.name!r}; '
      "wanted one of pieces of words: a path, 'checkpoint' or sentencepiece:PIECES"
    )
  template = template_of(data, tokenizer)
  name = f'{documents.key}-{tokenizer.fingerprint[:16]}-{template.digest[:16]}'
  folder = data.folder / 'tokens' / name
  paths = [folder / f'{first:010}.npy' for first in range(0, documents.count, _PART)]
  if not all(path.is_file() for path in paths):
    with sources.locked(folder):
      sources.write_parts(
        documents,
        paths,
        _PART,
        lambda texts, _: _coded(documents, texts, template, tokenizer),
      )
  try:
    parts = [np.load(path, mmap_mode='r') for path in paths]
  except (OSError, ValueError, EOFError) as error:
    raise DamagedData(
      f'{folder}: prepared conversations cannot be read ({error}); delete this '
      'directory and run again'
    ) from error
  tokens = sum(len(part) - 1 - int(part[0]) for part in parts)
  strange = sum(unknown.count(part[part[0] + 1 :] >> 1, tokenizer) for part in parts)
  unknown.check(documents.key, tokenizer, strange, tokens, (), data.unknown)
  return ChatRows(parts, data, tokenizer, documents.key)


def _coded(
  documents: Documents,
  texts: Iterable[str],
  template: ChatTemplate,
  tokenizer: SubwordTokenizer,
) -> np.ndarray:
  """A part of what is prepared, uint32.

  How many conversations, the length of each, and of every token twice its id, plus 1
  where it is learnt.
  """
  codes = []
  for text in texts:
    try:
      ids, target = encode(conversations.parse(text), template, tokenizer)
    except BadInput as error:
      raise BadInput(f'{documents.find(text)}: {error}') from error
    codes.append(ids.astype(np.uint32) * 2 + target.astype(np.uint32))
  lengths = np.array([len(codes), *map(len, codes)], np.uint32)
  return np.concatenate([lengths, *codes])
