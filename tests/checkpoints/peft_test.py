"""Adapters of ours in the `peft` library, on models of `transformers`."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import bases, store
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, lora
from scmdm_jax.models.lora import Adapter
from scmdm_jax.runs import converting
from scmdm_jax.verbs.export import export_model

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
peft = pytest.importorskip('peft')

# What the two libraries say of each other.
pytestmark = pytest.mark.filterwarnings('ignore:.is_gradient_checkpointing')
# Float32 products of up to 48 terms, in two libraries, in two layers.
TOLERANCE = 1e-4
IDS = np.random.default_rng(0).integers(0, 40, (2, 11)).astype(np.int32)


def published(name, folder):
  """A random model of `transformers` with that library's files in `folder`."""
  sizes = {
    'vocab_size': 40,
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'max_position_embeddings': 16,
    'tie_word_embeddings': False,
  }
  torch.manual_seed(0)
  config = getattr(transformers, f'{name}Config')(**sizes)
  model = getattr(transformers, f'{name}ForCausalLM')(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
  model.save_pretrained(folder)
  return model


def adapted(tmp_path, adapter):
  """An adapter with random factors on what is in `tmp_path / 'source'`, saved."""
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'base'))
  base = store.open_model(tmp_path / 'base')
  description = dataclasses.replace(base.description, adapter=adapter)
  params = store.load_params(base)
  factors = lora.init_factors(jax.random.key(1), params['backbone'], adapter)
  rng = np.random.default_rng(2)
  factors = jax.tree.map(
    lambda x: (0.2 * rng.standard_normal(x.shape)).astype(np.float32), factors
  )
  params = lora.joined(params, {'backbone': factors})
  origin = {'base': 'somebody/model', 'frozen': bases.named(base)}
  store.save_model(tmp_path / 'adapted', description, params, origin)
  return description, params


def our_logits(description, params):
  def compute(params):
    model = denoiser.bind(params, description)
    nothing = np.zeros((*IDS.shape, model.signal_dim), np.float32)
    return model.logits(model.encode(IDS, nothing, np.zeros(len(IDS), np.float32)))

  return np.asarray(jax.jit(compute)(params))


def their_logits(model):
  with torch.no_grad():
    return model(torch.tensor(IDS, dtype=torch.long)).logits.numpy()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['Llama', 'Qwen2'])
def test_peft_and_merged_weights_compute_what_we_do(name, tmp_path):
  theirs = published(name, tmp_path / 'source')
  description, params = adapted(tmp_path, Adapter(3, 7.5))
  ours = our_logits(description, params)
  base = their_logits(theirs)
  assert np.abs(ours - base).max() > 1
  figures = export_model(
    str(tmp_path / 'adapted'), str(tmp_path / 'peft'), as_peft=True
  )
  assert figures['tensors'] == 2 * 2 * 7
  config = json.loads((tmp_path / 'peft' / 'adapter_config.json').read_text())
  assert config['base_model_name_or_path'] == 'somebody/model'
  model = peft.PeftModel.from_pretrained(theirs, str(tmp_path / 'peft')).eval()
  np.testing.assert_allclose(their_logits(model), ours, atol=TOLERANCE, rtol=TOLERANCE)
  with model.disable_adapter():
    np.testing.assert_array_equal(their_logits(model), base)
  export_model(str(tmp_path / 'adapted'), str(tmp_path / 'merged'))
  merged = type(theirs).from_pretrained(tmp_path / 'merged').eval()
  np.testing.assert_allclose(their_logits(merged), ours, atol=TOLERANCE, rtol=TOLERANCE)


def test_another_base_is_refused_and_a_new_copy_of_the_same_is_not(tmp_path):
  published('Llama', tmp_path / 'source')
  description, params = adapted(tmp_path, Adapter(2, 4.0, '.*/(q|v)_proj'))
  # The checkpoint holds the adapter alone.
  held = sorted(p.name for p in (tmp_path / 'adapted' / 'params').glob('*q_proj*'))
  sizes = sum(p.stat().st_size for p in (tmp_path / 'adapted').rglob('*'))
  whole = sum(p.stat().st_size for p in (tmp_path / 'base').rglob('*'))
  assert sizes < whole / 2, held
  found, read = store.load_model(tmp_path / 'adapted')
  assert found == description
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    np.testing.assert_array_equal(leaf, _at(read, path))

  (tmp_path / 'base').rename(tmp_path / 'elsewhere')
  with pytest.raises(
    BadInput, match=r'whose base is not at .*/base; put the checkpoint'
  ):
    store.open_model(tmp_path / 'adapted')
  # Imported anew, beside the adapter's directory: other files, the same weights.
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'base'))
  store.open_model(tmp_path / 'adapted')
  transformers.set_seed(3)
  other = published('Llama', tmp_path / 'source')
  with torch.no_grad():
    other.model.layers[1].mlp.up_proj.weight[0, 0] += 1
  other.save_pretrained(tmp_path / 'source')
  (tmp_path / 'base').rename(tmp_path / 'same')
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'base'))
  with pytest.raises(BadInput, match=r'an adapter of the base with weights \w{12}, fo'):
    store.open_model(tmp_path / 'adapted')


def _at(tree, path):
  for key in path:
    tree = tree[key.key]
  return tree
