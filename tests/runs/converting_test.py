import json
import os

import jax
import ml_dtypes  # noqa: F401 (names bfloat16 for NumPy)
import numpy as np
import pytest
import safetensors.numpy

from scmdm_jax.checkpoints import (
  carried,
  digests,
  layouts,
  model_config,
  safetensors_files,
  store,
)
from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from scmdm_jax.runs import converting
from scmdm_jax.verbs import export
from tests.checkpoints import manifests, tiny_gguf

INV_FREQ = 'backbone.rotary_emb.inv_freq'
PROJECTION = {'self_conditioning.projection.kernel': (16, 16)}
CASES = {
  'mdlm': (manifests.MDLM_CONFIG, manifests.SMALL_MDLM),
  'mdlm+sc': (
    manifests.MDLM_CONFIG | {'self_conditioning': 'embedding', 'tokenizer': 'qm9'},
    manifests.SMALL_MDLM | PROJECTION,
  ),
  'llama': (manifests.LLAMA_CONFIG, manifests.SMALL_LLAMA),
}


def make_source(tmp_path, case):
  config, shapes = CASES[case]
  tensors = manifests.random_tensors(shapes)
  return manifests.write_directory(tmp_path / 'source', config, tensors), tensors


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_import_then_export_is_bitwise(tmp_path, case):
  source, tensors = make_source(tmp_path, case)
  figures = converting.import_model(str(source), str(tmp_path / 'model'))
  counted = [t for name, t in tensors.items() if name != INV_FREQ]
  assert figures == {
    'layout': case.split('+')[0],
    'tensors': len(tensors),
    'parameters': sum(t.size for t in counted),
    'bytes': sum(t.nbytes for t in counted),
    'tokenizer': CASES[case][0].get('tokenizer', ''),
    'path': str(tmp_path / 'model'),
  }
  json.dumps(figures)
  # From the model, and from a training workdir around it.
  (tmp_path / 'run').mkdir()
  (tmp_path / 'model').rename(tmp_path / 'run' / 'model')
  exported = export.export_model(str(tmp_path / 'run'), str(tmp_path / 'out'))
  assert exported['parameters'] == figures['parameters']
  opened = safetensors_files.open_source(tmp_path / 'out')
  back = {name: opened.read(name) for name in opened.tensors}
  assert back.keys() == tensors.keys()
  for name, value in tensors.items():
    if name != INV_FREQ:
      assert back[name].tobytes() == value.tobytes(), name
  # And what was exported can be imported: the very same bytes again.
  converting.import_model(str(tmp_path / 'out'), str(tmp_path / 'again'))
  export.export_model(str(tmp_path / 'again'), str(tmp_path / 'out2'))
  for name in ('model.safetensors', 'config.json'):
    first = (tmp_path / 'out' / name).read_bytes()
    assert (tmp_path / 'out2' / name).read_bytes() == first
  # Nothing temporary is left beside the results.
  assert sorted(os.listdir(tmp_path)) == ['again', 'out', 'out2', 'run', 'source']


def test_every_wrong_tensor_is_in_the_message(tmp_path):
  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  del tensors['backbone.output_layer.linear.bias']
  tensors['surprise'] = np.zeros(3, np.float32)
  name = 'backbone.blocks.0.attn_qkv.weight'
  tensors[name] = np.ascontiguousarray(tensors[name].T)
  source = manifests.write_directory(tmp_path / 's', manifests.MDLM_CONFIG, tensors)
  with pytest.raises(BadInput) as caught:
    converting.import_model(str(source), str(tmp_path / 'model'))
  message = str(caught.value)
  assert 'missing backbone.output_layer.linear.bias [11]' in message
  assert 'unknown surprise' in message
  assert f'misshaped {name}: got [16, 48], wanted [48, 16]' in message
  assert sorted(os.listdir(tmp_path)) == ['s']


