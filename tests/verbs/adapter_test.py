"""Training beside a frozen base, from the run to what is read of it again."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import scmdm_jax as sc
from scmdm_jax import command_line
from scmdm_jax.checkpoints import store
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, lora
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import compiling, opening, scoring, workdir
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import compare, plan, train
from scmdm_jax.verbs.export import export_model
from tests import tiny_run
from tests.compiling import quick_jit

pytestmark = pytest.mark.long


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    compiling.compiled_step.cache_clear()
    yield


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A base, and the settings and workdir of an adapter trained beside it."""
  folder = tmp_path_factory.mktemp('adapter')
  config = command_line.load_config(str(tiny_run.write_config(folder)))
  config.train.num_steps = 3
  config.method.rate = 0.0
  run(resolve(config), folder / 'base')
  config.update_from_flattened_dict(
    {
      'checkpoint': str(folder / 'base'),
      'method.rate': 1.0,
      'method.first_pass': 'base',
      'train.num_steps': 4,
      'train.lora_rank': 2,
      'train.lora_alpha': 6.0,
      'train.evaluate_every': 2,
      'train.log_every': 3,
      'evaluate.num_examples': 6,
      'evaluate.batch_size': 4,
      'evaluate.repeats': 2,
    }
  )
  settings = resolve(config)
  figures = run(settings, folder / 'run')
  return folder, settings, figures


def run(settings, path):
  with workdir.opened(str(path), settings) as directory:
    return train.run(settings, directory)


def resumed(finished, again, settings):
  """How many parameters a copy of a run has that goes on from before its last step."""
  shutil.copytree(finished, again)
  shutil.rmtree(again / 'model')
  for path in (again / 'checkpoints').glob('4*'):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  return run(settings, again)['parameters']


def leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def test_only_the_adapter_is_trained_and_kept(made):
  folder, _, _ = made
  base, found = store.load_model(folder / 'base')[1], sc.load(folder / 'run')
  assert found.description.adapter == lora.Adapter(2, 6.0)
  frozen, trained = lora.divided(found.params, found.description.adapter)
  for path, leaf in leaves(frozen):
    node = base
    for key in path:
      node = node[key.key]
    np.testing.assert_array_equal(leaf, node)
  # B began at zero, as did the projection of the signal.
  names = {path[-1].key for path, leaf in leaves(trained) if np.any(leaf != 0)}
  assert names == {'lora_a', 'lora_b', 'kernel'}
  # Neither the model nor the steps hold the base: three trees of what is trained.
  held = store.ocp.metadata(str(folder / 'run' / 'model' / 'params')).metadata
  state = store.ocp.checkpointables_metadata(str(folder / 'run' / 'checkpoints' / '4'))
  count = sum(leaf.size for leaf in jax.tree.leaves(trained))
  sizes = [
    sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
    for tree in (held, state.metadata['state'])
  ]
  assert sizes[0] == count
  assert sizes[1] == 4 * count + 2  # Also two moments, and two counts of steps.


def test_the_held_out_losses_are_those_of_the_model(made):
  folder, settings, _ = made
  lines = {
    line['step']: line
    for line in map(json.loads, (folder / 'run/metrics.jsonl').read_text().splitlines())
  }
  assert [s for s in lines if 'heldout_nelbo' in lines[s]] == [2, 4]
  assert sorted(lines) == [2, 3, 4]
  assert all(line['tokens_per_second'] > 0 for line in lines.values())
  # Scored again as --mode=evaluate does it, from the files.
  opened = opening.open_run(settings, folder / 'run')
  rows = train.registry.of(settings.data).read_rows(
    settings.data, opened.tokenizer, 'test'
  )
  model = sc.load(folder / 'run')
  key = jax.random.fold_in(jax.random.key(settings.seed), 4)
  for name, passes in (('heldout_nelbo', 1), ('heldout_nelbo_two_pass', 2)):
    found = scoring.mean_nelbo(
      *(model, schedule_of(settings.method), rows, settings.evaluate, key),
      *(one_device(), passes),
    )
    assert lines[4][name] == pytest.approx(found, rel=1e-6)
    assert lines[2][name] != lines[4][name]


def test_an_interrupted_run_resumes_to_the_same_bits(made):
  folder, settings, figures = made
  again = folder / 'again'
  assert resumed(folder / 'run', again, settings) == figures['parameters']
  assert tiny_run.model_bytes(again) == tiny_run.model_bytes(folder / 'run')
  assert tiny_run.curve(again) == tiny_run.curve(folder / 'run')


