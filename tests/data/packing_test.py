import json

import numpy as np
import pytest

from scmdm_jax.data import journal, packing
from scmdm_jax.data.packing import PackedRows, packed_rows
from scmdm_jax.data.pipeline import training_batches
from scmdm_jax.data.sources import Documents
from scmdm_jax.data.tokenizers import from_files_for_new_model
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput, DamagedData
from tests.data.tokenizers import tiny

TEXTS = ['low lower', 'newest', '', 'wide [MASK] wider <mask>', 'low ' * 9]
FILES = tiny.files(tiny.bpe(added_tokens=tiny.added(len(tiny.bpe_vocabulary()))))
PIECES = from_files_for_new_model(FILES, causal=False, where='here')


def documents(texts=TEXTS, key='set-train'):
  return Documents(key, len(texts), lambda: iter(texts))


def by_a_loop(texts, tokenizer, length, frame=True):
  """MDLM's wrapping, written plainly."""
  stream = []
  for text in texts:
    stream += [*tokenizer.encode_text(text).tolist(), tokenizer.eos_id]
  if not frame:
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
  inner = length - 2
  return [
    [tokenizer.bos_id, *stream[i : i + inner], tokenizer.eos_id]
    for i in range(0, len(stream) - inner + 1, inner)
  ]


@pytest.mark.parametrize('length', [3, 4, 7, 30])
@pytest.mark.parametrize('frame', [True, False])
def test_rows_are_those_of_a_plain_loop(tmp_path, monkeypatch, length, frame):
  monkeypatch.setattr(packing, '_PART', 2)  # Rows run across parts.
  rows = packed_rows(documents(), PIECES, length, tmp_path, frame)
  found = [rows[i] for i in range(len(rows))]
  assert [row.tolist() for row in found] == by_a_loop(TEXTS, PIECES, length, frame)
  assert all(row.dtype == np.int32 for row in found)
  # What looks like a mask is ordinary text.
  assert all(PIECES.mask_id not in row for row in found)


def test_any_cut_into_parts_gives_the_same_rows():
  stream = np.arange(50, dtype=np.uint16)
  rng = np.random.default_rng(0)
  for _ in range(30):
    cuts = np.sort(rng.integers(0, 51, 6))  # Some parts are empty.
    rows = PackedRows(np.split(stream, cuts), 9, 100, 101)
    assert len(rows) == 7
    for i in range(7):
      assert rows[i].tolist() == [100, *range(7 * i, 7 * i + 7), 101]
  with pytest.raises(IndexError):
    rows[7]


def test_characters_are_packed_without_a_frame(tmp_path):
  text8 = get_tokenizer('text8')
  rows = packed_rows(documents(['abcde', 'fghij']), text8, 4, tmp_path)
  assert [text8.decode(rows[i]) for i in range(len(rows))] == ['abcd', 'efgh']


def test_interrupted_preparation_goes_on_where_it_was(tmp_path, monkeypatch):
  monkeypatch.setattr(packing, '_PART', 2)

  def interrupted():
    yield from TEXTS[:3]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    packed_rows(Documents('set', 5, interrupted), PIECES, 5, tmp_path)
  (part,) = tmp_path.rglob('*.npy')
  before = part.stat().st_mtime_ns
  rows = packed_rows(documents(key='set'), PIECES, 5, tmp_path)
  assert part.stat().st_mtime_ns == before
  assert [rows[i].tolist() for i in range(len(rows))] == by_a_loop(TEXTS, PIECES, 5)
  # Prepared tokens are used, whatever the length; nothing is encoded again.
  again = packed_rows(Documents('set', 5, interrupted), PIECES, 6, tmp_path)
  assert again[0].tolist() == by_a_loop(TEXTS, PIECES, 6)[0]


def test_order_is_shuffled_and_resumed_exactly(tmp_path):
  rows = packed_rows(documents(), PIECES, 4, tmp_path)
  batches = training_batches(rows, batch_size=3, seed=1)
  for _ in range(5):
    next(batches)
  state = json.loads(json.dumps(batches.get_state()))
  expected = [next(batches).tokens.tolist() for _ in range(9)]
  fresh = training_batches(rows, batch_size=3, seed=1)
  fresh.set_state(state)
  assert [next(fresh).tokens.tolist() for _ in range(9)] == expected
  assert expected[0] != [rows[i].tolist() for i in range(3)]


def test_an_id_outside_the_vocabulary_is_named_with_its_record(tmp_path, monkeypatch):
  size = PIECES.vocab_size
  monkeypatch.setattr(
    type(PIECES), 'encode_text', lambda _, text: np.array([1, size - (text != 'b')])
  )
  with pytest.raises(
    BadInput, match=rf'record 1: a document: token id {size} is not in \[0, {size}'
  ):
    packed_rows(documents(['a', 'b', 'a']), PIECES, 4, tmp_path)


def test_unknown_characters_are_counted_told_and_refused(tmp_path):
  dna = get_tokenizer('dna')
  # Lower case is DNA, too; 2 of 100 characters are none.
  texts = ['acgtACGTnN' * 9, 'ACGTACGTZ!']
  with pytest.raises(BadInput, match=r"2 of 100 tokens of u-train \(2.00%: '!' 'Z'\)"):
    packed_rows(documents(texts, 'u-train'), dna, 10, tmp_path)
  journal.note('unknown in u-train', None, '')
  rows = packed_rows(documents(texts, 'u-train'), dna, 10, tmp_path, unknown_limit=0.02)
  assert journal.entries()['unknown in u-train'] == {'unknown': 2, 'tokens': 100}
  assert dna.decode(rows[0]) == 'ACGTACGTNN'
  text8 = get_tokenizer('text8')
  rows = packed_rows(documents(['Hello World'], 'v-train'), text8, 11, tmp_path)
  assert text8.decode(rows[0]) == 'hello world'
  # Other packages' caches have no count; it is made of the tokens.
  (tmp_path / 'tokens').rglob('unknown.json').__next__().unlink()
  with pytest.raises(BadInput, match='2 of 100'):
    packed_rows(documents(texts, 'u-train'), dna, 10, tmp_path)


def test_a_refused_document_is_named_with_its_place(tmp_path):
  found = Documents('w', 2, lambda: iter(['a', '\ud800']), lambda text: f'f: {text!a}')
  with pytest.raises(BadInput, match=r"f: '.ud800': text .*not Unicode"):
    packed_rows(found, PIECES, 4, tmp_path)


def test_too_little_text_and_damage_are_named(tmp_path):
  with pytest.raises(BadInput, match=r'data\.length: found 900; wanted at most'):
    packed_rows(documents(), PIECES, 900, tmp_path)
  with pytest.raises(BadInput, match='wanted at least 3'):
    packed_rows(documents(), PIECES, 2, tmp_path)
  with pytest.raises(BadInput, match=r'record 1: text .*not Unicode'):
    packed_rows(documents(['a', '\ud800'], 'bad'), PIECES, 4, tmp_path)
  (path,) = tmp_path.rglob('set-*/*.npy')
  path.write_bytes(path.read_bytes()[:90])
  with pytest.raises(DamagedData, match='delete this directory'):
    packed_rows(documents(), PIECES, 4, tmp_path)