def test_occupied_destinations_are_refused_first(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')
  taken = tmp_path / 'taken'
  taken.mkdir()
  (taken / 'notes.txt').write_text('mine')
  for verb in (converting.import_model, export.export_model):
    with pytest.raises(BadInput, match=r'taken: not empty \(holds notes.txt\)'):
      verb(str(source), str(taken))
    with pytest.raises(BadInput, match=r'notes\.txt: a file; give a new directory'):
      verb(str(source), str(taken / 'notes.txt'))
  assert (taken / 'notes.txt').read_text() == 'mine'
  # An empty directory will do.
  (tmp_path / 'empty').mkdir()
  converting.import_model(str(source), str(tmp_path / 'empty'))
  assert store.load_model(tmp_path / 'empty')[0].family == 'mdlm'


def test_an_export_does_not_go_into_its_own_source(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')
  model = tmp_path / 'run' / 'model'
  converting.import_model(str(source), str(model))
  for inside in (model / 'out', model / 'params' / 'a' / 'b'):
    with pytest.raises(BadInput, match='inside the checkpoint'):
      export.export_model(str(model), str(inside))
  export.export_model(str(model), str(tmp_path / 'run' / 'out'))
  digests.check(model, model / digests.MANIFEST, 1 << 30)


def test_damage_leaves_no_destination(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')
  file = source / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:-1])
  with pytest.raises(DamagedData, match=str(file)):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert sorted(os.listdir(tmp_path)) == ['source']


def test_export_of_safetensors_points_to_import(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')
  with pytest.raises(BadInput, match='--mode=import'):
    export.export_model(str(source), str(tmp_path / 'out'))


def word_tokenizer(path, words):
  """A `tokenizer.json` of whole words, and the names of its special tokens."""
  tokenizers = pytest.importorskip('tokenizers')
  vocabulary = {word: i for i, word in enumerate(['<eos>', '<unk>', *words])}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, '<unk>'))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.add_special_tokens(['<eos>'])
  made.save(str(path / 'tokenizer.json'))
  config = {'eos_token': '<eos>'}
  (path / 'tokenizer_config.json').write_text(json.dumps(config))


