"""Prompts of different lengths and their answers, drawn in batches of equal shapes.

A prompt is followed by what is to be written and, up to one of few lengths, by padding
that nobody attends to. That length follows from the prompt alone, and so does its
answer, given its number: neither its neighbours nor the batch size change it.
"""

import bisect
import hashlib
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax.data import prompts
from scmdm_jax.data.prompts import Asked
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.strategies import FirstHitting
from scmdm_jax.domains.protocol import Conversing
from scmdm_jax.errors import BadInput
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.processes import multihost
from scmdm_jax.runs import drawing
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import SampleSettings


class Prompt(NamedTuple):
  """A prompt as tokens.

  Attributes:
    place: where it stands, for messages.
    id: what its answer is called.
    ids: int32 [N], masked where a token is wanted.
    start: where its answer, and the first block of it, begins; 0 of a text with masked
      positions, whose answer is all of it.
    ends: ids that end the answer beside the tokenizer's end token.
  """

  place: str
  id: str | int
  ids: np.ndarray
  start: int
  ends: tuple[int, ...] = ()

  @property
  def digest(self) -> str:
    """What shows whether an answer is one to this prompt."""
    return hashlib.sha256(self.ids.tobytes()).hexdigest()[:16]


class Answer(NamedTuple):
  """What was written.

  Attributes:
    number: of the prompt.
    tokens: int32 [N], the prompt's and the answer's.
    evaluations: of the denoiser, after which all of it stood.
  """

  number: int
  tokens: np.ndarray
  evaluations: int


def read(
  path: pathlib.Path,
  tokenizer: Tokenizer,
  new_tokens: int,
  length: int,
  converse: Callable[[], Conversing] | None = None,
) -> list[Prompt]:
  """Returns the prompts of a file.

  Args:
    path: see `data/prompts`.
    tokenizer: of the model.
    new_tokens: most tokens of an answer; 0: up to `length`.
    length: of the longest sequence.
    converse: how conversations become tokens, asked where there is one; None: the data
      have none.

  Raises:
    BadInput: with file and line: no prompt, one that the tokenizer cannot read, one
      that leaves nothing to write, or one that is too long with its answer.
  """
  asked = prompts.read(path)
  speech = None
  if converse and any(a.kind == 'messages' for a in asked):
    speech = converse()
  return [_encoded(a, tokenizer, new_tokens, length, speech) for a in asked]


def _encoded(
  asked: Asked,
  tokenizer: Tokenizer,
  new_tokens: int,
  length: int,
  speech: Conversing | None,
) -> Prompt:
  if asked.kind == 'messages' and speech is None:
    raise BadInput(
      f'{asked.place}: found messages; wanted a prompt or a text with these data'
    )
  ends: tuple[int, ...] = ()
  try:
    if asked.kind == 'text':
      ids, start = _template(asked.value, tokenizer, new_tokens, length), 0
    else:
      if speech is not None and asked.kind == 'messages':
        ids, ends = speech.encode(asked.value), speech.ends
      else:
        head = tokenizer.encode_prompt('', 1)  # The start token, where rows have one.
        given = tokenizer.encode_text(asked.value)
        ids = np.concatenate([head[head != tokenizer.mask_id], given])
      start = len(ids)
      ids = _continued(ids, new_tokens or length - start, tokenizer)
  except BadInput as e:
    raise BadInput(f'{asked.place}: {e}') from e
  _check(asked.place, ids, start, tokenizer, length)
  return Prompt(asked.place, asked.id, ids, start, ends)


def _check(
  place: str, ids: np.ndarray, start: int, tokenizer: Tokenizer, length: int
) -> None:
  """Refuses tokens that are too many, or leave nothing to write."""
  if len(ids) > length or start == length:
    raise BadInput(
      f'{place}: {start or len(ids)} tokens of the prompt, {len(ids)} with its '
      f'answer; wanted at most {length}, the longest sequence of the model; shorten it '
      'or lower sample.max_new_tokens'
    )
  if not (ids == tokenizer.mask_id).any():
    raise BadInput(
      f'{place}: leaves nothing to write; put a masked position where a token is '
      'wanted, or drop the mark at its end'
    )


def _template(
  text: str, tokenizer: Tokenizer, new_tokens: int, length: int
) -> np.ndarray:
  """The tokens of a template, int32 [N], and masks behind it unless it is closed."""
  row = tokenizer.encode_prompt(text, length)
  if not new_tokens:
    return row

  def fits(count: int) -> bool:
    try:
      return len(tokenizer.encode_prompt(text, count)) == count
    except BadInput:
      return False

  shortest = 1 + bisect.bisect_left(range(1, length + 1), True, key=fits)
  ids = row[:shortest]
  open_end = tokenizer.encode_prompt(text, shortest + 1)[-1] == tokenizer.mask_id
  return _continued(ids, new_tokens, tokenizer) if open_end else ids


def _continued(ids: np.ndarray, count: int, tokenizer: Tokenizer) -> np.ndarray:
  """The tokens with `count` masks behind them, int32."""
  masks = np.full(max(count, 0), tokenizer.mask_id, np.int32)
  return np.concatenate([ids, masks]).astype(np.int32)


