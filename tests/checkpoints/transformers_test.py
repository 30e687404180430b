"""Files that `transformers` writes, and reads again, against its own logits."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.models import denoiser
from scmdm_jax.runs import converting
from scmdm_jax.verbs import export
from tests.compiling import quick_jit

torch = pytest.importorskip('torch', reason='the reference runs in PyTorch')
transformers = pytest.importorskip('transformers', reason='it is the reference')

SIZES = {
  'vocab_size': 29,
  'hidden_size': 32,
  'intermediate_size': 40,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'max_position_embeddings': 64,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'pad_token_id': None,
}
LINEAR = {'rope_type': 'linear', 'factor': 3.0}
LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}
YARN = {
  'rope_type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 32,
  'beta_fast': 8.0,
}
# Base 100: the pairs of small heads then turn at rates on both sides of every bound.
CASES = {
  'llama': ('Llama', {}),
  'llama_tied': ('Llama', {'tie_word_embeddings': True}),
  'llama_linear': ('Llama', {'rope_parameters': {**LINEAR, 'rope_theta': 100.0}}),
  'llama_llama3': ('Llama', {'rope_parameters': {**LLAMA3, 'rope_theta': 100.0}}),
  'llama_wide_heads': ('Llama', {'head_dim': 12}),
  'qwen2': ('Qwen2', {'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'default'}}),
  'qwen2_yarn': ('Qwen2', {'rope_parameters': {**YARN, 'rope_theta': 100.0}}),
  'qwen2_yarn_sharp': (
    'Qwen2',
    {
      'rope_parameters': {
        **YARN,
        'rope_theta': 100.0,
        'mscale': 1.0,
        'mscale_all_dim': 0.5,
        'truncate': False,
      }
    },
  ),
  'qwen3': ('Qwen3', {'head_dim': 16}),
  'qwen3_tied': ('Qwen3', {'head_dim': 8, 'tie_word_embeddings': True}),
}
IDS = np.random.default_rng(0).integers(0, 29, (2, 50)).astype(np.int32)


def written(directory, case, **more):
  """A random model as `save_pretrained` writes it; returns its logits."""
  kind, changes = CASES[case]
  make_config = getattr(transformers, f'{kind}Config')
  make_model = getattr(transformers, f'{kind}ForCausalLM')
  torch.manual_seed(0)
  model = make_model(make_config(**{**SIZES, **changes, **more})).eval()
  with torch.no_grad():
    for parameter in model.parameters():  # Norms, too; logits come out of order 1.
      parameter.add_(0.2 * torch.randn(parameter.shape))
  model.save_pretrained(directory)
  return logits_of(model)


def logits_of(model):
  with torch.no_grad():
    return model(torch.from_numpy(IDS).long()).logits.float().numpy()


def ours(path):
  description, params = store.load_model(path)

  @quick_jit
  def logits(params):
    model = denoiser.bind(params, description)
    null = np.zeros((*IDS.shape, model.signal_dim), np.float32)
    return model.logits(model.encode(IDS, null, np.zeros(len(IDS), np.float32)))

  return description, params, np.asarray(logits(params))


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_logits_and_the_way_back(case, tmp_path):
  wanted = written(tmp_path / 'source', case)
  spelt = json.loads((tmp_path / 'source' / 'config.json').read_text())
  assert 'rope_parameters' in spelt and 'dtype' in spelt  # As transformers 5 writes.
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'ours'))
  description, params, found = ours(tmp_path / 'ours')
  # Of logits of order 1 to 10, in float32.
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  assert np.abs(wanted).max() > 1
  export_to(tmp_path / 'ours', tmp_path / 'back')
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'back')
  np.testing.assert_array_equal(logits_of(model), wanted)
  converting.import_model(str(tmp_path / 'back'), str(tmp_path / 'again'))
  again, others, _ = ours(tmp_path / 'again')
  assert again == description
  jax.tree.map(np.testing.assert_array_equal, others, params)


def export_to(source, target):
  from scmdm_jax.settings.options import Settings

  export.run(Settings(), str(target), source=str(source))


def test_scaling_is_seen_in_the_logits(tmp_path):
  """A scaling that was ignored would pass for none."""
  plain = written(tmp_path / 'a', 'qwen2', rope_parameters={'rope_theta': 100.0})
  for case in ('qwen2_yarn', 'qwen2_yarn_sharp'):
    assert np.abs(written(tmp_path / case, case) - plain).max() > 1e-2


def test_sdar_is_qwen3_that_sees_both_ways(tmp_path):
  """Against transformers' Qwen3 with a mask that hides nothing."""
  written(tmp_path / 'source', 'qwen3')
  model = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'source', attn_implementation='eager'
  )
  path = tmp_path / 'source' / 'config.json'
  config = json.loads(path.read_text())
  path.write_text(json.dumps(config | {'model_type': 'sdar', 'mask_token_id': 28}))
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'ours'))
  description, _, found = ours(tmp_path / 'ours')
  assert (description.family, description.mask_id) == ('sdar', 28)
  everything = {'full_attention': torch.zeros(2, 1, 50, 50)}
  with torch.no_grad():
    wanted = model(torch.from_numpy(IDS).long(), attention_mask=everything).logits
  np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
  export_to(tmp_path / 'ours', tmp_path / 'back')
  back = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert (back['model_type'], back['head_dim']) == ('sdar', 16)
  assert back['architectures'] == ['SDARForCausalLM']
  assert 'block_size' not in back


def test_blocks_of_sdar_are_those_of_its_file(tmp_path):
  """Against transformers' Qwen3 with a mask of blocks."""
  written(tmp_path / 'source', 'qwen3')
  model = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'source', attn_implementation='eager'
  )
  path = tmp_path / 'source' / 'config.json'
  sdar = {'model_type': 'sdar', 'mask_token_id': 28, 'block_size': 4}
  path.write_text(json.dumps(json.loads(path.read_text()) | sdar))
  converting.import_model(str(tmp_path / 'source'), str(tmp_path / 'ours'))
  description, _, found = ours(tmp_path / 'ours')
  assert description.block_length == 4
  blocks = np.arange(50) // 4
  hidden = np.where(blocks[:, None] >= blocks[None], 0.0, -1e30)
  mask = torch.from_numpy(np.broadcast_to(hidden, (2, 1, 50, 50)).astype(np.float32))
  with torch.no_grad():
    wanted = model(
      torch.from_numpy(IDS).long(), attention_mask={'full_attention': mask}
    ).logits
  np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
  export_to(tmp_path / 'ours', tmp_path / 'back')
  back = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert (back['block_size'], back['block_length']) == (4, 4)


def test_description_survives_its_file():
  from scmdm_jax.models.description import ModelDescription
  from scmdm_jax.models.families.llama import DecoderConfig

  arch = DecoderConfig(
    11, 12, 16, 2, 4, 2, 24, head_dim=6, rope_scaling=(*YARN.items(),)
  )
  description = ModelDescription(arch, None, '')
  assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == (
    description
  )
  assert arch.head_size == 6
  assert dataclasses.replace(arch, head_dim=4).head_dim == 0