def test_the_tokenizer_travels_with_the_weights(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')  # 11 ids, of which 10 is the mask.
  word_tokenizer(source, ['one', 'two'])
  figures = converting.import_model(str(source), str(tmp_path / 'model'))
  model = store.open_model(tmp_path / 'model')
  assert figures['tokenizer'] == model.description.tokenizer != ''
  assert len(model.description.fingerprint) == 64
  # Ids 4 to 9 have no token, and are never sampled.
  assert model.description.undefined_ids == ((4, 10),)
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    assert (tmp_path / 'out' / name).read_bytes() == (source / name).read_bytes()
  assert '---' in (tmp_path / 'out' / 'README.md').read_text()


def test_an_export_has_a_card(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm+sc')
  (source / 'README.md').write_text('---\nlicense: mit\n---\n# Theirs\n')
  # As a training leaves it: a workdir with `model`, and what was measured on it.
  converting.import_model(str(source), str(tmp_path / 'run' / 'model'))
  (tmp_path / 'run' / 'evaluation.json').write_text('{"samples": {"valid_rate": 0.5}}')
  export.export_model(str(tmp_path / 'run'), str(tmp_path / 'out'))
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert card.startswith('---\nlicense: "mit"\n')
  assert '| samples.valid_rate | 0.5 |' in card
  assert '`self_conditioning.projection.kernel` [16, 16]' in card


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
  source, _ = make_source(tmp_path, 'mdlm')
  word_tokenizer(source, [f'word{i}' for i in range(19)])
  with pytest.raises(BadInput, match='has id 20; the model has 11 ids'):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert sorted(os.listdir(tmp_path)) == ['source']


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.slow
def test_half_precision_stays_as_it_is(tmp_path, dtype):
  config, shapes = CASES['llama']
  tensors = {
    name: value.astype(np.dtype(dtype))
    for name, value in manifests.random_tensors(shapes).items()
  }
  tensors['model.norm.weight'] = tensors['model.norm.weight'].astype(np.float32)
  source = manifests.write_directory(tmp_path / 'source', config, tensors)
  converting.import_model(str(source), str(tmp_path / 'model'))
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  opened = safetensors_files.open_source(tmp_path / 'out')
  assert opened.config['torch_dtype'] == dtype
  for name, value in tensors.items():
    assert opened.read(name).dtype == value.dtype
    assert opened.read(name).tobytes() == value.tobytes(), name
  # In memory it is float32, widened exactly.
  _, params = store.load_model(tmp_path / 'model')
  leaf = params['backbone']['lm_head']['kernel']
  assert leaf.dtype == np.float32
  np.testing.assert_array_equal(leaf, tensors['lm_head.weight'].T.astype(np.float32))


def test_restoring_compiles_nothing(tmp_path, caplog):
  source, _ = make_source(tmp_path, 'mdlm')
  converting.import_model(str(source), str(tmp_path / 'model'))
  with jax.log_compiles(), caplog.at_level('WARNING', logger='jax'):
    store.load_model(tmp_path / 'model')
    assert 'XLA compilation' not in caplog.text
    jax.jit(lambda x: x + 3)(1.5)  # Would have been seen.
  assert 'XLA compilation' in caplog.text


def test_a_gguf_file_becomes_hugging_face_s_tensors_and_tokenizer(tmp_path):
  source = tmp_path / 'tiny.gguf'
  template = {'tokenizer.chat_template': (tiny_gguf.STRING, '{{ bos_token }}\n')}
  source.write_bytes(tiny_gguf.llama(**template))
  figures = converting.import_model(str(source), str(tmp_path / 'model'))
  assert (figures['layout'], figures['tokenizer']) == ('llama', 'tokenizer.json')
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  opened = safetensors_files.open_source(tmp_path / 'out')
  wanted = tiny_gguf.hugging_face_tensors()
  assert opened.tensors.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_array_equal(opened.read(name), value)
  assert opened.config['rope_theta'] == tiny_gguf.THETA
  # Transformers takes 1 and 2 for those of a Llama that names none.
  ids = [opened.config[f'{name}_token_id'] for name in ('bos', 'eos')]
  assert ids == [0, 0]
  assert (tmp_path / 'out' / 'chat_template.jinja').read_text() == '{{ bos_token }}\n'
  tokenizer = from_files(
    opened.tokenizer_files(), mask_id=None, vocab_size=tiny_gguf.VOCAB, where='out'
  )
  assert tokenizer.encode_text('ab ab').tolist() == [7, 8]


def test_a_damaged_gguf_file_leaves_nothing_behind(tmp_path):
  source = tmp_path / 'tiny.gguf'
  source.write_bytes(tiny_gguf.llama()[:-100])
  with pytest.raises(DamagedData, match=r"tiny\.gguf: puts 'output.weight' at bytes"):
    converting.import_model(str(source), str(tmp_path / 'model'))
  source.write_bytes(tiny_gguf.llama(**{'tokenizer.ggml.model': None}))
  with pytest.raises(BadInput, match=r'tokenizer\.ggml\.model is None'):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert os.listdir(tmp_path) == ['tiny.gguf']


TIED = {
  'llama': (manifests.TIED_LLAMA_CONFIG, 'model.embed_tokens', 'lm_head'),
  'qwen2': (
    manifests.QWEN2_CONFIG | {'tie_word_embeddings': True},
    'model.embed_tokens',
    'lm_head',
  ),
  'dream': (
    manifests.DREAM_CONFIG | {'tie_word_embeddings': True},
    'model.embed_tokens',
    'lm_head',
  ),
  'llada': (
    manifests.LLADA_CONFIG | {'weight_tying': True},
    'model.transformer.wte',
    'model.transformer.ff_out',
  ),
  'gpt2': (manifests.GPT2_CONFIG, 'wte', 'lm_head'),
}


def tied_source(directory, name, change, dtype=np.float32):
  """A model whose file says "tied" and whose head is its table plus `change`."""
  config, table, head = TIED[name]
  description = model_config.description_from_config(config, 'config.json')
  shapes = {n: entry.shape for n, entry in layouts.entries_of(description).items()}
  tensors = manifests.random_tensors(shapes)
  tensors[f'{head}.weight'] = (tensors[f'{table}.weight'] + change).astype(dtype)
  return manifests.write_directory(directory, config, tensors), tensors


@pytest.mark.slow
@pytest.mark.parametrize('name', ['llama', 'qwen2', 'dream', 'llada'])
def test_a_head_unlike_the_table_is_kept_whatever_the_file_says(tmp_path, name):
  source, tensors = tied_source(tmp_path / 'source', name, 0.5)
  converting.import_model(str(source), str(tmp_path / 'model'))
  description, params = store.load_model(tmp_path / 'model')
  head = f'{TIED[name][2]}.weight'
  assert not description.architecture.tied
  found = params['backbone']['lm_head']['kernel']
  np.testing.assert_array_equal(found, tensors[head].T)
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  written = safetensors_files.open_source(tmp_path / 'out')
  np.testing.assert_array_equal(written.read(head), tensors[head])
  field = 'weight_tying' if name == 'llada' else 'tie_word_embeddings'
  assert written.config[field] is False


@pytest.mark.parametrize('name', TIED)
@pytest.mark.slow
def test_a_copy_of_the_table_is_left_out(tmp_path, name):
  source, _ = tied_source(tmp_path / 'source', name, 0)
  converting.import_model(str(source), str(tmp_path / 'model'))
  description, params = store.load_model(tmp_path / 'model')
  assert getattr(description.architecture, 'tied', True)
  assert 'lm_head' not in params['backbone']


# Family -> configuration and tensors that are tied, names of head and table.
UNTIED = {
  'llama': (manifests.LLAMA_CONFIG, manifests.SMALL_LLAMA, 'tie_word_embeddings'),
  'qwen2': (manifests.QWEN2_CONFIG, manifests.SMALL_DREAM, 'tie_word_embeddings'),
  'dream': (manifests.DREAM_CONFIG, manifests.SMALL_DREAM, 'tie_word_embeddings'),
  'llada': (manifests.LLADA_CONFIG, manifests.SMALL_LLADA, 'weight_tying'),
  'gpt2': (manifests.GPT2_CONFIG, manifests.SMALL_GPT2, 'tie_word_embeddings'),
}
NAMES = {
  'llada': ('model.transformer.ff_out.weight', 'model.transformer.wte.weight'),
  'gpt2': ('lm_head.weight', 'wte.weight'),
}


@pytest.mark.slow
@pytest.mark.parametrize('family', UNTIED)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_logits_are_those_of_a_head_unlike_its_table(tmp_path, family, dtype):
  config, shapes, flag = UNTIED[family]
  head, table = NAMES.get(family, ('lm_head.weight', 'model.embed_tokens.weight'))
  tensors = {
    name: value.astype(np.dtype(dtype))
    for name, value in manifests.random_tensors(shapes).items()
  }
  rng = np.random.default_rng(0)
  other = rng.standard_normal(tensors[table].shape).astype(np.dtype(dtype))
  source = manifests.write_directory(
    tmp_path / 'source', config | {flag: True}, tensors | {head: other}
  )
  converting.import_model(str(source), str(tmp_path / 'model'))
  description, params = store.load_model(tmp_path / 'model')
  assert not description.architecture.tied
  # The logits are those of the head, by hand.
  hidden = rng.standard_normal((3, description.architecture.hidden_dim))
  network = denoiser.bind(params, description)
  np.testing.assert_allclose(
    network.logits(hidden.astype(np.float32)),
    hidden @ other.astype(np.float64).T,
    rtol=1e-4,  # Sums of 16 products in float32.
    atol=1e-5,
  )
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  opened = safetensors_files.open_source(tmp_path / 'out')
  assert opened.config[flag] is False
  assert opened.read(head).tobytes() == other.tobytes()
  assert opened.read(table).tobytes() == tensors[table].tobytes()


@pytest.mark.slow
def test_what_is_not_read_comes_back(tmp_path):
  source, _ = make_source(tmp_path, 'llama')
  config = json.loads((source / 'config.json').read_text())
  fields = {
    'bos_token_id': 1,
    'eos_token_id': [2, 3],
    'pad_token_id': None,
    'auto_map': {'AutoModel': 'owner/name--modeling_x.X'},
    'nested': {'a': [1, {'b': None}]},
    'initializer_range': 0.02,
  }
  stale = {'dtype': 'float16', 'transformers_version': '4.1'}
  (source / 'config.json').write_text(json.dumps(config | fields | stale))
  texts = {
    'generation_config.json': '{"eos_token_id": [2, 3], "temperature": 0.6}\n',
    'chat_template.jinja': '{{ bos_token }}\u65e5\r\n{% for m in messages %}',
    'additional_chat_templates/tools.jinja': '{{ tools }}',
    'LICENSE': 'Do as you like.\n',
  }
  (source / 'additional_chat_templates').mkdir()
  for name, text in texts.items():
    (source / name).write_bytes(text.encode())
  (source / 'README.md').write_text('---\nlicense: mit\n---\n')
  (source / 'picture.png').write_bytes(b'\x89PNG\xff')
  (source / '.hidden').write_text('x')
  os.symlink('/etc/hostname', source / 'link.txt')
  converting.import_model(str(source), str(tmp_path / 'model'))
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  back = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert {name: back[name] for name in fields} == fields
  assert not stale.keys() & back.keys()
  # A scaling of rotary turns that is null is none, and none is not written.
  assert config.pop('rope_scaling') is None
  assert {name: back[name] for name in config} == config
  for name, text in texts.items():
    assert (tmp_path / 'out' / name).read_bytes() == text.encode()
  assert not {'picture.png', '.hidden', 'link.txt'} & set(os.listdir(tmp_path / 'out'))
  # Once more, the same.
  converting.import_model(str(tmp_path / 'out'), str(tmp_path / 'again'))
  export.export_model(str(tmp_path / 'again'), str(tmp_path / 'out2'))
  assert sorted(os.listdir(tmp_path / 'out2')) == sorted(os.listdir(tmp_path / 'out'))
  for name in (*texts, 'config.json', 'model.safetensors'):
    first = (tmp_path / 'out' / name).read_bytes()
    assert (tmp_path / 'out2' / name).read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize('family', ['llada', 'mdlm'])
def test_a_padded_vocabulary_stays_padded(tmp_path, family):
  config, shapes = {
    'llada': (manifests.LLADA_CONFIG, manifests.SMALL_LLADA),
    'mdlm': (manifests.MDLM_CONFIG, manifests.SMALL_MDLM),
  }[family]
  told = {'vocab_size': 8, 'embedding_size': 11, 'mask_token_id': 3}
  told = told if family == 'llada' else {'undefined_ids': [[4, 10]]}
  source = manifests.write_directory(
    tmp_path / 'source', config | told, manifests.random_tensors(shapes)
  )
  wanted = ((8, 11),) if family == 'llada' else ((4, 10),)
  converting.import_model(str(source), str(tmp_path / 'model'))
  assert store.open_model(tmp_path / 'model').description.undefined_ids == wanted
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  back = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert {name: back[name] for name in told} == told
  converting.import_model(str(tmp_path / 'out'), str(tmp_path / 'again'))
  assert store.open_model(tmp_path / 'again').description.undefined_ids == wanted


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_told_at_import(tmp_path, value):
  config, shapes = CASES['llama']
  tensors = manifests.random_tensors(shapes)
  tensors['lm_head.weight'][3, 5] = value
  source = manifests.write_directory(tmp_path / 'source', config, tensors)
  with pytest.raises(
    DamagedData, match=r"tensor 'lm_head\.weight' has NaN or infinity"
  ):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert sorted(os.listdir(tmp_path)) == ['source']


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_weights_of_half_precision_are_looked_at(tmp_path, dtype):
  tensors = manifests.random_tensors(CASES['mdlm+sc'][1])
  name = 'self_conditioning.projection.kernel'
  tensors[name] = tensors[name].astype(np.dtype(dtype))
  tensors[name][7, 7] = np.inf
  source = manifests.write_directory(tmp_path / 'source', CASES['mdlm+sc'][0], tensors)
  with pytest.raises(DamagedData, match=f'tensor {name!r} has NaN or infinity'):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert sorted(os.listdir(tmp_path)) == ['source']


def test_a_table_with_nan_is_told_though_its_copy_has_it_too(tmp_path):
  change = np.zeros((11, 16), np.float32)
  source, tensors = tied_source(tmp_path / 'source', 'llama', change)
  for name in ('model.embed_tokens.weight', 'lm_head.weight'):
    tensors[name][2, 3] = np.nan
  safetensors.numpy.save_file(tensors, source / 'model.safetensors')
  with pytest.raises(
    DamagedData, match=r"tensor 'model\.embed_tokens\.weight' has NaN"
  ):
    converting.import_model(str(source), str(tmp_path / 'model'))


def test_a_gguf_file_with_nan_is_told(tmp_path):
  source = tmp_path / 'tiny.gguf'
  whole = tiny_gguf.llama()
  source.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
  with pytest.raises(DamagedData, match=r"tensor '[\w.]+' has NaN or infinity"):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert os.listdir(tmp_path) == ['tiny.gguf']


def test_framing_travels_with_the_weights(tmp_path):
  config, shapes = CASES['mdlm']
  source = manifests.write_directory(
    tmp_path / 'source',
    config | {'framing': 'start_end'},
    manifests.random_tensors(shapes),
  )
  converting.import_model(str(source), str(tmp_path / 'model'))
  assert store.open_model(tmp_path / 'model').description.framing == 'start_end'
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  assert (
    safetensors_files.open_source(tmp_path / 'out').config['framing'] == 'start_end'
  )


def turns(size, base):
  """`inv_freq` as PyTorch code computes it, in float32."""
  exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
  return np.float32(1) / np.float32(base) ** exponents


def seen(length):
  """Who sees whom in GPT-2, position by position."""
  return np.array([[[[j <= i for j in range(length)] for i in range(length)]]])


# Configuration, shapes, and a tensor that files hold beside the parameters.
BESIDE = {
  'mdlm': (manifests.MDLM_CONFIG, manifests.SMALL_MDLM, INV_FREQ, turns(8, 1e4)),
  'llama': (
    manifests.LLAMA_CONFIG,
    manifests.SMALL_LLAMA,
    'model.rotary_emb.inv_freq',
    turns(4, 1e4),
  ),
  'qwen2': (
    manifests.QWEN2_CONFIG,
    manifests.SMALL_DREAM,
    'model.layers.1.self_attn.rotary_emb.inv_freq',
    turns(4, 1e6),
  ),
  'gpt2': (manifests.GPT2_CONFIG, manifests.SMALL_GPT2, 'h.1.attn.bias', seen(12)),
  'gpt2 score': (
    manifests.GPT2_CONFIG,
    manifests.SMALL_GPT2,
    'h.0.attn.masked_bias',
    np.array(-1e4, np.float32),
  ),
}


def beside(directory, case, change, dtype=None):
  config, shapes, name, value = BESIDE[case]
  value = np.asarray(change(value)).astype(dtype or value.dtype)
  tensors = manifests.random_tensors(shapes) | {name: value}
  return manifests.write_directory(directory, config, tensors)


@pytest.mark.parametrize('case', BESIDE)
@pytest.mark.parametrize('dtype', ['float64', 'float32', 'float16', 'bfloat16'])
def test_what_is_left_out_is_what_follows_from_the_sizes(tmp_path, case, dtype):
  # Rounded as files of half precision round it.
  source = beside(tmp_path / 'source', case, lambda value: value, np.dtype(dtype))
  assert converting.check(str(source))['layout'] == case.split()[0]


@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'int64'])
def test_a_mask_of_whole_numbers_is_the_causal_one(tmp_path, dtype):
  source = beside(tmp_path / 'right', 'gpt2', lambda value: value, dtype)
  converting.check(str(source))
  source = beside(tmp_path / 'wrong', 'gpt2', np.ones_like, dtype)
  message = r"tensor 'h\.1\.attn\.bias' is (1|True) at \[0, 0, 0, 1\], .* 66 of 144"
  with pytest.raises(BadInput, match=message):
    converting.check(str(source))