def check_steps(
  prompts: Sequence[Prompt], sampler: Sampler, tokenizer: Tokenizer
) -> None:
  """Refuses prompts that leave more to write than the sampler has steps for.

  Raises:
    BadInput: more blocks than steps, or, where a step writes one token, more tokens.
  """
  for prompt in prompts:
    wanted = np.flatnonzero(prompt.ids == tokenizer.mask_id)
    size = sampler.block_length or len(prompt.ids)
    steps = len(np.unique(np.maximum(wanted - prompt.start, 0) // size))
    if isinstance(sampler.strategy, FirstHitting):
      steps = len(wanted)
    if steps > sampler.num_steps:
      raise BadInput(
        f'sample.num_steps: found {sampler.num_steps}; {prompt.place} wants at least '
        f'{steps}, one for each block, or for each token with first_hitting'
      )


def padded_length(count: int, longest: int, block_length: int = 0) -> int:
  """Returns the length at which a prompt of `count` tokens is drawn.

  It is a power of two or one and a half times one, from 32: at most two shapes, and so
  two compilations, for every doubling of the length, and a third of padding at most. Of
  a model with blocks it is whole blocks, which `longest` is, too.
  """
  power = 1 << max(count - 1, 31).bit_length()
  less = 3 * power // 4
  block = block_length or 1
  wanted = less if count <= less and less > 32 else power
  return min(-(-wanted // block) * block, longest)


def answer(
  model: Model,
  sampler: Sampler,
  options: SampleSettings,
  key: jax.Array,
  prompts: Sequence[Prompt],
  mesh: Mesh,
  done: Collection[int] = (),
) -> Iterator[list[Answer]]:
  """Yields the answers, a batch of prompts of one length at a time, shortest first.

  The answer to prompt i depends on it and `fold_in(key, i)` only.

  Args:
    model: a masked diffusion model.
    sampler: see `sampling.Sampler`; its blocks begin where prompts end, those of a
      model with blocks where it has them.
    options: batch size, temperature and dtype.
    key: consumed.
    prompts: see `Prompt`.
    mesh: of the run.
    done: numbers of those that are left out.

  Raises:
    BadInput: when called: blocks or a cache that the model cannot have, or prompts
      that want more steps, see `check_steps`.
  """
  sampler = drawing.sampler_on(model.description, sampler, mesh)
  if model.description.block_length:
    prompts = [prompt._replace(start=0) for prompt in prompts]
  check_steps(prompts, sampler, model.tokenizer)
  return _answers(model, sampler, options, key, prompts, mesh, done)


def _stops(
  prompts: Sequence[Prompt], tokenizer: Tokenizer
) -> tuple[np.ndarray | None, np.ndarray]:
  """Returns what ends answers, and from where on; see `blocks.Answers`.

  An end that what follows was given makes none.
  """
  eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
  ends = [tuple(dict.fromkeys((*eos, *prompt.ends))) for prompt in prompts]
  given = [np.flatnonzero(prompt.ids != tokenizer.mask_id) for prompt in prompts]
  behind = np.array([x[-1] + 1 if len(x) else 0 for x in given], np.int32)
  most = max(map(len, ends), default=0)
  if not most:
    return None, behind
  return np.array([(*x, *[-1] * (most - len(x))) for x in ends], np.int32), behind


def _answers(
  model: Model,
  sampler: Sampler,
  options: SampleSettings,
  key: jax.Array,
  prompts: Sequence[Prompt],
  mesh: Mesh,
  done: Collection[int],
) -> Iterator[list[Answer]]:
  """Yields what `answer` does."""
  stops, behind = _stops(prompts, model.tokenizer)
  longest, pad = model.description.architecture.length, model.tokenizer.pad_id
  block = model.description.block_length
  lengths = [padded_length(len(prompt.ids), longest, block) for prompt in prompts]
  shards = meshes.batch_shards(mesh)
  batch = -(-min(options.batch_size, len(prompts)) // shards) * shards
  draw = drawing.batches_of(model, sampler, options, key, mesh)
  for length in sorted({*lengths}):
    meshes.check_length(length, mesh)
    numbers = [i for i, n in enumerate(lengths) if n == length and i not in done]
    for first in range(0, len(numbers), batch):
      here = numbers[first : first + batch]
      filled = np.array([*here, *[here[-1]] * (batch - len(here))], np.int32)
      rows = np.full((batch, length), pad, np.int32)
      for row, i in zip(rows, filled, strict=True):
        row[: len(prompts[i].ids)] = prompts[i].ids
      spans = drawing.Spans(
        np.array([prompts[i].start for i in filled], np.int32),
        np.array([len(prompts[i].ids) for i in filled], np.int32),
        None if stops is None else stops[filled],
        None if stops is None else behind[filled],
      )
      found = multihost.gathered(draw(filled, rows, spans))
      yield [
        Answer(i, tokens[: len(prompts[i].ids)], int(written))
        for i, tokens, written in zip(here, found.tokens, found.written, strict=False)
      ]
