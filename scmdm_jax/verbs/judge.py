"""`--mode=judge`: how surprised a causal model is by the texts in a file.

Protocol: every text is tokenised anew by the judge's own tokenizer and put behind the
judge's start token (its end token where it has none), which is given; all tokens of the
text are scored, its end is not, and tokens, not texts, weigh the same. This is MDLM's
generative perplexity for samples that begin with the end token, as theirs do, except
that a text longer than `evaluate.judge_length` tokens is read to its end, by windows
that overlap by half, instead of being cut off. `--mode=evaluate` asks the judge about
ends, too: where it says how well texts end, this says how well they read.
"""

import os
import pathlib
from typing import Any

import numpy as np

from scmdm_jax import files
from scmdm_jax.data import documents
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.diversity import unigram_entropy
from scmdm_jax.runs.opening import Model, load_causal_judge, open_run
from scmdm_jax.runs.perplexity import scorer, start_of
from scmdm_jax.runs.windows import score
from scmdm_jax.settings.options import Settings


def read_texts(path: pathlib.Path) -> list[str]:
  """The texts of a file, or of the files of a folder.

  Args:
    path: a table, such as the `samples.jsonl` of a run, has a text per row, in its
      column `text`; any other file is one text.

  Raises:
    BadInput: no such file, another format, no text, or a row without one.
    DamagedData: it cannot be unpacked or parsed.
  """
  files, _ = documents.files_of(path, '--source')
  return [text for _, text in documents.read(files)]


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
    unigram entropy (nats) of a text's tokens, averaged over the texts that have any.
  """
  tokenizer = judge.tokenizer
  given = start_of(tokenizer)
  rows = [
    np.array([*given, *tokenizer.encode_text(text).tolist()], np.int32)
    for text in texts
  ]
  # A text of no tokens has no entropy, as it has no share in the perplexity.
  written = [row[len(given) :] for row in rows if len(row) > len(given)]
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
    'entropy': float(np.mean([unigram_entropy(row[None]) for row in written])),
    'empty_texts': len(texts) - len(written),
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
