"""`--mode=judge`: how surprised a causal model is by the texts in a file.

Protocol: every text is tokenised anew by the judge's own tokenizer and put behind the
judge's start token (its end token where it has none), which is given; all tokens of the
text are scored, its end is not, and tokens, not texts, weigh the same. This is MDLM's
generative perplexity for samples that begin with the end token, as theirs do, except
that a text longer than `evaluate.judge_length` tokens is read to its end, by windows
that overlap by half, instead of being cut off. `--mode=evaluate` asks the judge about
ends, too: where it says how well texts end, this says how well they read.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.diversity import unigram_entropy
from scmdm_jax.regular_files import read_regular
from scmdm_jax.runs.opening import Model, load_causal_judge, open_run
from scmdm_jax.runs.perplexity import scorer, start_of
from scmdm_jax.runs.windows import score
from scmdm_jax.settings.options import Settings


def read_texts(path: pathlib.Path) -> list[str]:
  """The texts of a file.

  Args:
    path: `*.jsonl`, such as the `samples.jsonl` of a run: the field `text` of each
      line; any other file is one text.

  Raises:
    BadInput: no such file, not UTF-8, or a line without a text.
  """
  try:
    whole = read_regular(path).decode('utf-8')
  except OSError as e:
    raise BadInput(f'--source {path}: {e.strerror}; wanted a text file') from e
  except UnicodeDecodeError as e:
    raise BadInput(f'--source {path}: not UTF-8 at byte {e.start}') from e
  if path.suffix != '.jsonl':
    return [whole]
  texts = []
  for number, line in enumerate(whole.split('\n'), 1):
    if not line.strip():
      continue
    try:
      text = json.loads(line)['text']
    except (ValueError, TypeError, KeyError, RecursionError):
      text = None
    if not isinstance(text, str):
      raise BadInput(
        f'--source {path}: line {number} is no JSON object with a string "text"'
      )
    texts.append(text)
  return texts


def judge_texts(
  judge: Model, texts: list[str], *, length: int, batch_size: int
) -> dict[str, Any]:
  """Perplexity of `texts`, and the entropy beside it.

  Args:
    judge: a causal model and its tokenizer.
    texts: at least one with a token.
    length: most tokens it reads at once; capped by what it can.
    batch_size: windows at a time.

  Returns:
    Numbers of texts and of scored tokens, mean -log p (nats), perplexity, and the
    unigram entropy (nats) of a text's tokens, averaged over texts.
  """
  tokenizer = judge.tokenizer
  given = start_of(tokenizer)
  rows = [
    np.array([*given, *tokenizer.encode_text(text).tolist()], np.int32)
    for text in texts
  ]
  length = min(length, judge.description.architecture.length)
  judged = score(
    scorer(judge),
    rows,
    length=length,
    stride=max(length // 2, 1),
    batch_size=batch_size,
  )
  if not judged.tokens:
    raise BadInput('--source: no text in it; wanted at least one token')
  return {
    'texts': len(texts),
    'tokens': judged.tokens,
    'nll': judged.nll / judged.tokens,
    'perplexity': judged.perplexity,
    'entropy': float(np.mean([unigram_entropy(row[None, 1:]) for row in rows])),
  }


def run(settings: Settings, workdir: pathlib.Path, source: str) -> dict[str, Any]:
  """Writes `judgement.json`, returns the same figures."""
  if not source:
    raise BadInput('--source: not given; --mode=judge wants a file of texts')
  if not settings.judge:
    raise BadInput('judge: not given; --mode=judge wants the path of a causal model')
  texts = read_texts(pathlib.Path(os.path.expanduser(source)))
  judge = load_causal_judge(settings, workdir, open_run(settings, workdir).tokenizer)
  assert judge is not None
  options = settings.evaluate
  figures = {
    'mode': 'judge',
    'judge': settings.judge,
    'source': source,
    **judge_texts(
      judge, texts, length=options.judge_length, batch_size=options.batch_size
    ),
  }
  files.write_json(workdir / 'judgement.json', figures)
  return figures
