"""Records of families and injections: complete when made, and all there is to add."""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

import scmdm_jax
from scmdm_jax.checkpoints import layouts, safetensors_files, store
from scmdm_jax.models import denoiser, flops, injection
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families import FAMILIES, dit
from scmdm_jax.models.families.conv import ConvConfig
from scmdm_jax.models.family import ModelType, Row
from scmdm_jax.models.injection import INJECTIONS, Injection
from scmdm_jax.parallel import rules
from tests import tiny_run
from tests.models import tiny
from tests.models.families import toy


class Doubling(nn.Module):
  """The expected embedding times a number per channel, from zero."""

  vocab_size: int
  dim: int

  def signal(self, probs, table, mask_id):
    return injection.expected_row(probs, table)

  @nn.compact
  def __call__(self, signal):
    amount = self.param('amount', nn.initializers.zeros_init(), (self.dim,))
    return signal * jnp.broadcast_to(amount, signal.shape)


DOUBLING = Injection(
  name='doubling',
  module=Doubling,
  splits={'amount': P()},
  card='the expected embedding; added: `amount * signal`',
)


@pytest.fixture
def registered(monkeypatch):
  """The one line each that adds a backbone and an injection."""
  monkeypatch.setitem(FAMILIES, 'toy', toy.FAMILY)
  monkeypatch.setitem(INJECTIONS, 'doubling', DOUBLING)


@pytest.mark.long
def test_a_new_backbone_and_injection_go_all_the_way(registered, tmp_path, capsys):
  program, run = tiny_run.Program(capsys), tmp_path / 'run'
  config = tiny_run.write_config(tmp_path)
  program.figures(
    '--mode=train',
    f'--config={config}',
    f'--workdir={run}',
    '--config.model.architecture=toy',
    '--config.method.injection=doubling',
  )
  description, params = store.load_model(run)
  assert description.architecture == toy.ToyConfig(35, 32, 8, 1, 2, reach=4)
  assert description.injection == 'doubling'
  # It was trained, its signal too.
  assert np.abs(params['self_conditioning']['amount']).max() > 0
  program.figures(
    '--mode=sample',
    f'--config={config}',
    f'--workdir={tmp_path / "drawn"}',
    f'--config.checkpoint={run}',
    '--config.sample.num_samples=4',
    '--config.sample.num_steps=4',
  )
  assert len((tmp_path / 'drawn' / 'samples.jsonl').read_text().splitlines()) == 4

  out = tmp_path / 'out'
  program.figures('--mode=export', f'--source={run}', f'--workdir={out}')
  written = json.loads((out / 'config.json').read_text())
  assert written['architectures'] == ['ToyModel'] and written['width'] == 8
  names = safetensors_files.open_source(out).tensors
  assert names['toy.mixers.0.inner.weight'].shape == (32, 8)  # [out, in].
  assert names['self_conditioning.amount'].shape == (8,)
  card = (out / 'README.md').read_text()
  assert '* Reach: 4' in card and 'added: `amount * signal`' in card
  again = tmp_path / 'again'
  program.figures('--mode=import', f'--source={out}', f'--workdir={again}')
  back, imported = store.load_model(again)
  assert back == description
  jax.tree.map(np.testing.assert_array_equal, imported, params)
  # 2 operations for every weight of a block, and attention as if it had any.
  assert flops.blocks(back, 10) == 2 * (8 * 32 + 32 * 8) + 4 * 10 * 8


def test_no_other_file_knows_a_backbone_or_an_injection():
  """What an addition touches: its file, and a line (and its import) in the table."""
  root = pathlib.Path(scmdm_jax.__file__).parent
  texts = {p.relative_to(root): p.read_text() for p in root.rglob('*.py')}

  def files_with(pattern):
    return {str(p) for p, text in texts.items() if re.search(pattern, text)}

  table = 'models/families/__init__.py'
  assert files_with(r'GPT2Config|families.gpt2|GPT2LMHead|\bgpt2\.') == {
    table,
    'models/families/gpt2.py',
  }
  assert files_with(r'LLaDAModelLM|\bLLADA\b') == {table, 'models/families/llama.py'}
  lines = texts[pathlib.Path(table)].splitlines()
  assert len([line for line in lines if 'gpt2' in line]) == 2
  assert files_with(r"'gate'|tanh\(self\.gate\)") == {'models/injection.py'}
  for reader in ('layouts', 'model_config', 'model_card'):
    text = texts[pathlib.Path(f'checkpoints/{reader}.py')]
    assert not re.search(r"'(llama|qwen2|dream|llada|gpt2|conv)'", text, re.IGNORECASE)


