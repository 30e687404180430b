import dataclasses
import json

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.domains import registry
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import drawing, opening, starting
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.options import (
  MethodSettings,
  ModelSettings,
  Settings,
)
from tests.checkpoints import manifests
from tests.data.tokenizers import tiny

SMILES = get_tokenizer('smiles_qm9')
DEFINITION = tiny.bpe()
IDS = {t['content']: t['id'] for t in DEFINITION['added_tokens']}
COUNT = max(IDS.values()) + 1
FILES = tiny.files(DEFINITION)


def described(vocab_size=COUNT + 4, mask_id=IDS['[MASK]'], tokenizer='', **changes):
  arch = DiTConfig(vocab_size, 16, 8, 1, 2, 4)
  return ModelDescription(arch, mask_id, tokenizer, **changes)


def saved(path, description, files=None):
  params = jax.tree.map(
    lambda x: np.zeros(x.shape, np.float32), denoiser.abstract_params(description)
  )
  store.save_model(path, description, params, {}, files)
  return str(path)


def judge_of(vocab_size, tokenizer=''):
  arch = DecoderConfig(vocab_size, 16, 8, 1, 2, 2, 16)
  return ModelDescription(arch, None, tokenizer)


def settings(tokenizer='checkpoint', checkpoint='', **changes):
  data = registry.data_settings()(tokenizer=tokenizer, length=16)
  return Settings(data=data, checkpoint=checkpoint, **changes)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  return saved(tmp_path_factory.mktemp('m') / 'model', described(), FILES)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'files').mkdir()
  for name, content in FILES.items():
    (tmp_path / 'files' / name).write_bytes(content)
  return tmp_path / 'files'


def test_names_need_no_checkpoint(tmp_path):
  for name in ('smiles_qm9', 'dna', 'text8'):
    assert opening.open_run(settings(name), tmp_path).tokenizer.name == name


def test_the_checkpoint_s_own(checkpoint, folder, tmp_path):
  own = opening.open_run(settings(checkpoint=checkpoint), tmp_path).tokenizer
  assert (own.mask_id, own.vocab_size) == (IDS['[MASK]'], COUNT + 4)
  assert own.undefined_ids == ((COUNT, COUNT + 4),)
  for path in (folder, folder / 'tokenizer.json'):
    given = opening.open_run(settings(str(path), checkpoint), tmp_path).tokenizer
    assert given.fingerprint == own.fingerprint
  named = saved(tmp_path / 'smiles', described(35, 2, 'smiles_qm9'))
  found = opening.open_run(settings(checkpoint=named), tmp_path).tokenizer
  assert found.fingerprint == SMILES.fingerprint


def test_an_import_is_not_taken_for_that_of_another_source(tmp_path):
  # As when a first command was refused after its import, and the next one corrects it.
  vocab, found = (11, 13), []
  for size in (*vocab, vocab[1]):
    path = tmp_path / f'source{size}'
    if not path.exists():
      config = manifests.MDLM_CONFIG | {'vocab_size': size}
      tensors = manifests.random_tensors(manifests.mdlm(size, 16, 2, 2, 8))
      manifests.write_directory(path, config, tensors)
    found.append(opening.open_path(str(path), tmp_path / 'run', 'checkpoint'))
  assert [f.description.architecture.vocab_size for f in found] == [11, 13, 13]


