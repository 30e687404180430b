import math

import numpy as np
import pytest

from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.judges import reading
from scmdm_jax.judges.windows import score
from tests.data.tokenizers import tiny

END = 9


def mdlm_by_hand(rows, nll, end):
  """The published loop over padded batches, for rows as MDLM's: the end comes first."""
  width = max(map(len, rows))
  ids = np.array([[*row, *[end] * (width - len(row))] for row in rows])
  total, tokens = 0.0, 0
  for row in ids:
    seen = 0
    for i, token in enumerate(row):
      seen += int(token == end)
      # Behind the first end and before the second all count. The padding is ends, too.
      if i > 0 and (seen == 1 or token != end):
        total += nll(row[: i + 1])
        tokens += 1
  return math.exp(total / tokens)


def nll_of(prefix):
  """-log p of the last token: any function of everything up to it."""
  return (prefix[-1] * 7 + prefix[:-1].sum() * 3) % 11 / 4


def compute(tokens):
  return np.array(
    [[nll_of(row[: i + 1]) for i in range(1, len(row))] for row in np.asarray(tokens)]
  )


def test_perplexity_is_that_of_the_published_loop():
  rng = np.random.default_rng(0)
  rows = [
    np.array([END, *rng.integers(0, 10, size)], np.int32) for size in (12, 5, 9, 1, 7)
  ]
  found = score(
    compute,
    rows,
    length=12,
    stride=12,
    batch_size=2,
    counted=[reading.counted_targets(row, (END,)) for row in rows],
  )
  assert found.perplexity == pytest.approx(mdlm_by_hand(rows, nll_of, END), rel=1e-12)
  # Ends inside count nowhere, every other token everywhere.
  assert found.tokens == sum((row[1:] != END).sum() for row in rows)


def test_the_first_end_counts_where_a_sample_does_not_begin_with_it():
  counted = reading.counted_targets(np.array([1, 2, END, 3, END, END, 4]), (END,))
  assert counted.tolist() == [True, True, True, False, False, True]
  twice = reading.counted_targets(np.array([END, END, 1]), (END,))
  assert twice.tolist() == [False, True]
  assert reading.counted_targets(np.array([1, 2]), ()).tolist() == [True]


def test_no_end_counts_behind_a_start():
  start = 8
  counted = reading.counted_targets(np.array([start, 1, END, 2, END]), (start, END))
  assert counted.tolist() == [True, False, True, False]


def test_counts_follow_the_windows():
  # Targets 1, 2, 3 of a text that is read in windows of two.
  row = np.array([0, 1, 2, 3, 4, 5], np.int32)
  counted = np.array([True, False, False, True, True])
  found = score(
    lambda tokens: tokens[:, 1:].astype(float),
    [row],
    length=2,
    stride=1,
    batch_size=3,
    counted=[counted],
  )
  assert (found.nll, found.tokens) == (1 + 4 + 5, 3)


def test_samples_are_tokenised_anew():
  files = tiny.files(tiny.bpe())
  pieces = from_files(files, mask_id=None, vocab_size=300, where='here')
  words = from_files(
    tiny.files(tiny.word_level()), mask_id=None, vocab_size=30, where='here'
  )
  letters = pieces.encode_text('l'), pieces.encode_text('ow')
  eos, bos = pieces.eos_id, pieces.bos_id
  # Pieces that the tokenizer would not cut so, between marks.
  sample = np.array([bos, *letters[0], *letters[1], eos, eos, *letters[0], eos])
  frame = (bos, eos)
  texts = reading.parts(sample, frame, pieces.decode)
  assert texts == ['', 'low', '', 'l', '']
  own = reading.reread(texts, pieces.encode_text, bos, eos)
  low, short = pieces.encode_text('low').tolist(), pieces.encode_text('l').tolist()
  assert own.tolist() == [bos, *low, eos, eos, *short, eos]
  assert len(own) < len(sample)
  start, end = words.bos_id, words.eos_id
  other = reading.reread(texts, words.encode_text, start, end)
  known, unknown = words.encode_text('low').tolist(), words.encode_text('l').tolist()
  assert other.tolist() == [start, *known, end, end, *unknown, end]
  # A sample that has no start gets one from a judge whose end is another token.
  texts = reading.parts(sample[1:5], frame, pieces.decode)
  assert texts == ['low', '']
  inside = reading.reread(texts, pieces.encode_text, bos, eos)
  assert inside.tolist() == [bos, *low, eos]
  inside = reading.reread(texts, pieces.encode_text, eos, eos)
  assert inside.tolist() == [*low, eos]
  bare = reading.reread(['', 'low'], pieces.encode_text, None, None)
  assert bare.tolist() == low
  nothing = reading.parts(sample[:0], (), pieces.decode)
  assert nothing == ['']
  assert reading.reread(nothing, pieces.encode_text, bos, eos).size == 0
