"""Descriptions survive JSON and refuse what cannot be built."""

import dataclasses
import json

import pytest

from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.models.injection import INJECTIONS

DIT = DiTConfig(
  vocab_size=35, length=32, hidden_dim=48, num_blocks=3, num_heads=4, cond_dim=16
)
DECODER = DecoderConfig(
  vocab_size=34,
  length=32,
  hidden_dim=32,
  num_blocks=2,
  num_heads=4,
  num_kv_heads=2,
  mlp_dim=64,
)


def describe(arch=DIT, mask_id=34, tokenizer='smiles', injection='embedding'):
  return ModelDescription(arch, mask_id, tokenizer, injection)


@pytest.mark.parametrize(
  ('description', 'layout'),
  [
    (describe(), 'mdlm'),
    (
      describe(
        dataclasses.replace(DIT, time_conditioning=True, mlp_ratio=2), injection='gate'
      ),
      'mdlm',
    ),
    (describe(DECODER, None, injection='none'), 'llama'),
    (
      describe(
        dataclasses.replace(DECODER, causal=False, rope_theta=5e5, norm_eps=1e-6), 0
      ),
      'llama',
    ),
    (dataclasses.replace(describe(), framing='start_end'), 'mdlm'),
  ],
)
def test_round_trip_through_json(description, layout):
  data = json.loads(json.dumps(description.to_dict()))
  assert data['layout'] == description.family == layout
  sizes = json.loads(json.dumps(dataclasses.asdict(description.architecture)))
  assert data['architecture'] == sizes
  found = ModelDescription.from_dict(data)
  assert found == description
  assert type(found.architecture) is type(description.architecture)
  # The caller's dictionary is left as it was.
  assert data == json.loads(json.dumps(description.to_dict()))


def test_defaults():
  data = describe().to_dict()
  del data['architecture']['mlp_ratio'], data['architecture']['time_conditioning']
  del data['injection'], data['framing']  # As before there was such a field.
  found = ModelDescription.from_dict(data)
  assert found.framing == ''
  assert found.architecture == DIT and found.injection == 'none'
  assert found.architecture.mlp_ratio == 4
  assert not found.architecture.time_conditioning


def test_descriptions_are_values():
  assert hash(describe()) == hash(describe())
  with pytest.raises(dataclasses.FrozenInstanceError):
    describe().mask_id = 3


@pytest.mark.parametrize('injection', INJECTIONS)
def test_every_injection_is_accepted(injection):
  assert describe(injection=injection).injection == injection


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'injection': 'concat'}, "injection is 'concat'; wanted one of"),
    ({'mask_id': 35}, 'mask_id 35 lies outside the vocabulary of 35'),
    ({'mask_id': -1}, 'mask_id -1 lies outside'),
    ({'mask_id': None}, "injection 'embedding' needs a mask_id"),
  ],
)
def test_contradictions(change, message):
  with pytest.raises(ValueError, match=message):
    describe(**change)


@pytest.mark.parametrize(
  ('sizes', 'change', 'message'),
  [
    (DIT, {'num_heads': 5}, 'hidden_dim 48 is not a multiple of num_heads 5'),
    (DIT, {'num_heads': 16}, r'even head size; 48 / 16'),
    (DECODER, {'num_heads': 16, 'num_kv_heads': 3}, 'num_kv_heads 3 does not divide'),
    (DIT, {'grid': (1, 4, 4)}, r'grid is \(1, 4, 4\); wanted .* length, 32'),
  ],
)
def test_sizes_that_contradict_each_other(sizes, change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(sizes, **change)


def test_a_family_of_other_sizes_is_refused():
  with pytest.raises(ValueError, match="family is 'llama', which has no DiTConfig"):
    ModelDescription(DIT, 34, '', family='llama')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'layout': 'bert'}, "layout is 'bert'; wanted one of"),
    ({'layout': None}, 'layout is None'),
    ({'colour': 'red'}, 'colour'),
    ({'architecture': {'vocab_size': 3}}, "'length'"),
    ({'architecture': {**dataclasses.asdict(DIT), 'depth': 3}}, 'depth'),
    # The sizes of one layout under the name of the other.
    ({'layout': 'llama'}, 'cond_dim'),
    ({'injection': 'concat'}, 'concat'),
  ],
)
def test_bad_data(change, message):
  with pytest.raises(ValueError, match=message):
    ModelDescription.from_dict(describe().to_dict() | change)


@pytest.mark.parametrize('field', ['layout', 'architecture', 'mask_id', 'tokenizer'])
def test_missing_fields(field):
  data = describe().to_dict()
  del data[field]
  with pytest.raises(ValueError, match=field):
    ModelDescription.from_dict(data)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('num_heads', 0),
    ('mlp_ratio', 0),
    ('num_blocks', '3'),
    ('hidden_dim', -96),
    ('vocab_size', 10**30),
    ('num_blocks', 10**8),
    ('length', True),
  ],
)
def test_impossible_sizes_are_refused(name, value):
  data = ModelDescription(DiTConfig(35, 32, 16, 1, 2, 8), 2, '').to_dict()
  data['architecture'][name] = value
  with pytest.raises(ValueError, match=name):
    ModelDescription.from_dict(data)
