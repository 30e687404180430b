import dataclasses
import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.domains import registry
from scmdm_jax.domains.molecules.tokenizer import SmilesTokenizer
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import counting, drawing
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import SampleSettings, Settings
from tests.compiling import quick_jit

TOKENIZER = get_tokenizer('smiles_qm9')
DESCRIPTION = ModelDescription(
  DiTConfig(35, 12, 16, 1, 2, 8), TOKENIZER.mask_id, 'smiles_qm9', 'embedding'
)
OPTIONS = SampleSettings(num_samples=5, batch_size=5, num_steps=4, temperature=2.0)
KEY = jax.random.key(3)
MESH = one_device()
MASKED = np.full((5, 12), TOKENIZER.mask_id, np.int32)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    drawing.compiled_sampler.cache_clear()
    yield
    drawing.compiled_sampler.cache_clear()


@pytest.fixture(scope='module')
def params():
  """Random everywhere: a fresh model would ignore its signal and its input."""
  abstract = denoiser.abstract_params(DESCRIPTION)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32), abstract
  )
  # Large, so that the signal tells in the tokens.
  params['self_conditioning'] = jax.tree.map(
    lambda x: 30 * x, params['self_conditioning']
  )
  return params


def draw(params, x_init=MASKED, **changes):
  options = dataclasses.replace(OPTIONS, **changes)
  model = Model(DESCRIPTION, params, TOKENIZER)
  return drawing.draw(model, LogLinear(), options, KEY, x_init, MESH)


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', [1, 2, 7])
def test_batch_size_changes_nothing(params, batch_size):
  whole = draw(params).tokens
  assert whole.shape == (5, 12)
  assert len(np.unique(whole)) > 10
  np.testing.assert_array_equal(draw(params, batch_size=batch_size).tokens, whole)


def test_counts_its_evaluations_and_keeps_the_trajectory(params):
  drawn = draw(params, trajectory=True, batch_size=2)
  assert drawn.evaluations == 4
  assert drawn.trajectory.shape == (4, 5, 12)
  np.testing.assert_array_equal(drawn.trajectory[-1], drawn.tokens)
  masked = (drawn.trajectory == TOKENIZER.mask_id).sum(axis=(1, 2))
  assert (np.diff(masked) <= 0).all() and masked[-1] == 0


def test_the_carried_signal_matters_and_can_be_switched_off(params):
  carried = draw(params).tokens
  vanilla = draw(params, self_conditioning=False).tokens
  assert (carried != vanilla).any()
  without = dataclasses.replace(DESCRIPTION, injection='none')
  base = drawing.draw(
    Model(without, params, TOKENIZER), LogLinear(), OPTIONS, KEY, MASKED, MESH
  ).tokens
  np.testing.assert_array_equal(vanilla, base)


def test_prompt_stays(params):
  settings = Settings()
  settings = dataclasses.replace(
    settings,
    data=dataclasses.replace(settings.data, length=12),
    sample=dataclasses.replace(OPTIONS, prompt='C_=O$'),
  )
  x_init = drawing.starting_rows(settings, TOKENIZER)
  free = x_init[0] == TOKENIZER.mask_id
  assert free.sum() == 1
  tokens = draw(params, x_init).tokens
  np.testing.assert_array_equal(tokens[:, ~free], x_init[:, ~free])
  assert not (tokens == TOKENIZER.mask_id).any()


PROMPT = np.where(np.arange(12) % 4 == 0, 7, TOKENIZER.mask_id).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    {'noise': 'float64'},
    {'noise': 'low'},
    {'strategy': 'first_hitting', 'num_steps': 12},
    {'strategy': 'confidence:measure=margin', 'block_length': 6},
    {'strategy': 'remdm:rule=conf', 'keep_signal': False},
    {'strategy': 'threshold:tau=0.2', 'guidance': 0.5, 'num_steps': 12},
  ],
  ids=str,
)
def test_every_kind_of_sampler_writes_all_and_keeps_the_prompt(params, options):
  drawn = draw(params, np.tile(PROMPT, (5, 1)), **options)
  fixed = TOKENIZER.mask_id != PROMPT
  np.testing.assert_array_equal(drawn.tokens[:, fixed], np.tile(PROMPT[fixed], (5, 1)))
  assert not (drawn.tokens == TOKENIZER.mask_id).any()
  assert drawn.tokens.dtype == np.int32
  assert len(np.unique(drawn.tokens)) > 5
  most = options.get('num_steps', 4) * (2 if 'guidance' in options else 1)
  if options.get('strategy', '').startswith('threshold'):
    assert drawn.evaluations < most  # Of 9 positions, some steps write several.
  else:
    assert drawn.evaluations == min(most, 9 if 'num_steps' in options else most)


