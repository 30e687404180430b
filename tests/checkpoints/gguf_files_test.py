import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from scmdm_jax.checkpoints import gguf_files, layouts, model_config
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from tests.checkpoints import llama_numpy_reference
from tests.checkpoints import tiny_gguf as tiny
from tests.compiling import quick_jit

IDS = np.random.default_rng(1).integers(0, tiny.VOCAB, 9).astype(np.int32)


@pytest.fixture
def written(tmp_path):
  def write(data):
    path = tmp_path / 'model.gguf'
    path.write_bytes(data)
    return path

  return write


def our_model(source):
  """Description and parameters, as an import makes them."""
  description = model_config.description_from_config(source.config, str(source.where))
  entries = layouts.check(description, source.shapes, str(source.where))
  params = {'backbone': {}, layouts.SELF_CONDITIONING: {}}
  for name, entry in entries.items():
    node = params
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    node[entry.path[-1]] = entry.from_file(source.read(name).astype(np.float32))
  return description, params


def test_config_is_what_the_file_says(written):
  source = gguf_files.open_source(written(tiny.llama()))
  assert source.where.name == 'model.gguf'
  assert source.num_bytes == source.where.stat().st_size
  assert source.config == {
    'model_type': 'llama',
    'vocab_size': tiny.VOCAB,
    'max_position_embeddings': 24,
    'hidden_size': tiny.WIDTH,
    'num_hidden_layers': tiny.BLOCKS,
    'num_attention_heads': tiny.HEADS,
    'num_key_value_heads': tiny.KV_HEADS,
    'intermediate_size': tiny.MLP,
    'rms_norm_eps': 1e-5,  # Not 9.99999975e-06, the float32.
    'rope_theta': 5000.0,
    'bos_token_id': 0,
    'eos_token_id': 0,
    'tie_word_embeddings': False,
  }
  json.dumps(source.config)


def test_a_directory_with_one_file_is_that_file(written, tmp_path):
  written(tiny.llama())
  assert gguf_files.open_source(tmp_path).where == tmp_path / 'model.gguf'
  (tmp_path / 'other.gguf').write_bytes(b'')
  with pytest.raises(BadInput, match=r'found model\.gguf, other\.gguf; give one'):
    gguf_files.open_source(tmp_path)


def test_a_link_out_of_the_directory_is_refused(written, tmp_path):
  model = tmp_path / 'model'
  model.mkdir()
  (model / 'x.gguf').symlink_to(written(tiny.llama()))
  with pytest.raises(BadInput, match=r'x\.gguf: a link that leaves the directory'):
    gguf_files.open_source(model)
  # Named by the user, not by what was downloaded.
  assert gguf_files.open_source(model / 'x.gguf').config['model_type'] == 'llama'


def test_nothing_there(tmp_path):
  with pytest.raises(BadInput, match=r'found no \*\.gguf'):
    gguf_files.open_source(tmp_path)
  with pytest.raises(BadInput, match='no such file'):
    gguf_files.open_source(tmp_path / 'x.gguf')


@pytest.mark.parametrize('architecture', ['llama', 'qwen2'])
def test_tensors_are_those_of_the_hugging_face_layout(written, architecture):
  wanted = tiny.hugging_face_tensors(biases=architecture == 'qwen2')
  source = gguf_files.open_source(written(tiny.llama(architecture)))
  assert source.tensors.keys() == wanted.keys()
  for name, value in wanted.items():
    assert source.tensors[name].shape == value.shape
    assert source.tensors[name].dtype == 'F32'
    found = source.read(name)
    assert found.flags.c_contiguous
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize('tied', [False, True])
def test_logits_are_those_of_the_tensors(written, tied):
  weights = tiny.hugging_face_tensors()
  tensors = tiny.tensors(weights)
  if tied:
    del tensors['output.weight']
    weights['lm_head.weight'] = weights['model.embed_tokens.weight']
  source = gguf_files.open_source(written(tiny.file(tiny.llama_fields(), tensors)))
  assert source.config['tie_word_embeddings'] is tied
  description, params = our_model(source)
  assert description.mask_id is None
  assert description.architecture.causal

  @quick_jit
  def logits(params, tokens):
    network = denoiser.bind(params, description)
    nothing = jax.numpy.zeros((*tokens.shape, tiny.WIDTH))
    sigma = jax.numpy.zeros(tokens.shape[:1])
    return network.logits(network.encode(tokens, nothing, sigma))

  found = logits(params, IDS[None])[0]
  wanted = llama_numpy_reference.forward(weights, source.config, IDS)
  # Float32 against float64, logits of order 1.
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  assert np.abs(wanted).max() > 0.5