def changed(index, by):
  def change(value):
    value = np.array(value)
    value[index] = by
    return value

  return change


# Another base, turns scaled by two or by a thousandth part, one value of many.
WRONG = {
  'mdlm': [lambda _: turns(8, 1.1e4), changed(0, 0), changed(3, np.nan)],
  'llama': [lambda _: turns(4, 5e5), lambda v: v / 2, lambda v: v * 1.001],
  'qwen2': [lambda _: turns(4, 1e4), lambda v: v[::-1], changed(1, np.inf)],
  'gpt2': [np.ones_like, np.logical_not, changed((0, 0, 11, 11), False)],
  'gpt2 score': [np.zeros_like, np.negative],
}
WRONGS = [(case, i) for case, changes in WRONG.items() for i in range(len(changes))]


@pytest.mark.parametrize(('case', 'i'), WRONGS)
def test_what_is_left_out_and_says_otherwise_is_refused(tmp_path, case, i):
  source = beside(tmp_path / 'source', case, WRONG[case][i])
  with pytest.raises(BadInput) as caught:
    converting.import_model(str(source), str(tmp_path / 'model'))
  message = str(caught.value)
  assert message.startswith(f'{source}: tensor {BESIDE[case][2]!r} is ')
  assert '\n' not in message
  assert sorted(os.listdir(tmp_path)) == ['source']


