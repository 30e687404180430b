import time

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.checkpoints import layouts, model_config
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.gpt2 import GPT2Config
from scmdm_jax.models.families.llama import DecoderConfig
from tests.checkpoints import manifests

CASES = list(manifests.CASES.values())
BUFFER = 'backbone.rotary_emb.inv_freq'
DTYPES = {'float32': np.float32, 'float16': np.float16, 'bfloat16': ml_dtypes.bfloat16}
# (description, independent list, parameters): the published models.
PUBLISHED = {
  'mdlm-owt': (
    ModelDescription(DiTConfig(50258, 1024, 768, 12, 12, 128), 50257, ''),
    manifests.mdlm(),
    169_627_218,
  ),
  'llada-8b': (
    ModelDescription(
      DecoderConfig(126464, 4096, 4096, 32, 32, 32, 12288, 5e5, causal=False),
      126336,
      '',
      family='llada',
    ),
    manifests.llada(),
    8_015_581_184,
  ),
  'dream-7b': (
    ModelDescription(
      DecoderConfig(
        152064,
        131072,
        3584,
        28,
        28,
        4,
        18944,
        1e6,
        1e-6,
        causal=False,
        qkv_bias=True,
        shifted=True,
      ),
      151666,
      '',
      family='dream',
    ),
    manifests.dream(),
    7_615_616_512,
  ),
  'gpt2-large': (
    ModelDescription(GPT2Config(50257, 1024, 1280, 36, 20, 5120), None, ''),
    manifests.gpt2(),
    774_030_080,
  ),
}


def describe(config, **changes):
  return model_config.description_from_config(config | changes, 'config.json')


def without_buffer(shapes):
  return {name: shape for name, shape in shapes.items() if name != BUFFER}


def shapes_of(description):
  return {name: entry.shape for name, entry in layouts.entries_of(description).items()}


@pytest.mark.parametrize(('config', 'shapes'), CASES, ids=list(manifests.CASES))
def test_manifest_equals_the_independent_list(config, shapes):
  assert shapes_of(describe(config)) == without_buffer(shapes)


@pytest.mark.parametrize('name', list(PUBLISHED))
def test_published_models(name):
  description, listed, count = PUBLISHED[name]
  start = time.process_time()
  found = shapes_of(description)
  # Half a second; and no memory, since nothing is computed.
  assert time.process_time() - start < 5
  assert found == without_buffer(listed)
  assert sum(int(np.prod(shape)) for shape in found.values()) == count
  # kuleshov-group/mdlm-owt: 131 with inv_freq. GPT-2: 12 in a block and 4 around.
  tensors = {'mdlm-owt': 130, 'llada-8b': 291, 'dream-7b': 339, 'gpt2-large': 436}
  assert len(found) == tensors[name]


@pytest.mark.parametrize('dtype', list(DTYPES))
@pytest.mark.parametrize(('config', 'shapes'), CASES, ids=list(manifests.CASES))
def test_every_tensor_comes_back_bitwise(config, shapes, dtype):
  description = describe(config)
  tensors = manifests.random_tensors(without_buffer(shapes))
  tensors = {name: value.astype(DTYPES[dtype]) for name, value in tensors.items()}
  entries = layouts.check(description, {n: t.shape for n, t in tensors.items()}, 'here')
  assert entries == layouts.entries_of(description)
  for name, entry in entries.items():
    ours = entry.from_file(tensors[name])
    back = entry.to_file(ours)
    assert back.flags['C_CONTIGUOUS']
    assert ours.dtype == back.dtype == tensors[name].dtype
    assert back.shape == entry.shape
    assert back.tobytes() == tensors[name].tobytes(), name


@pytest.mark.parametrize('shape', [(1, 5), (127, 3), (128, 2), (300, 130)])
def test_transposition_in_strips(shape):
  entry = layouts.Entry(('backbone', 'kernel'), shape, transposed=True)
  value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  np.testing.assert_array_equal(entry.to_file(value), value.T)
  # Neither order of memory matters.
  np.testing.assert_array_equal(entry.to_file(np.asfortranarray(value)), value.T)


def test_which_tensors_are_transposed():
  entries = layouts.entries_of(describe(manifests.MDLM_CONFIG, self_conditioning='mlp'))
  assert entries['backbone.blocks.1.attn_qkv.weight'] == layouts.Entry(
    ('backbone', 'blocks_1', 'attn_qkv', 'kernel'), (48, 16), True
  )
  assert not entries['backbone.vocab_embed.embedding'].transposed
  # Ours lie in the file as they are.
  assert entries['self_conditioning.down.kernel'] == layouts.Entry(
    ('self_conditioning', 'down', 'kernel'), (16, 16), False
  )
  entries = layouts.entries_of(describe(manifests.LLADA_CONFIG))
  assert entries['model.transformer.blocks.1.ff_out.weight'] == layouts.Entry(
    ('backbone', 'layers_1', 'mlp', 'down_proj', 'kernel'), (16, 24), True
  )
  assert entries['model.transformer.ff_out.weight'].path == (
    'backbone',
    'lm_head',
    'kernel',
  )
  assert not any(
    entry.transposed
    for entry in layouts.entries_of(describe(manifests.GPT2_CONFIG)).values()
  )