def test_the_merged_export_is_the_model(made, tmp_path):
  folder, _, _ = made
  export_model(str(folder / 'run'), str(tmp_path / 'merged'))
  merged, model = sc.load(tmp_path / 'merged'), sc.load(folder / 'run')
  assert merged.description.adapter is None
  tokens = np.random.default_rng(0).integers(0, 5, (2, 32)).astype(np.int32)

  def scores(model):
    bound = denoiser.bind(model.params, model.description)
    signal = np.zeros((*tokens.shape, bound.signal_dim), np.float32)
    return bound.logits(bound.encode(tokens, signal, np.zeros(2, np.float32)))

  # Sums of float32, of products and of their factors.
  np.testing.assert_allclose(scores(merged), scores(model), atol=1e-4)


def test_the_injection_can_be_trained_alone(made, tmp_path):
  """Beside a base of which no bit changes: no signal, no difference."""
  folder, settings, _ = made
  options = dataclasses.replace(settings.train, lora_targets='')
  settings = dataclasses.replace(settings, train=options)
  figures = run(settings, tmp_path / 'run')
  base, found = sc.load(folder / 'base'), sc.load(tmp_path / 'run')
  wide = settings.model.hidden_dim
  trained = lora.divided(found.params, found.description.adapter)[1]
  assert [leaf.shape for leaf in jax.tree.leaves(trained)] == [(wide, wide)]
  assert np.any(trained['self_conditioning']['projection']['kernel'] != 0)
  for (path, leaf), (wanted_path, wanted) in zip(
    leaves(found.params['backbone']), leaves(base.params['backbone']), strict=True
  ):
    assert path == wanted_path
    np.testing.assert_array_equal(leaf, wanted)
  held = store.ocp.metadata(str(tmp_path / 'run' / 'model' / 'params')).metadata
  assert [tuple(leaf.shape) for leaf in jax.tree.leaves(held)] == [(wide, wide)]
  # From the middle on it goes the same way.
  again = tmp_path / 'again'
  assert resumed(tmp_path / 'run', again, settings) == figures['parameters']
  assert tiny_run.model_bytes(again) == tiny_run.model_bytes(tmp_path / 'run')
  # As safetensors it is the base and the injection.
  export_model(str(tmp_path / 'run'), str(tmp_path / 'whole'))
  whole = sc.load(tmp_path / 'whole')
  for ours, theirs in zip(*map(leaves, (whole.params, found.params)), strict=True):
    np.testing.assert_array_equal(ours[1], theirs[1])
  with pytest.raises(BadInput, match=r'found peft, but .* has no low-rank factors'):
    export_model(str(tmp_path / 'run'), str(tmp_path / 'peft'), as_peft=True)


def test_another_base_in_the_same_place_is_refused(made, tmp_path):
  folder, settings, _ = made
  moved = folder / 'base' / 'moved'
  (folder / 'base' / 'model').rename(moved)
  try:
    with pytest.raises(BadInput, match='an adapter, whose base is not at'):
      sc.load(folder / 'run')
    shutil.copytree(moved, folder / 'base' / 'model')
    description, params = store.load_model(moved)
    params['backbone']['blocks_0']['mlp_0']['bias'] += 1
    store.save_model(folder / 'base' / 'model', description, params, {})
    with pytest.raises(BadInput, match=r'base with weights \w{12}, found \w{12} at'):
      sc.load(folder / 'run')
    # Nor does the training go on beside it.
    again = tmp_path / 'again'
    shutil.copytree(folder / 'run', again)
    with pytest.raises(BadInput, match='base was'):
      run(settings, again)
  finally:
    shutil.rmtree(folder / 'base' / 'model')
    moved.rename(folder / 'base' / 'model')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'checkpoint': ''}, 'train.lora_rank: found 2 without a checkpoint'),
    (
      {'checkpoint': '', 'mode': 'plan'},
      'train.lora_rank: found 2 without a checkpoint',
    ),
    ({'train.lora_targets': 'nothing'}, "train.lora_targets is 'nothing', which match"),
    (
      {'train.lora_targets': 'nothing', 'mode': 'compare'},
      "train.lora_targets is 'nothing', which match",
    ),
    ({'train.lora_targets': '('}, r"train.lora_targets is '\(': no regular expression"),
    ({'mode': 'benchmark'}, 'train.lora_rank: found 2 with --mode=benchmark'),
    (
      {'train.lora_targets': '', 'method.rate': 0.0, 'method.first_pass': 'adapted'},
      "train.lora_targets: found '' with --mode=train, method.rate = 0.0",
    ),
    (
      {
        'train.lora_targets': '',
        'method.objective': 'causal',
        'method.first_pass': 'adapted',
        'model.architecture': 'llama',
      },
      "train.lora_targets: found '' with .* method.objective = 'causal'",
    ),
    (
      {'train.lora_targets': '', 'train.lora_rank': 0},
      "train.lora_targets: found '' with train.lora_rank = 0",
    ),
    (
      {'train.lora_targets': '', 'mode': 'compare'},
      "train.lora_targets: found '' with --mode=compare",
    ),
    (
      {'train.lora_rank': 0},
      "first_pass: found 'base' with train.lora_rank = 0",
    ),
    (
      {'method.estimate': 'unrolled'},
      "method.first_pass: found 'base' with .* 'unrolled'",
    ),
    (
      {'mode': 'compare', 'compare.recipes': ('same_t', 'earlier_t:rate=0.5')},
      "method.first_pass: found 'base' with .* a recipe = 'earlier_t:rate=0.5'",
    ),
  ],
)
def test_what_has_no_adapter_is_refused(made, tmp_path, changes, message):
  folder, _, _ = made
  config = command_line.load_config(str(folder / 'tiny.py'))
  config.update_from_flattened_dict(
    {
      'checkpoint': str(folder / 'base'),
      'train.lora_rank': 2,
      'method.first_pass': 'base',
      **changes,
    }
  )
  with pytest.raises(BadInput, match=message) as refused:
    settings = resolve(config)
    verb = {'compare': compare, 'plan': plan, 'train': train}[settings.mode]
    with workdir.opened(str(tmp_path / 'refused'), settings) as directory:
      verb.run(settings, directory)
  assert '\n' not in str(refused.value)


