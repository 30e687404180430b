"""The file of answers: a line for each prompt, written as they come."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from scmdm_jax import files
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.processes import multihost
from scmdm_jax.runs.answering import Answer, Prompt

_FIELDS = ('id', 'prompt', 'generated', 'evaluations', 'ended')


def record_of(prompt: Prompt, answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns a line of `samples.jsonl`.

  id: of the prompt.
  text: of the answer up to its first end token; of a text with masked positions all.
  tokens: their ids.
  generated: how many were written, the end token and what follows it not counted.
  evaluations: of the denoiser, after which all of it stood.
  tokens_per_evaluation: `generated` over `evaluations`.
  ended: 'end' by the end token, 'length' without one, or 'filled': what follows the
    masked positions was given.
  prompt: a digest of the prompt's tokens, by which a run that goes on knows it.
  """
  masked = prompt.ids == tokenizer.mask_id
  given = np.flatnonzero(~masked)
  # An end inside of what was to be filled in is none: text follows.
  behind = np.arange(len(masked)) > (given[-1] if len(given) else -1)
  eos = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
  ends = behind & np.isin(answer.tokens, [*eos, *prompt.ends])
  stop = int(np.argmax(ends)) if ends.any() else len(masked)
  generated = int(masked[:stop].sum())
  ended = 'end' if ends.any() else 'length' if masked[-1] else 'filled'
  tokens = answer.tokens[prompt.start : stop]
  return {
    'id': prompt.id,
    'text': tokenizer.decode(tokens),
    'tokens': tokens.tolist(),
    'generated': generated,
    'evaluations': answer.evaluations,
    'tokens_per_evaluation': round(generated / max(answer.evaluations, 1), 4),
    'ended': ended,
    'prompt': prompt.digest,
  }


def answered(path: pathlib.Path, prompts: Sequence[Prompt]) -> set[int]:
  """Returns the numbers of the prompts that a file has answers to.

  Raises:
    BadInput: it has the answer to another prompt of that id.
    DamagedData: it cannot be read, or a line of it is no answer.
  """
  try:
    lines = files.whole_lines(path).splitlines()
  except OSError as e:
    raise DamagedData(f'{path}: cannot be read ({e.strerror}); move it away') from e
  numbers, done = {prompt.id: i for i, prompt in enumerate(prompts)}, set()
  for count, line in enumerate(lines, 1):
    try:
      record = json.loads(line)
      if not all(name in record for name in _FIELDS):
        raise ValueError('no answer to a prompt')
    except (ValueError, TypeError, RecursionError) as e:
      raise DamagedData(f'{path}: line {count}: {e}; move the file away') from e
    number = numbers.get(record['id'])
    if number is None or prompts[number].digest != record['prompt']:
      raise BadInput(
        f'{path}: line {count}: answers a prompt {record["id"]!r} that the file of '
        'prompts does not have, or no longer so; give another --workdir'
      )
    done.add(number)
  return done


def left_out(path: pathlib.Path, prompts: Sequence[Prompt]) -> set[int]:
  """Returns what `answered` does, in all processes of a run."""
  found = multihost.first_does('answers', lambda: answered(path, prompts))
  return set(json.loads(multihost.from_first(json.dumps(sorted(found or ())))))


def write(
  path: pathlib.Path,
  batches: Iterator[list[Answer]],
  prompts: Sequence[Prompt],
  tokenizer: Tokenizer,
) -> None:
  """Puts a line for every answer behind those of the file, batch by batch.

  On a terminal a bar shows answers and tokens per second, compilations included.
  """
  first = multihost.index() == 0
  with contextlib.ExitStack() as stack:
    append = stack.enter_context(files.appending(path)) if first else None
    silent = not (first and sys.stderr.isatty())
    bar = stack.enter_context(
      tqdm.tqdm(total=len(prompts), unit='answer', desc='answers', disable=silent)
    )
    started, tokens = time.time(), 0
    for batch in batches:
      records = [record_of(prompts[a.number], a, tokenizer) for a in batch]
      if append is not None:
        append(''.join(json.dumps(record) + '\n' for record in records))
      tokens += sum(record['generated'] for record in records)
      rate = tokens / max(time.time() - started, 1e-9)
      bar.set_postfix_str(f'{rate:.1f} tokens/s', refresh=False)
      bar.update(len(records))


def figures(path: pathlib.Path) -> dict[str, Any]:
  """Returns counts and means over all answers of a file."""
  records = [json.loads(line) for line in files.whole_lines(path).splitlines()]
  tokens = sum(record['generated'] for record in records)
  evaluations = sum(record['evaluations'] for record in records)
  ends = [record['ended'] for record in records]
  return {
    'count': len(records),
    'generated': tokens,
    'empty': sum(not record['generated'] for record in records),
    'evaluations': evaluations,
    'tokens_per_evaluation': round(tokens / max(evaluations, 1), 4),
    'ended': {name: ends.count(name) for name in sorted(set(ends))},
  }


def agreement(
  path: pathlib.Path,
  plain: Sequence[Answer],
  prompts: Sequence[Prompt],
  tokenizer: Tokenizer,
) -> dict[str, Any]:
  """Returns how many tokens of a file's answers are those of `plain` ones.

  As a share of what was written in either, up to the longer one's end.
  """
  lines = map(json.loads, files.whole_lines(path).splitlines())
  written = {record['id']: record['tokens'] for record in lines}
  same = total = 0
  for answer in plain:
    prompt = prompts[answer.number]
    ours = written[prompt.id]
    theirs = record_of(prompt, answer, tokenizer)['tokens']
    masked = prompt.ids[prompt.start :] == tokenizer.mask_id
    same += sum(a == b for a, b, m in zip(ours, theirs, masked, strict=False) if m)
    total += int(masked[: max(len(ours), len(theirs))].sum())
  return {'agreement': same / max(total, 1), 'agreement_samples': len(plain)}