@pytest.mark.parametrize('value', [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_not_used(tmp_path, value):
  tensors = manifests.random_tensors(manifests.SMALL_MDLM)
  tensors['backbone.blocks.1.mlp.0.bias'][5] = value
  path = manifests.write_directory(tmp_path / 's', manifests.MDLM_CONFIG, tensors)
  with pytest.raises(DamagedData, match=r"tensor 'backbone\..*' has NaN or infinity"):
    opening.load(opening.open_path(str(path), tmp_path / 'run', 'checkpoint'))


def test_there_may_be_none(tmp_path):
  with pytest.raises(BadInput, match="found 'checkpoint' without a checkpoint"):
    opening.open_run(settings(), tmp_path)
  bare = saved(tmp_path / 'bare', described())
  with pytest.raises(BadInput, match='brings no tokenizer along; wanted one of smiles'):
    opening.open_run(settings(checkpoint=bare), tmp_path)
  with pytest.raises(
    BadInput, match=r'no file or directory nowhere; wanted the name of'
  ):
    opening.open_run(settings('nowhere'), tmp_path)


@pytest.mark.slow
def test_ids_without_a_token_are_never_sampled(checkpoint, tmp_path):
  options = settings(checkpoint=checkpoint)
  model = opening.load_masked(options, opening.open_run(options, tmp_path))
  description, params, tokenizer = model.description, model.params, model.tokenizer
  assert description.undefined_ids == ((COUNT, COUNT + 4),)
  network = denoiser.bind(params, description)
  scores = np.asarray(network.logits(np.ones((1, 8), np.float32)))
  assert (scores[:, COUNT:] < -1e29).all()
  assert (scores[:, :COUNT] > -1e29).all()
  drawn = drawing.draw(
    model,
    schedule_of(options.method),
    dataclasses.replace(options.sample, num_steps=2),
    jax.random.key(0),
    drawing.starting_rows(options, tokenizer, 64),
    one_device(),
  )
  assert drawn.tokens.max() < COUNT
  assert tokenizer.mask_id not in drawn.tokens
  drawing.write_samples(tmp_path, drawn, tokenizer, registry.of(options.data))
  record = json.loads((tmp_path / 'samples.jsonl').read_text().splitlines()[0])
  assert record['text'] == tokenizer.decode(drawn.tokens[0])


def test_a_built_in_tokenizer_of_a_padded_embedding(tmp_path):
  fitted = opening.fitted(described(40, 2), SMILES, settings('smiles_qm9'), 'here')
  assert fitted.undefined_ids == ((35, 40),)
  exact = described(35, 2)
  assert opening.fitted(exact, SMILES, settings('smiles_qm9'), 'here') == exact


@pytest.mark.parametrize(
  ('description', 'message'),
  [
    (
      described(34, 2),
      'its vocabulary has 34 ids; wanted at least 35, as in tokenizer',
    ),
    (described(35, 3), 'its mask id is 3; wanted 2, as in tokenizer smiles_qm9'),
    (described(35, 2, 'text8'), "its tokenizer is 'text8'; wanted data.tokenizer = 's"),
    (
      described(35, 2, 'smiles_qm9', fingerprint='0' * 64),
      "with tokenizer 'smiles_qm9', fingerprint 000000000000; found 'smiles_qm9', ",
    ),
  ],
  ids=['size', 'mask', 'name', 'fingerprint'],
)
def test_models_of_another_tokenizer(description, message):
  with pytest.raises(BadInput) as caught:
    opening.fitted(description, SMILES, settings('smiles_qm9'), 'here')
  assert str(caught.value).startswith('here: ')
  assert message in str(caught.value)


def test_a_judge_reads_with_its_own_tokenizer(checkpoint, tmp_path):
  own = saved(tmp_path / 'own', judge_of(COUNT), FILES)
  named = saved(tmp_path / 'named', judge_of(35, 'text8'))
  bare = saved(tmp_path / 'bare', judge_of(40))
  for path, name in ((own, 'tokenizer.json'), (named, 'text8'), (bare, 'smiles_qm9')):
    judge = opening.load_judge(settings('smiles_qm9', judge=path), tmp_path, SMILES)
    assert judge.tokenizer.name == name
  assert judge.description.undefined_ids == ((35, 40),)
  small = saved(tmp_path / 'small', judge_of(20))
  with pytest.raises(BadInput, match='its vocabulary has 20 ids; wanted at least 35'):
    opening.load_judge(settings('smiles_qm9', judge=small), tmp_path, SMILES)


def test_a_new_model_remembers_its_tokenizer(folder, tmp_path):
  options = settings(
    str(folder),
    model=ModelSettings(hidden_dim=8, num_blocks=1, num_heads=2, cond_dim=4),
  )
  start = starting.starting_point(
    options, opening.open_run(options, tmp_path), jax.random.key(0), one_device()
  )
  description, params, tokenizer = start.description, start.params, start.tokenizer
  assert description.architecture.vocab_size == COUNT
  assert description.mask_id == IDS['[MASK]']
  assert description.fingerprint == tokenizer.fingerprint
  store.save_model(tmp_path / 'm', description, params, {}, tokenizer.files)
  again = settings(checkpoint=str(tmp_path / 'm'))
  opened = opening.open_run(again, tmp_path)
  assert opened.tokenizer.fingerprint == tokenizer.fingerprint
  assert opening.load_masked(again, opened).description == description
  with pytest.raises(BadInput, match=r"trained with tokenizer 'tokenizer\.json', fing"):
    opening.load_masked(again, opened._replace(tokenizer=SMILES))


def test_a_tokenizer_without_a_mask_cannot_sample(folder, tmp_path):
  options = settings(str(folder), method=MethodSettings(objective='causal'))
  tokenizer = opening.open_run(options, tmp_path).tokenizer
  with pytest.raises(BadInput, match='has no mask; wanted that of a masked'):
    drawing.starting_rows(options, tokenizer)


def test_blocks_that_do_not_divide_the_length_are_refused():
  """The length of the model, and the length of the rows."""

  def trained(block_length, model=None, length=16):
    data = dataclasses.replace(Settings().data, length=length)
    options = Settings(model=ModelSettings(block_length=block_length), data=data)
    return starting.as_trained(model or described(), options)

  with pytest.raises(
    BadInput,
    match=r'model\.block_length is 5; wanted 0, or a divisor of the length, 16',
  ):
    trained(5)
  wanted = r'data\.length: found 12; wanted a multiple of the blocks of 8'
  with pytest.raises(BadInput, match=wanted):
    trained(8, length=12)
  found = trained(8)
  assert found.block_length == 8
  with pytest.raises(
    BadInput, match=r'model\.block_length: found 4 .*own is 8; wanted'
  ):
    trained(4, found)
  data = dataclasses.replace(Settings().data, length=12)
  with pytest.raises(BadInput, match=wanted):
    opening.check_blocks(found, Settings(data=data))
