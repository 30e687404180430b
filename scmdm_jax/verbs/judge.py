"""`--mode=judge`: how surprised a causal model is by the texts in a file.

Protocol: every text is tokenised again by the judge's own tokenizer and put behind the
judge's start token (its end token where it has none), which is given; all tokens of the
text are scored, its end is not, and tokens, not texts, weigh the same. This is MDLM's
generative perplexity for samples that begin with the end token, as theirs do, except
that a text longer than `evaluate.judge_length` tokens is read to its end, by windows
that overlap by half, instead of being cut off.

The `samples.jsonl` of a run of text says in `parts` where its documents end. Such lines
are read as `--mode=evaluate` reads the same samples, by the protocol of
judges/reading, and the figure is the same.
"""

import contextlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.buckets import paths
from scmdm_jax.data import documents, reading, tables
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.diversity import unigram_entropy
from scmdm_jax.judges.protocol import CausalJudge, start_of
from scmdm_jax.judges.reading import reread_all, text_perplexity
from scmdm_jax.judges.windows import Score
from scmdm_jax.processes import multihost
from scmdm_jax.runs.judges import load_causal
from scmdm_jax.runs.opening import open_run
from scmdm_jax.settings.options import Settings

# A text, or the parts of a sample: texts before, between and behind its marks.
Text = str | list[str]


def read_texts(path: pathlib.Path) -> list[Text]:
  """The texts of a file, or of the files of a folder.

  Args:
    path: a table has a text per row, in its column `text`, and JSON lines such as the
      `samples.jsonl` of a run of text may have its `parts` beside it; any other file is
      one text.

  Raises:
    BadInput: no such file, another format, no text, a row without one, or with parts
      that are not those of its text.
    DamagedData: it cannot be unpacked or parsed.
  """
  found: list[Text] = []
  for file in documents.files_of(path, '--source')[0]:
    parts = _all_parts(file)
    for place, text in documents.read([file]):
      found.append(_parts(parts[place], text, place) if place in parts else text)
  return found


def _all_parts(path: pathlib.Path) -> dict[str, Any]:
  """The field `parts` of lines of JSON that have it, by their place."""
  found: dict[str, Any] = {}
  if reading.suffix(path) in tables.JSON:
    for number, line in enumerate(reading.lines(path), 1):
      if '"parts"' in line:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
          found[f'{path}: line {number}'] = json.loads(line)['parts']
  return found


def _parts(parts: Any, text: str, place: str) -> list[str]:
  """The parts of a sample, which `text` shows with a mark between them."""
  if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
    raise BadInput(f'{place}: "parts" is no list of strings')
  shown = [part for part in parts if part]
  marks = len(text) - sum(map(len, shown))
  size = marks // max(len(shown) - 1, 1)
  mark = text[len(shown[0]) :][:size] if len(shown) > 1 else ''
  if text != mark.join(shown) or not parts:
    raise BadInput(
      f'{place}: "text" is not what its "parts" make; wanted a text as it was sampled, '
      'or no "parts"'
    )
  return parts


def judge_texts(
  judge: CausalJudge, texts: Sequence[Text], length: int
) -> dict[str, Any]:
  """Perplexity of `texts`, and the entropy beside it.

  Args:
    judge: a causal model and its tokenizer.
    texts: at least one with a token.
    length: most tokens it reads at once; capped by what it can.

  Returns:
    Numbers of texts and of scored tokens, mean -log p (nats), perplexity, and the
    unigram entropy (nats) of a text's tokens, averaged over the texts that have any.
  """
  tokenizer = judge.tokenizer
  given = start_of(tokenizer)
  rows = [
    np.array([*given, *tokenizer.encode_text(text).tolist()], np.int32)
    for text in texts
    if isinstance(text, str)
  ]
  length = min(length, judge.length)
  plain = judge.score(rows, length=length, stride=max(length // 2, 1))
  samples = [text for text in texts if not isinstance(text, str)]
  marked = text_perplexity(judge, samples)
  judged = Score(plain.nll + marked.nll, plain.tokens + marked.tokens)
  if not judged.tokens:
    raise BadInput('--source: no text in it; wanted at least one token')
  # A text of no tokens has no entropy, as it has no share in the perplexity.
  written = [row[len(given) :] for row in rows]
  for row in reread_all(judge, samples):
    written.append(row[~np.isin(row, tokenizer.invisible_ids)])
  written = [row for row in written if row.size]
  return {
    'texts': len(texts),
    'tokens': judged.tokens,
    'nll': judged.nll / judged.tokens,
    'perplexity': judged.perplexity,
    'entropy': float(np.mean([unigram_entropy(row[None]) for row in written])),
    'empty_texts': len(texts) - len(written),
  }


def run(settings: Settings, workdir: pathlib.Path, source: str) -> dict[str, Any]:
  """Writes `judgement.json`, returns the same figures."""
  if not settings.judge:
    raise BadInput('judge: not given; --mode=judge wants the path of a causal model')
  texts = read_texts(paths.local_path(source))
  judge = load_causal(settings, workdir, open_run(settings, workdir).tokenizer)
  assert judge is not None
  figures = {
    'mode': 'judge',
    'judge': settings.judge,
    'source': source,
    **judge_texts(judge, texts, settings.evaluate.judge_length),
  }
  if multihost.index() == 0:
    files.write_json(workdir / 'judgement.json', figures)
  return figures