def test_written_samples(params, tmp_path):
  drawn = draw(params, trajectory=True)
  drawing.write_samples(tmp_path, drawn, TOKENIZER, registry.of(Settings().data))
  lines = (tmp_path / 'samples.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [r['index'] for r in records] == list(range(5))
  assert [r['tokens'] for r in records] == drawn.tokens.tolist()
  for record in records:
    pieces = [TOKENIZER.tokens[t] for t in record['tokens']]
    assert record['trajectory'][-1] == pieces
    hidden = {'<bos>', '<eos>', '<pad>'}
    assert record['text'] == ''.join(p for p in pieces if p not in hidden)
  assert [p.name for p in tmp_path.iterdir()] == ['samples.jsonl']


def test_prompt_with_nothing_to_write_is_refused():
  settings = Settings()
  options = dataclasses.replace(settings.sample, prompt='CCO$')
  with pytest.raises(BadInput, match=r"prompt: 'CCO\$' leaves nothing to write"):
    drawing.starting_rows(dataclasses.replace(settings, sample=options), TOKENIZER)


class WithClasses(SmilesTokenizer):
  """Three of the atoms taken for classes."""

  class_ids = (7, 8, 9)


def starting_rows(count=None, tokenizer=TOKENIZER, **options):
  settings = Settings()
  changed = dataclasses.replace(settings.sample, num_samples=5, **options)
  settings = dataclasses.replace(settings, sample=changed)
  return drawing.starting_rows(settings, tokenizer, count)


def test_rows_begin_with_every_class_in_turn_or_with_one():
  mask = TOKENIZER.mask_id
  rows = starting_rows(tokenizer=WithClasses())
  assert rows[:, 0].tolist() == [7, 8, 9, 7, 8]
  assert (rows[:, 1:] == mask).all()
  assert starting_rows(2, WithClasses(), label=1)[:, 0].tolist() == [8, 8]
  assert (starting_rows() == mask).all()
  rows = starting_rows(tokenizer=WithClasses(), prompt='C_')
  assert len(np.unique(rows[:, 0])) == 1  # The prompt says how a row begins.
  with pytest.raises(BadInput, match=r'label: found 1 with a sample\.prompt that'):
    starting_rows(tokenizer=WithClasses(), prompt='C_', label=1)


def test_guidance_wants_something_to_be_guided_by():
  assert starting_rows(tokenizer=WithClasses(), guidance=1.0).shape[0] == 5
  with pytest.raises(BadInput, match=r'guidance: found 1 without sample.prompt or cla'):
    starting_rows(guidance=1.0)


def test_class_that_is_not_there_is_refused():
  with pytest.raises(BadInput, match=r'label: found 3; smiles_qm9 has 3 classes'):
    starting_rows(tokenizer=WithClasses(), label=3)
  with pytest.raises(BadInput, match=r'label: found 0; smiles_qm9 has 0 classes'):
    starting_rows(label=0)


def test_every_sample_starts_from_its_own_row(params):
  x_init = MASKED.copy()
  x_init[:, 0] = [7, 8, 9, 7, 8]
  whole = draw(params, x_init).tokens
  np.testing.assert_array_equal(whole[:, 0], x_init[:, 0])
  np.testing.assert_array_equal(draw(params, x_init, batch_size=2).tokens, whole)


def test_every_sample_has_its_own_evaluations(params):
  """With a token per evaluation, as many as it has tokens, whatever its batch took."""
  x_init = MASKED.copy()
  left = np.array([3, 12, 1, 7, 5])
  for row, count in zip(x_init, left, strict=True):
    row[: 12 - count] = TOKENIZER.encode('CCCCCCCCCC', 12)[: 12 - count]
  options = {'strategy': 'first_hitting', 'num_steps': 12, 'batch_size': 2}
  drawn = draw(params, x_init, **options)
  assert drawn.written.tolist() == left.tolist()
  assert drawn.evaluations == 12
  assert drawn.rows == 2 * (12 + 7 + 5)
  drawn = counting.counted(drawn, x_init, TOKENIZER)
  found = counting.cost(drawn)
  assert found['tokens_per_evaluation'] == drawn.generated.sum() / left.sum()
  domain = registry.of(Settings().data)
  records = drawing._records(drawn, TOKENIZER, domain)
  assert [record['evaluations'] for record in records] == left.tolist()


def test_caches_and_split_positions_do_not_go_together():
  sizes = tuple(1 + (name == 'sequence') for name in MESH.axis_names)
  mesh = AbstractMesh(sizes, MESH.axis_names)
  sampler = Sampler(4, block_length=6, cache='dual')
  wanted = r"sample\.cache: found 'dual' with mesh\.sequence = 2; wanted auto or none"
  with pytest.raises(BadInput, match=wanted):
    drawing.sampler_on(DESCRIPTION, sampler, mesh)
  assert drawing.sampler_on(DESCRIPTION, sampler, MESH, 12).cache == 'dual'
  with pytest.raises(BadInput, match=r'sample\.block_length: found 6; wanted a divis'):
    drawing.sampler_on(DESCRIPTION, sampler, MESH, 13)