def test_the_message_says_what_follows_from_what(tmp_path):
  source = beside(tmp_path / 'source', 'mdlm', lambda _: turns(8, 1e6))
  with pytest.raises(BadInput) as caught:
    converting.check(str(source))
  # 1e6^(-1/4) and 1e4^(-1/4).
  assert str(caught.value) == (
    f"{source}: tensor 'backbone.rotary_emb.inv_freq' is 0.03162277862429619 at [1], "
    'where config.json (base 10000 in heads of 8) makes it 0.10000000149011612; 3 of '
    '4 values differ and one of the two is wrong: correct config.json, or remove the '
    'tensor'
  )


def test_one_layer_of_many_is_looked_at(tmp_path):
  config, shapes = manifests.GPT2_CONFIG, manifests.SMALL_GPT2
  masks = {f'transformer.h.{i}.attn.bias': seen(12) for i in range(2)}
  masks['transformer.h.1.attn.bias'] = np.swapaxes(seen(12), 2, 3).copy()
  tensors = manifests.random_tensors({f'transformer.{n}': s for n, s in shapes.items()})
  source = manifests.write_directory(tmp_path / 'source', config, tensors | masks)
  with pytest.raises(BadInput, match=r"tensor 'transformer\.h\.1\.attn\.bias' is"):
    converting.check(str(source))


