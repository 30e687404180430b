import json

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import layouts, model_config
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import DiTConfig, ModelDescription
from tests.checkpoints import manifests

CASES = [
  (manifests.MDLM_CONFIG, manifests.SMALL_MDLM),
  (manifests.LLAMA_CONFIG, manifests.SMALL_LLAMA),
]
BUFFER = 'backbone.rotary_emb.inv_freq'


def describe(config, **changes):
  return model_config.description_from_config(config | changes, 'config.json')


@pytest.mark.parametrize(('config', 'shapes'), CASES, ids=['mdlm', 'llama'])
def test_manifest_equals_the_independent_list(config, shapes):
  found = {n: e.shape for n, e in layouts.manifest(describe(config)).items()}
  assert found == {n: s for n, s in shapes.items() if n != BUFFER}


def test_published_model_counts():
  description = ModelDescription(DiTConfig(50258, 1024, 768, 12, 12, 128), 50257, '')
  sizes = [np.prod(e.shape) for e in layouts.manifest(description).values()]
  # kuleshov-group/mdlm-owt: 131 tensors, of which inv_freq is no parameter.
  assert len(sizes) == len(manifests.mdlm()) - 1 == 130
  assert sum(sizes) == 169_627_218


@pytest.mark.parametrize('injection', ['none', 'embedding', 'mlp', 'table', 'gate'])
@pytest.mark.parametrize(('config', 'shapes'), CASES, ids=['mdlm', 'llama'])
def test_round_trip_is_bitwise(config, shapes, injection):
  description = describe(config, self_conditioning=injection, mask_token_id=3)
  extra = {n: e.shape for n, e in layouts.manifest(description).items()}
  tensors = manifests.random_tensors(shapes | extra)
  layouts.check(description, {n: t.shape for n, t in tensors.items()}, 'here')
  params = layouts.params_from_tensors(description, tensors.items())
  back = layouts.tensors_from_params(description, params)
  assert back.keys() == tensors.keys()
  for name in tensors:
    if name != BUFFER:
      assert back[name].tobytes() == tensors[name].tobytes(), name
  names = {n for n in tensors if n.startswith('self_conditioning.')}
  assert bool(names) == (injection != 'none')


def test_kernels_are_transposed_and_tables_are_not():
  description = describe(manifests.MDLM_CONFIG, self_conditioning='embedding')
  shapes = {n: e.shape for n, e in layouts.manifest(description).items()}
  tensors = manifests.random_tensors(shapes)
  params = layouts.params_from_tensors(description, tensors.items())
  backbone = params['backbone']
  np.testing.assert_array_equal(
    backbone['blocks_1']['attn_qkv']['kernel'],
    tensors['backbone.blocks.1.attn_qkv.weight'].T,
  )
  np.testing.assert_array_equal(
    backbone['vocab_embed']['embedding'], tensors['backbone.vocab_embed.embedding']
  )
  np.testing.assert_array_equal(
    params['self_conditioning']['projection']['kernel'],
    tensors['self_conditioning.projection.kernel'],
  )


def test_exported_inv_freq():
  description = describe(manifests.MDLM_CONFIG)
  shapes = {n: e.shape for n, e in layouts.manifest(description).items()}
  tensors = manifests.random_tensors(shapes)
  params = layouts.params_from_tensors(description, tensors.items())
  # Head size 8: 10000^(-2i/8).
  np.testing.assert_allclose(
    layouts.tensors_from_params(description, params)[BUFFER],
    [1, 0.1, 0.01, 0.001],
    rtol=1e-7,
  )


def test_all_problems_come_at_once():
  shapes = dict(manifests.SMALL_MDLM)
  del shapes['backbone.blocks.0.norm1.weight']
  del shapes['backbone.output_layer.linear.bias']
  shapes['backbone.cond_map.embedding_table.weight'] = (4, 8)
  shapes['extra'] = ()
  shapes['backbone.blocks.1.attn_qkv.weight'] = (16, 48)
  shapes[BUFFER] = (2,)
  with pytest.raises(BadInput) as caught:
    layouts.check(describe(manifests.MDLM_CONFIG), shapes, 'some/dir')
  message = str(caught.value)
  assert message.startswith('some/dir: 6 tensors do not fit the mdlm layout')
  assert '\n' not in message
  for problem in (
    'missing backbone.blocks.0.norm1.weight [16]',
    'missing backbone.output_layer.linear.bias [11]',
    'unknown backbone.cond_map.embedding_table.weight',
    'unknown extra',
    'misshaped backbone.blocks.1.attn_qkv.weight: got [16, 48], wanted [48, 16]',
    f'misshaped {BUFFER}: got [2], wanted [4]',
  ):
    assert problem in message


def test_rotary_buffers_are_optional():
  shapes = {n: s for n, s in manifests.SMALL_MDLM.items() if n != BUFFER}
  layouts.check(describe(manifests.MDLM_CONFIG), shapes, 'here')
  buffer = {'model.layers.1.self_attn.rotary_emb.inv_freq': (2,)}
  layouts.check(
    describe(manifests.LLAMA_CONFIG), manifests.SMALL_LLAMA | buffer, 'here'
  )


def test_absurd_depth_is_refused_at_once():
  description = describe(manifests.MDLM_CONFIG, n_blocks=10_000)
  with pytest.raises(BadInput, match='10000 blocks, but only'):
    layouts.check(description, manifests.SMALL_MDLM, 'here')


def test_leaves_are_float32_numpy():
  description = describe(manifests.LLAMA_CONFIG)
  tensors = manifests.random_tensors(manifests.SMALL_LLAMA)
  params = layouts.params_from_tensors(description, tensors.items())
  for leaf in jax.tree.leaves(params):
    assert isinstance(leaf, np.ndarray)
    assert leaf.dtype == np.float32
    assert leaf.flags['C_CONTIGUOUS']


def test_config_is_plain_json():
  for config, _ in CASES:
    exported = model_config.config_from_description(describe(config))
    assert json.loads(json.dumps(exported)) == exported