def test_half_precision_is_kept(written):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(tiny.WIDTH, tiny.MLP))
  for kind, dtype, name in (
    (tiny.F16, np.dtype(np.float16), 'F16'),
    (tiny.BF16, np.dtype(ml_dtypes.bfloat16), 'BF16'),
  ):
    value = x.astype(dtype)
    tensors = tiny.tensors(tiny.hugging_face_tensors())
    tensors['blk.0.ffn_down.weight'] = x.shape, kind, value.tobytes()
    source = gguf_files.open_source(written(tiny.file(tiny.llama_fields(), tensors)))
    down = 'model.layers.0.mlp.down_proj.weight'
    assert source.tensors[down].dtype == name
    assert source.read(down).dtype == dtype
    np.testing.assert_array_equal(source.read(down), value)


def q8_0(rng):
  """One block of 32: a float16 scale, 32 signed bytes."""
  scale = np.float16(rng.normal())
  numbers = rng.integers(-128, 128, 32).astype(np.int8)
  data = scale.tobytes() + numbers.tobytes()
  return data, [np.float32(scale) * np.float32(n) for n in numbers]


def q4_0(rng):
  """A scale, 16 bytes; the low halves are the first 16 numbers; 8 is zero."""
  scale = np.float16(rng.normal())
  packed = rng.integers(0, 256, 16).astype(np.uint8)
  halves = [int(b) % 16 for b in packed] + [int(b) // 16 for b in packed]
  data = scale.tobytes() + packed.tobytes()
  return data, [np.float32(scale) * np.float32(h - 8) for h in halves]


def q4_1(rng):
  """A scale and a minimum, 16 bytes as before."""
  scale, least = np.float16(rng.normal()), np.float16(rng.normal())
  packed = rng.integers(0, 256, 16).astype(np.uint8)
  halves = [int(b) % 16 for b in packed] + [int(b) // 16 for b in packed]
  data = scale.tobytes() + least.tobytes() + packed.tobytes()
  return data, [np.float32(scale) * np.float32(h) + np.float32(least) for h in halves]


@pytest.mark.parametrize(
  ('kind', 'block'), [(tiny.Q8_0, q8_0), (tiny.Q4_0, q4_0), (tiny.Q4_1, q4_1)]
)
def test_quantised_tensors_are_read_as_float32(written, kind, block):
  rng = np.random.default_rng(0)
  blocks = [block(rng) for _ in range(tiny.WIDTH)]  # One to a row.
  tensors = tiny.tensors(tiny.hugging_face_tensors())
  data = b''.join(data for data, _ in blocks)
  tensors['blk.0.ffn_down.weight'] = (tiny.WIDTH, tiny.MLP), kind, data
  source = gguf_files.open_source(written(tiny.file(tiny.llama_fields(), tensors)))
  found = source.read('model.layers.0.mlp.down_proj.weight')
  assert found.dtype == np.float32
  # A multiplication and an addition in float32, in either order of rounding.
  np.testing.assert_allclose(found, [row for _, row in blocks], rtol=1e-6, atol=1e-6)


def test_a_file_that_shrinks_is_damaged(written):
  path = written(tiny.llama())
  source = gguf_files.open_source(path)
  path.write_bytes(path.read_bytes()[:-64])
  with pytest.raises(DamagedData, match=r"'lm_head\.weight' is truncated"):
    source.read('lm_head.weight')


@pytest.mark.parametrize(
  ('changed', 'line'),
  [
    ({'general.architecture': (tiny.STRING, 'gemma3')}, "is 'gemma3'; wanted one of"),
    ({'general.architecture': None}, 'general.architecture is None'),
    ({'general.architecture': ((tiny.ARRAY, tiny.INT32), [1, 2])}, 'wanted one of'),
    ({'llama.context_length': None}, 'no llama.context_length'),
    ({'llama.block_count': (tiny.STRING, '2')}, "block_count is '2'; wanted a number"),
    (
      {'llama.attention.head_count': ((tiny.ARRAY, tiny.INT32), [4, 4])},
      r'head_count is array\(.*wanted a number',
    ),
    ({'llama.rope.scaling.type': (tiny.STRING, 'yarn')}, "scaling.type is 'yarn'"),
    ({'llama.rope.scaling.factor': (tiny.FLOAT32, 4.0)}, 'scaling.factor is 4.0'),
    ({'llama.rope.dimension_count': (tiny.UINT32, 2)}, 'dimension_count is 2; only'),
    ({'llama.attention.key_length': (tiny.UINT32, 8)}, 'dimension_count is 4; only'),
    ({'llama.attention.value_length': (tiny.UINT32, 8)}, 'value_length is 8; only'),
    ({'llama.expert_count': (tiny.UINT32, 8)}, 'expert_count is 8'),
    ({'llama.attention.sliding_window': (tiny.UINT32, 8)}, 'sliding_window is 8'),
    ({'llama.attention.causal': (tiny.BOOL, False)}, 'causal is False'),
    ({'llama.logit_scale': (tiny.FLOAT32, 0.5)}, 'logit_scale is 0.5'),
    ({'split.count': (tiny.UINT32, 3)}, 'one of 3 parts'),
  ],
)
def test_what_is_not_computed_is_refused_by_name(written, changed, line):
  path = written(tiny.llama(**changed))
  with pytest.raises(BadInput, match=line) as caught:
    gguf_files.open_source(path)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_neutral_values_are_no_reason_to_refuse(written):
  source = gguf_files.open_source(
    written(
      tiny.llama(
        **{
          'llama.expert_count': (tiny.UINT32, 0),
          'llama.rope.scaling.type': (tiny.STRING, 'none'),
          'llama.attention.key_length': (tiny.UINT32, tiny.WIDTH // tiny.HEADS),
          'llama.vocab_size': (tiny.UINT32, tiny.VOCAB),
        }
      )
    )
  )
  description, _ = our_model(source)
  assert description.architecture.vocab_size == tiny.VOCAB


def test_heads_that_the_weights_do_not_have_are_refused(written):
  changed = {
    'llama.attention.key_length': (tiny.UINT32, 8),
    'llama.rope.dimension_count': (tiny.UINT32, 8),
  }
  source = gguf_files.open_source(written(tiny.llama(**changed)))
  with pytest.raises(
    BadInput, match=r'q_proj.weight: got \[16, 16\], wanted \[32, 16\]'
  ):
    our_model(source)


def test_tensors_that_do_not_fit_are_all_named(written):
  tensors = tiny.tensors(tiny.hugging_face_tensors())
  del tensors['blk.1.attn_q.weight']
  tensors['blk.0.attn_q.bias'] = tiny.zeros((tiny.WIDTH,), tiny.F32)
  tensors['blk.0.ffn_gate_exps.weight'] = tiny.zeros((4, tiny.WIDTH), tiny.F32)
  tensors['output_norm.weight'] = tiny.zeros((8,), tiny.F32)
  source = gguf_files.open_source(written(tiny.file(tiny.llama_fields(), tensors)))
  with pytest.raises(BadInput, match='4 tensors do not fit') as caught:
    our_model(source)
  for name in (
    'missing model.layers.1.self_attn.q_proj.weight',
    'unknown model.layers.0.self_attn.q_proj.bias',
    'unknown blk.0.ffn_gate_exps.weight',
    'misshaped model.norm.weight: got [8], wanted [16]',
  ):
    assert name in str(caught.value)


def test_scaled_rotary_positions_are_refused(written):
  tensors = tiny.tensors(tiny.hugging_face_tensors())
  tensors['rope_freqs.weight'] = tiny.zeros((2,), tiny.F32)
  path = written(tiny.file(tiny.llama_fields(), tensors))
  with pytest.raises(
    BadInput, match=r'rope_freqs\.weight: rotary positions are scaled'
  ):
    gguf_files.open_source(path)


def test_one_tensor_under_two_names_is_refused(written):
  tensors = tiny.tensors(tiny.hugging_face_tensors())
  tensors['model.norm.weight'] = tensors['output_norm.weight']
  path = written(tiny.file(tiny.llama_fields(), tensors))
  with pytest.raises(DamagedData, match=r'model\.norm\.weight.* under two names'):
    gguf_files.open_source(path)


def test_a_quantisation_that_cannot_be_undone_is_refused(written):
  tensors = tiny.tensors(tiny.hugging_face_tensors())
  tensors['blk.0.ffn_down.weight'] = tiny.zeros((tiny.WIDTH, tiny.MLP), tiny.Q8_1)
  path = written(tiny.file(tiny.llama_fields(), tensors))
  with pytest.raises(BadInput, match=r"'blk\.0\.ffn_down\.weight' is Q8_1"):
    gguf_files.open_source(path)


def test_a_source_says_what_other_sources_say(written):
  source = gguf_files.open_source(written(tiny.llama()))
  tensor = source.tensors['model.norm.weight']
  assert {'file', 'shape', 'dtype'} <= {f.name for f in dataclasses.fields(tensor)}
  assert tensor.file == source.where