@pytest.mark.parametrize('injection', ['none', 'embedding', 'mlp', 'table', 'gate'])
def test_self_conditioning_travels_under_its_own_prefix(injection):
  changes = {'self_conditioning': injection, 'mask_token_id': 3}
  for config, shapes in manifests.CASES.values():
    found = shapes_of(describe(config, **changes))
    extra = found.keys() - without_buffer(shapes).keys()
    assert bool(extra) == (injection != 'none')
    assert all(name.startswith('self_conditioning.') for name in extra)


def test_buffers_of_an_export():
  # Head size 8: 10000^(-2i/8).
  found = layouts.buffers(describe(manifests.MDLM_CONFIG))
  assert list(found) == [BUFFER]
  np.testing.assert_allclose(found[BUFFER], [1, 0.1, 0.01, 0.001], rtol=1e-7)
  assert found[BUFFER].dtype == np.float32
  assert layouts.buffers(describe(manifests.LLAMA_CONFIG)) == {}


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


IGNORED = {
  'mdlm': {BUFFER: (4,)},
  'llama': {
    'model.rotary_emb.inv_freq': (2,),
    'model.layers.1.self_attn.rotary_emb.inv_freq': (2,),
  },
  'tied_llama': {'lm_head.weight': (11, 16)},
  'gpt2': {
    'h.0.attn.bias': (1, 1, 12, 12),
    'h.1.attn.masked_bias': (),
    'lm_head.weight': (11, 16),
  },
}


@pytest.mark.parametrize('name', list(IGNORED))
def test_what_is_accepted_and_not_read(name):
  config, shapes = manifests.CASES[name]
  plain, description = without_buffer(shapes), describe(config)
  assert (
    layouts.check(description, plain | IGNORED[name], 'here').keys() == plain.keys()
  )
  for ignored in IGNORED[name]:
    with pytest.raises(BadInput, match=f'misshaped {ignored}: got .7.'):
      layouts.check(description, plain | {ignored: (7,)}, 'here')


def test_a_second_head_is_no_buffer_where_there_is_a_first():
  shapes = manifests.SMALL_LLADA | {'lm_head.weight': (11, 16)}
  with pytest.raises(BadInput, match=r'unknown lm_head\.weight'):
    layouts.check(describe(manifests.LLADA_CONFIG), shapes, 'here')
  # A tied LLaDA carries its head under its own name.
  tied = describe(manifests.LLADA_CONFIG, weight_tying=True)
  found = layouts.check(tied, manifests.SMALL_LLADA, 'here')
  missing = manifests.SMALL_LLADA.keys() - found.keys()
  assert missing == {'model.transformer.ff_out.weight'}


def test_prefix_of_gpt2():
  description, shapes = describe(manifests.GPT2_CONFIG), manifests.SMALL_GPT2
  prefixed = {f'transformer.{name}': shape for name, shape in shapes.items()}
  found = layouts.check(description, prefixed | {'lm_head.weight': (11, 16)}, 'here')
  assert found == {
    f'transformer.{name}': entry
    for name, entry in layouts.entries_of(description).items()
  }
  both = shapes | {'transformer.wte.weight': (11, 16)}
  with pytest.raises(BadInput, match=r'twice transformer\.wte\.weight, also as wte\.w'):
    layouts.check(description, both, 'here')
  # It is no prefix elsewhere.
  wrong = {f'transformer.{n}': s for n, s in manifests.SMALL_LLAMA.items()}
  with pytest.raises(BadInput, match=r'unknown transformer\.model\.norm\.weight'):
    layouts.check(describe(manifests.LLAMA_CONFIG), wrong, 'here')


def test_absurd_depth_is_refused_at_once():
  description = describe(manifests.MDLM_CONFIG, n_blocks=10_000)
  with pytest.raises(BadInput, match='10000 blocks, but only'):
    layouts.check(description, manifests.SMALL_MDLM, 'here')


def test_paths_are_those_of_the_parameters():
  for config, _ in manifests.CASES.values():
    description = describe(config)
    leaves = jax.tree_util.tree_leaves_with_path(denoiser.abstract_params(description))
    paths = {tuple(key.key for key in keys) for keys, _ in leaves}
    assert {entry.path for entry in layouts.entries_of(description).values()} == paths