EXAMPLES = {
  **{name: tiny.describe(name, 'none') for name in tiny.ARCHITECTURES},
  'gpt2 with a head of its own': dataclasses.replace(
    tiny.describe('gpt2', 'none'),
    architecture=dataclasses.replace(tiny.ARCHITECTURES['gpt2'], tied=False),
  ),
  'conv': ModelDescription(
    ConvConfig(9, 41, 6, 2, 3, 3, 5, 3, grid=(2, 4, 5)), mask_id=None, tokenizer=''
  ),
}


@pytest.mark.parametrize('name', EXAMPLES)
def test_rows_are_the_parameters_of_the_module(name):
  description = EXAMPLES[name]
  params = denoiser.abstract_params(description)['backbone']
  leaves = jax.tree_util.tree_leaves_with_path(params)
  paths = ['/'.join(key.key for key in keys) for keys, _ in leaves]
  rows = [description.record.row(path) for path in paths]
  assert all(rows)
  assert len({tensor for tensor, _ in rows}) == len(rows)
  assert description.record.row('blocks_0/novelty/kernel') is None


def test_every_row_is_used():
  used = {name: set() for name in FAMILIES}
  for description in EXAMPLES.values():
    names = set(layouts.entries_of(description))
    starred = {re.sub(r'\.\d+\.', '.*.', name, count=1) for name in names}
    used[description.family] |= names | starred
  for name in ('mdlm', 'llama', 'gpt2', 'conv'):
    for row in FAMILIES[name].layers.values():
      wanted = {row.name, f'{row.name}.weight'}
      assert wanted & used[name], row


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'fields': dit.FAMILY.fields[1:]}, 'no field of config.json for vocab_size'),
    ({'always': {'colour': 1}}, 'colour is no field of its sizes'),
    ({'table': 'wte'}, 'wte is no layer'),
    ({'table': ''}, 'no table of token embeddings'),
    ({'layers': {}}, 'no name, layers or model_types'),
    ({'model_types': ()}, 'no name, layers or model_types'),
    ({'module': nn.Dense}, 'its module has no embed'),
    ({'objectives': ('guess',)}, 'unknown objective guess'),
    (
      {'layers': {**dit.FAMILY.layers, 'blocks_*/more': Row('more')}},
      'blocks_\\*/more and more: only one of them has a number',
    ),
    (
      {'layers': {**dit.FAMILY.layers, 'more': Row('backbone.sigma_map.mlp.0')}},
      'backbone.sigma_map.mlp.0 is there twice',
    ),
  ],
)
def test_a_record_with_a_piece_missing_is_refused(change, message):
  with pytest.raises(ValueError, match=f"family 'mdlm': .*{message}"):
    dataclasses.replace(dit.FAMILY, **change)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'card': ''}, 'it has no card'),
    ({'splits': {}}, 'it has no splits'),
    ({'module': nn.Dense}, 'it has no signal'),
    ({'per_token': ('table',)}, 'it has no split of table'),
  ],
)
def test_an_injection_with_a_piece_missing_is_refused(change, message):
  with pytest.raises(ValueError, match=f"injection 'doubling': {message}"):
    dataclasses.replace(DOUBLING, **change)


def test_records_that_contradict_each_other_are_refused(monkeypatch):
  other = dataclasses.replace(
    toy.FAMILY,
    layers={**toy.FAMILY.layers, 'wte': Row('toy.wte', P('tensor'))},
    model_types=(ModelType('other', 'Other'),),
  )
  monkeypatch.setitem(FAMILIES, 'other', other)
  with pytest.raises(ValueError, match='wte/embedding: 2 sharding rules match'):
    rules.spec_of('backbone/wte/embedding')