def test_code_and_what_belongs_to_other_weights_stay_behind(tmp_path, caplog):
  source, _ = make_source(tmp_path, 'llama')
  config = json.loads((source / 'config.json').read_text())
  classes = {'AutoConfig': 'modeling_x.C', 'AutoModel': 'owner/name--modeling_x.X'}
  (source / 'config.json').write_text(json.dumps(config | {'auto_map': classes}))
  told = {
    'modeling_x.py': 'raise SystemExit\n',
    'MODELING_Y.PY': '',
    'convert.sh': 'rm -r /\n',
    'run': '#!/bin/sh\n',
    'large.txt': 'x' * ((1 << 20) + 1),
    'notes.ipynb': '{}',
  }
  # A pointer, as a clone without its large files has it, is a text as well.
  untold = {
    'adapter_model.safetensors': 'version https://git-lfs.github.com/spec/v1\n',
    'adapter_config.json': '{}',
    'pytorch_model.bin': 'version https://git-lfs.github.com/spec/v1\n',
    'pytorch_model.bin.index.json': '{}',
  }
  for name, text in (told | untold).items():
    (source / name).write_text(text)
  (source / 'edge.txt').write_text('x' * (1 << 20))
  with caplog.at_level('WARNING'):
    converting.import_model(str(source), str(tmp_path / 'model'))
  line = caplog.records[-1].getMessage()
  assert all(name in line for name in told)
  assert not any(name in line for name in (*untold, 'edge.txt'))
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  wanted = {'README.md', 'config.json', 'edge.txt', 'model.safetensors'}
  assert set(os.listdir(tmp_path / 'out')) == wanted
  back = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert back['auto_map'] == {'AutoModel': 'owner/name--modeling_x.X'}


