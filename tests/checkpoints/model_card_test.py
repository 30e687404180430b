import dataclasses
import json
import re

import numpy as np
import pytest

from scmdm_jax.checkpoints import model_card
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig

SIZES = {'vocab_size': 11, 'length': 12, 'hidden_dim': 16, 'num_blocks': 2}
DIT = DiTConfig(**SIZES, num_heads=2, cond_dim=8)
ADAPTED = ModelDescription(DIT, mask_id=10, tokenizer='qm9', injection='embedding')
ORIGIN = {
  'base': '/home/someone/hub/models--kuleshov-group--mdlm-owt/snapshots/abc',
  'license': 'apache-2.0',
  'rate': 0.5,
  'steps': 800,
  'data': 'qm9',
  'objective': 'masked',
}


def front_matter(text):
  """The YAML of a card, whose values are all JSON."""
  lines = text.split('---\n')[1].splitlines()
  return {name: json.loads(value) for name, value in (x.split(': ', 1) for x in lines)}


def test_front_matter():
  assert front_matter(model_card.card(ADAPTED, ORIGIN)) == {
    'license': 'apache-2.0',
    'library_name': 'scmdm_jax',
    'base_model': 'kuleshov-group/mdlm-owt',
    'tags': ['masked-diffusion', 'mdlm', 'self-conditioning', 'qm9'],
  }


def test_front_matter_is_yaml():
  yaml = pytest.importorskip('yaml')
  nasty = {'license': "other: 'x'\n- y", 'data': '---\n#'}
  text = model_card.card(ADAPTED, nasty)
  assert yaml.safe_load(text.split('\n---\n')[0]) == {
    'license': "other: 'x'\n- y",
    'library_name': 'scmdm_jax',
    'tags': ['masked-diffusion', 'mdlm', 'self-conditioning', '---\n#'],
  }


def test_unknown_licence_and_a_local_base():
  text = model_card.card(ADAPTED, {'base': '/home/someone/runs/base'})
  assert front_matter(text)['license'] == 'unknown'
  assert 'base_model' not in front_matter(text)
  assert '| Base | base |' in text
  assert 'someone' not in text


def test_training_and_figures():
  figures = {
    'mode': 'evaluate',
    'samples': {'valid_rate': 0.3896484375, 'generative_perplexity': None},
    'likelihood': {'carried_nelbo': {'32': 0.55}},
    'odd|name': 3,
  }
  text = model_card.card(ADAPTED, ORIGIN, figures)
  for line in (
    '| Base | kuleshov-group/mdlm-owt |',
    '| Rate (share of conditioned examples) | 0.5 |',
    '| Steps | 800 |',
    '| Data | qm9 |',
    '| samples.valid_rate | 0.389648 |',
    '| likelihood.carried_nelbo.32 | 0.55 |',
    '| odd\\|name | 3 |',
  ):
    assert line in text.splitlines()
  assert '## Measured' not in model_card.card(ADAPTED, ORIGIN)
  assert '## Origin' not in model_card.card(ADAPTED, {})


@pytest.mark.parametrize(
  ('injection', 'names'),
  [
    ('none', []),
    ('embedding', ['`self_conditioning.projection.kernel` [16, 16]']),
    ('table', ['`self_conditioning.table` [11, 16]']),
    ('gate', ['`self_conditioning.gate` [16]']),
    (
      'mlp',
      [
        '`self_conditioning.down.kernel` [16, 16]',
        '`self_conditioning.gate.kernel` [16, 16]',
        '`self_conditioning.norm.scale` [16]',
        '`self_conditioning.up.kernel` [16, 16]',
      ],
    ),
  ],
)
def test_added_tensors_are_listed(injection, names):
  text = model_card.card(
    ModelDescription(DIT, mask_id=10, tokenizer='', injection=injection), {}
  )
  found = re.findall(r'^\* (`self_conditioning\..*)$', text, re.M)
  assert sorted(found) == names
  assert ('Without the tensors' in text) == bool(names)


def test_positions_of_an_image_are_told():
  arch = dataclasses.replace(DIT, length=13, grid=(3, 2, 2))
  text = model_card.card(ModelDescription(arch, mask_id=10, tokenizer=''), {})
  assert '* Positions: of an image, 3 x 2 x 2 (channels, rows, columns)' in text
  text = model_card.card(ModelDescription(DIT, mask_id=10, tokenizer=''), {})
  assert 'Positions' not in text


@pytest.mark.parametrize(
  ('readme', 'wanted'),
  [
    ('---\nlicense: mit\n---\n', 'mit'),
    ('---\ntags:\n- x\nlicense: "apache-2.0"\n---\n# x', 'apache-2.0'),
    ('---\r\nlicense: mit\r\n---\r\n', 'mit'),
    ('---\ntags: []\n---\nlicense: mit\n', ''),
    ('---\nlicense:\n- mit\n---\n', ''),
    ('license: mit\n', ''),
    ('', ''),
  ],
)
def test_license_of(readme, wanted):
  assert model_card.license_of(readme) == wanted


def test_the_license_of_a_card_of_ours():
  assert model_card.license_of(model_card.card(ADAPTED, ORIGIN)) == 'apache-2.0'


def test_a_judge():
  arch = DecoderConfig(**SIZES, num_heads=4, num_kv_heads=2, mlp_dim=24)
  text = model_card.card(ModelDescription(arch, mask_id=None, tokenizer=''), {})
  assert text.split('\n---\n')[1].startswith('\n# A causal language model')
  assert front_matter(text)['tags'] == ['text-generation', 'llama']
  # 2 tables, 2 blocks, 1 norm, counted by hand.
  block = 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 24 + 2 * 16
  assert f'* {2 * 11 * 16 + 2 * block + 16:,} parameters' in text


def test_the_python_of_the_card_runs(tmp_path):
  torch = pytest.importorskip('torch')
  import safetensors.numpy

  tensors = {
    'a': np.ones(2, np.float32),
    'self_conditioning.projection.kernel': np.ones((16, 16), np.float32),
  }
  safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
  text = model_card.card(ADAPTED, {}).replace('THIS_DIRECTORY', str(tmp_path))
  [block] = re.findall(r'^```python\n(.*?)^```', text, re.M | re.S)

  class Model(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.a = torch.nn.Parameter(torch.zeros(2))

  names = {'model': Model()}
  exec(block, names)
  assert names['model'].a.tolist() == [1, 1]
  assert list(names['added']) == ['self_conditioning.projection.kernel']