@pytest.mark.parametrize('mode', ['train', 'plan'])
def test_another_adapter_than_the_checkpoints_is_refused(made, tmp_path, mode):
  folder, settings, _ = made
  options = dataclasses.replace(settings.train, lora_rank=3)
  settings = dataclasses.replace(
    settings, mode=mode, checkpoint=str(folder / 'run'), train=options
  )
  message = r'train.lora_rank: found Adapter\(rank=3.*; wanted Adapter\(rank=2'
  with pytest.raises(BadInput, match=message):
    {'plan': plan, 'train': train}[mode].run(settings, tmp_path)


def test_a_comparison_of_adapters(made, tmp_path):
  """Its arms are what --mode=train makes, and their base is not trained."""
  folder, settings, _ = made
  config = command_line.load_config(str(folder / 'tiny.py'))
  config.update_from_flattened_dict(
    {
      'mode': 'compare',
      'checkpoint': str(folder / 'base'),
      'method.first_pass': 'base',
      'train.num_steps': 4,
      'train.lora_rank': 2,
      'train.lora_alpha': 6.0,
      'sample.num_samples': 6,
      'sample.batch_size': 4,
      'sample.num_steps': 3,
      'evaluate.num_examples': 6,
      'evaluate.batch_size': 4,
      'evaluate.repeats': 1,
      'evaluate.carried_steps': (2,),
      'compare.rates': (1.0,),
      'compare.equal_steps': False,
      'compare.seeds': (0,),
      'compare.step_counts': (3,),
      'compare.benchmark_pairs': 1,
    }
  )
  with workdir.opened(str(tmp_path), resolve(config)) as directory:
    figures = compare.run(resolve(config), directory)
  assert figures['arms']['rate 1'] == 4 < figures['arms']['rate 0, equal FLOPs'] < 8
  report = json.loads((tmp_path / 'report' / 'report.json').read_text())
  runs = {run['arm']: run for run in report['runs']}
  place = tmp_path / 'arms' / 'rate_1' / 'seed_0'
  assert tiny_run.model_bytes(place) == tiny_run.model_bytes(folder / 'run')
  assert sc.load(place).description.adapter == lora.Adapter(2, 6.0)
  held = store.ocp.metadata(str(place / 'model' / 'params')).metadata
  count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(held))
  assert runs['rate 1']['trained_parameters'] == count
  # The projection of the signal, D x D, is all that the control does not have.
  wide = settings.model.hidden_dim
  assert runs['rate 0, equal FLOPs']['trained_parameters'] == count - wide**2
  assert runs['base (not adapted)']['trained_parameters'] == 0
  # An adapter is no base of a comparison.
  settings = dataclasses.replace(settings, mode='compare')
  for checkpoint, wanted in (
    (folder / 'run', 'an adapter beside its base'),
    (tmp_path / 'arms/rate_0-equal_FLOPs/seed_0', 'an adapter beside its base'),
  ):
    refused = dataclasses.replace(settings, checkpoint=str(checkpoint))
    with pytest.raises(BadInput, match=wanted):
      compare.run(refused, tmp_path / 'refused')