def test_many_files_beside_a_model_leave_it_readable(tmp_path, caplog):
  source, _ = make_source(tmp_path, 'mdlm')
  for i in range(30):  # Escaped they are six times as long.
    (source / f'{i:02d}.txt').write_bytes(b'\1' * 600_000)
  with caplog.at_level('WARNING'):
    converting.import_model(str(source), str(tmp_path / 'model'))
  assert '01.txt, 02.txt' in caplog.text
  assert 'and 21 more' in caplog.text
  kept = store.open_model(tmp_path / 'model').extra['carried']['files']
  assert kept.keys() == {'00.txt'}


def test_a_checkpoint_that_carries_paths_writes_nothing_elsewhere():
  found = carried.texts(
    {
      'files': {
        '../up': 'x',
        '/etc/absolute': 'x',
        'sub/folder.txt': 'x',
        '..': 'x',
        '': 'x',
        'additional_chat_templates/../../up': 'x',
        'additional_chat_templates/': 'x',
        'config.json': '{}',
        'more.safetensors': 'x',
        'modeling.py': 'x',
        'run': '#!/bin/sh',
        'number': 3,
        'a\nb': 'x',
        'fine.txt': 'x',
      }
    }
  )
  assert found == {'fine.txt': 'x'}
  for damaged in (None, 3, [], {}, {'files': 3}, {'config': [], 'files': None}):
    assert carried.texts(damaged) == {}
    assert carried.fields(damaged) == {}


