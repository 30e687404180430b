"""Bases and classes of species."""

import numpy as np
import pytest

from scmdm_jax.domains import registry
from scmdm_jax.domains.genomes.tokenizer import DNA
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput

THREE = get_tokenizer('species:3')


def test_bases_have_the_ids_of_the_published_characters():
  assert THREE.tokens[: DNA.vocab_size] == DNA.tokens
  assert THREE.tokens[DNA.vocab_size :] == ('<class 0>', '<class 1>', '<class 2>')
  assert THREE.class_ids == (12, 13, 14) and THREE.vocab_size == 15
  assert THREE.base_ids == (7, 8, 9, 10, 11)
  assert (THREE.mask_id, THREE.pad_id) == (DNA.mask_id, DNA.pad_id)


def test_names():
  for name in ('species:2', 'species:9', 'species:1000'):
    assert registry.is_built_in(name)
  for name in ('species:1', 'species:0', 'species:09', 'species:1001', 'species:x'):
    assert not registry.is_built_in(name)
    with pytest.raises(BadInput, match='is not known'):
      get_tokenizer(name)
  assert THREE.fingerprint == get_tokenizer('species:3').fingerprint
  assert THREE.fingerprint != get_tokenizer('species:4').fingerprint != DNA.fingerprint


def test_a_row_and_its_text():
  row = THREE.row(2, b'ACGTN')
  assert row.tolist() == [14, 7, 8, 9, 10, 11] and row.dtype == np.int32
  assert THREE.decode(row) == '<class 2>ACGTN'
  assert np.array_equal(THREE.encode('<class 2>ACGTN', 6), row)
  assert np.array_equal(THREE.encode_text('<class 2>ACGTN'), row)


def test_a_class_is_one_only_at_the_start():
  unknown = DNA.unk_id
  found = THREE.encode_text('A<class 2>')
  assert found.tolist()[:2] == [7, unknown] and 14 not in found
  with pytest.raises(BadInput, match='class 3; species:3 has 3, counted from 0'):
    THREE.encode_text('<class 3>A')


def test_the_other_strand():
  row = THREE.row(1, b'AACGTNG')
  assert THREE.decode(THREE.reverse_complement(row)) == '<class 1>CNACGTT'
  assert np.array_equal(THREE.reverse_complement(THREE.reverse_complement(row)), row)


def test_templates():
  mask = THREE.mask_id
  assert THREE.encode_prompt('<class 1>A_', 4).tolist() == [13, 7, mask, mask]
  # Without a class the class, too, is to be written.
  assert THREE.encode_prompt('A_', 4).tolist() == [mask, 7, mask, mask]
  assert THREE.encode_prompt('', 3).tolist() == [mask] * 3
