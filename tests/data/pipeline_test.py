import itertools
import json

import numpy as np
import pytest

from scmdm_jax.data.pipeline import heldout_batches, spread, training_batches
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.errors import BadInput
from tests.data.encoded import Encoded

TOKENIZER = SmilesTokenizer()
# 26 different texts: every chain length 1 to 13 with and without a fluorine.
TEXTS = [f'{"C" * n}{tail}' for n in range(1, 14) for tail in ('', 'F')]


def batches(source=TEXTS, tokenizer=TOKENIZER, **overrides):
  arguments = {'batch_size': 4, 'seed': 7, **overrides}
  return training_batches(Encoded(source, tokenizer, 16), **arguments)


def take(iterator, count):
  return [next(iterator).tokens for _ in range(count)]


def texts_of(arrays):
  return [TOKENIZER.decode(row) for array in arrays for row in array]


def test_batches_are_int32_of_fixed_shape():
  batch = next(batches()).tokens
  assert batch.shape == (4, 16)
  assert batch.dtype == np.int32
  assert set(texts_of([batch])) <= set(TEXTS)


def test_an_epoch_has_no_repeats_and_the_next_another_order():
  iterator = batches()
  # 26 // 4 = 6 batches an epoch.
  epochs = [texts_of(take(iterator, 6)) for _ in range(5)]
  for epoch in epochs:
    assert len(set(epoch)) == 24
  assert len({tuple(epoch) for epoch in epochs}) == 5
  # What one epoch leaves out, another has.
  assert set(itertools.chain(*epochs)) == set(TEXTS)


def test_order_follows_the_seed():
  first, again, other = (texts_of(take(batches(seed=s), 6)) for s in (7, 7, 8))
  assert first == again != other
  assert first != TEXTS[:24]


@pytest.mark.parametrize('consumed', [0, 1, 5, 6, 17])
def test_resume_is_exact(consumed):
  iterator = batches()
  take(iterator, consumed)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = [batch.tobytes() for batch in take(iterator, 20)]

  fresh = batches()
  fresh.set_state(state)
  assert [batch.tobytes() for batch in take(fresh, 20)] == expected

  # Back in time on an iterator whose buffer is full of later batches.
  iterator.set_state(state)
  assert [batch.tobytes() for batch in take(iterator, 20)] == expected


@pytest.mark.parametrize('process_count', [2, 4])
def test_processes_partition_every_global_batch(process_count):
  whole = take(batches(), 20)
  parts = [
    take(batches(process_index=p, process_count=process_count), 20)
    for p in range(process_count)
  ]
  for step in range(20):
    assert parts[0][step].shape == (4 // process_count, 16)
    for p in range(process_count):
      np.testing.assert_array_equal(
        parts[p][step], np.split(whole[step], process_count)[p]
      )


def test_dataset_of_one_batch_goes_on_for_ever():
  seen = take(batches(source=TEXTS[:4]), 10)
  assert all(set(texts_of([batch])) == set(TEXTS[:4]) for batch in seen)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'source': []}, 'no records'),
    ({'source': TEXTS[:3]}, 'batch_size: 4 is more than the 3 records'),
    ({'batch_size': 0}, 'batch_size: 0 is not a positive multiple'),
    ({'seed': -1}, 'seed: -1 is negative'),
    ({'process_count': 3}, 'batch_size: 4 is not .* of the 3 processes'),
    ({'process_index': 1}, r'process_index: 1 is not in \[0, 1\)'),
  ],
)
def test_impossible_arguments_are_refused_before_iterating(overrides, message):
  with pytest.raises(BadInput, match=message):
    batches(**overrides)


def test_too_long_a_record_is_named():
  source = [*TEXTS[:3], 'C' * 15]
  with pytest.raises(BadInput, match=r"record 3: text 'C{15}': 15 tokens"):
    next(batches(source=source))


class WrongTokenizer(SmilesTokenizer):
  def __init__(self, wrong):
    super().__init__()
    self.wrong = wrong

  def encode(self, text, length):
    ids = super().encode(text, length)
    return np.where(text == 'CC', self.wrong, ids)


@pytest.mark.parametrize('wrong', [-1, 35])
def test_id_outside_the_vocabulary_is_named_with_its_record(wrong):
  # 'CC' is record 2.
  message = rf'record 2: token id {wrong} is not in \[0, 35\)'
  with pytest.raises(BadInput, match=message):
    next(batches(source=TEXTS[:4], tokenizer=WrongTokenizer(wrong)))
  with pytest.raises(BadInput, match=message):
    next(heldout_batches(Encoded(TEXTS, WrongTokenizer(wrong), 16), batch_size=4))


def test_heldout_covers_all_records_in_order_with_one_shape():
  passes = list(heldout_batches(Encoded(TEXTS, TOKENIZER, 16), batch_size=4))
  assert [batch.tokens.shape for batch in passes] == [(4, 16)] * 7
  assert all(batch.tokens.dtype == np.int32 for batch in passes)
  real = [texts_of([batch.tokens[batch.real]]) for batch in passes]
  assert list(itertools.chain(*real)) == TEXTS
  # 26 = 6 * 4 + 2: two copies of the last record.
  assert passes[-1].real.tolist() == [True, True, False, False]
  assert texts_of([passes[-1].tokens])[2:] == [TEXTS[-1]] * 2


def test_heldout_of_less_than_a_batch():
  (batch,) = heldout_batches(Encoded(TEXTS[:1], TOKENIZER, 16), batch_size=4)
  assert batch.real.tolist() == [True, False, False, False]


def test_heldout_processes_have_equal_counts_and_share_the_records():
  # 5 records, global batch 4: the second process has no real row in the last batch.
  parts = [
    list(
      heldout_batches(
        Encoded(TEXTS[:5], TOKENIZER, 16),
        batch_size=4,
        process_index=p,
        process_count=2,
      )
    )
    for p in range(2)
  ]
  assert [len(part) for part in parts] == [2, 2]
  real = [texts_of([b.tokens[b.real] for b in part]) for part in parts]
  assert real == [[TEXTS[0], TEXTS[1], TEXTS[4]], [TEXTS[2], TEXTS[3]]]


def test_heldout_refuses_an_empty_dataset():
  with pytest.raises(BadInput, match='no records'):
    heldout_batches(Encoded([], TOKENIZER, 16), batch_size=4)


def test_rows_are_spread_over_all():
  rows = [np.full(2, i) for i in range(7)]
  assert [int(row[0]) for row in spread(rows, 3)] == [0, 2, 4]
  assert [int(row[0]) for row in spread(rows, 7)] == list(range(7))
  assert [int(row[0]) for row in spread(rows, 9)] == list(range(7))