def test_what_a_run_has_changed_is_not_given_back(tmp_path):
  # As of a source, and as a run on it has left the model.
  config = manifests.MDLM_CONFIG | {
    'framing': 'start_end',
    'undefined_ids': [[4, 10]],
    'architectures': ['TheirMDLM'],
    'vocab_size': 11,
    'window': 4,
    'of_theirs': [1, None],
    'eos_token_id': 2,
  }
  description = model_config.description_from_config(
    manifests.MDLM_CONFIG | {'vocab_size': 12, 'mask_token_id': 11}, 'config.json'
  )
  written = model_config.config_from_description(description, 'float32', config)
  assert written['vocab_size'] == 12
  assert written['architectures'] == ['MDLM']
  assert (written['of_theirs'], written['eos_token_id']) == ([1, None], 2)
  assert not {'framing', 'undefined_ids', 'window'} & written.keys()
  assert model_config.description_from_config(written, 'config.json') == description


def test_transformers_reads_the_same_of_an_export(tmp_path):
  transformers = pytest.importorskip('transformers')
  config, _ = CASES['llama']
  padded = config | {'vocab_size': 40, 'bos_token_id': 2, 'eos_token_id': [0, 3]}
  tensors = manifests.random_tensors(manifests.llama(V=40, d=16, L=2, ff=24, kv=8))
  source = manifests.write_directory(
    tmp_path / 'source', padded | {'pad_token_id': 3, 'attention_dropout': 0.1}, tensors
  )
  word_tokenizer(source, [f'word{i}' for i in range(28)])
  generation = {'eos_token_id': [0, 3], 'temperature': 0.6, 'do_sample': True}
  (source / 'generation_config.json').write_text(json.dumps(generation))
  template = '{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}'
  (source / 'chat_template.jinja').write_text(template)
  converting.import_model(str(source), str(tmp_path / 'model'))
  export.export_model(str(tmp_path / 'model'), str(tmp_path / 'out'))
  # 30 tokens of 40 rows, as before.
  opened = store.open_model(tmp_path / 'model')
  assert opened.description.undefined_ids == ((30, 40),)
  again = safetensors_files.open_source(tmp_path / 'out').config
  assert again['undefined_ids'] == [[30, 40]]
  assert model_config.description_from_config(again, 'c').undefined_ids == ((30, 40),)

  def read(path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    chat = [{'role': 'user', 'content': 'word3 word4'}]
    config = transformers.AutoConfig.from_pretrained(path)
    return (
      {n: getattr(config, n) for n in ('vocab_size', 'pad_token_id', 'bos_token_id')},
      (config.eos_token_id, config.attention_dropout, config.rope_parameters),
      transformers.GenerationConfig.from_pretrained(path).to_diff_dict(),
      tokenizer.apply_chat_template(chat, tokenize=False),
      (len(tokenizer), tokenizer('word3 word4')['input_ids']),
    )

  found = read(tmp_path / 'out')
  assert found == read(source)
  assert found[0] == {'vocab_size': 40, 'pad_token_id': 3, 'bos_token_id': 2}
  assert found[3:] == ('user: word3 word4 ', (30, [5, 6]))
