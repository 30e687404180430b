import dataclasses
import json

import jax
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.diffusion.caching import evaluated
from scmdm_jax.errors import BadInput
from scmdm_jax.models import flops
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.settings.options import PlanSettings
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import plan
from tests import tiny_run
from tests.compiling import quick_jit
from tests.models.parameters import random_params
from tests.parallel.sameness_test import on_eight_devices

TINY = {
  'mode': 'plan',
  'model': {'hidden_dim': 8, 'num_blocks': 1, 'num_heads': 2, 'cond_dim': 4},
  'train': {'batch_size': 8, 'num_steps': 300},
}


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    for function in (plan.compiled_step, plan.compiled_sampler):
      function.cache_clear()
    yield
    for function in (plan.compiled_step, plan.compiled_sampler):
      function.cache_clear()


def settings_with(**options):
  return resolve(TINY | {'plan': options})


@pytest.mark.slow
@pytest.mark.parametrize('job', ['train', 'sample'])
def test_a_plan_says_what_a_run_keeps(job, tmp_path, capsys):
  figures = plan.run(settings_with(job=job, hbm_gib=1.0), tmp_path)
  assert json.loads((tmp_path / 'plan.json').read_text()) == figures
  assert (figures['ok'], figures['fits'], figures['change']) == (True, True, None)
  kept = figures['bytes_per_device']
  weights = 4 * figures['parameters']
  assert kept['weights'] == weights
  if job == 'train':
    # Two moments and a count; the average is float32 as the weights are.
    assert kept == {
      'weights': weights,
      'optimizer': 2 * weights + 4,
      'average': weights,
    }
    assert figures['cost']['tokens_per_step'] == 8 * 32
  compiler = figures['compiler']
  # Tokens, key and rate or temperature besides; no more than a few hundred numbers.
  assert 0 <= compiler['arguments'] - sum(kept.values()) < 1 << 14
  assert figures['peak_bytes'] >= compiler['arguments'] + compiler['temporaries']
  assert compiler['collectives'] == {}
  assert figures['communication'] == {'collectives_per_step': 0, 'bytes_per_step': 0}
  assert 'fits                 ' in capsys.readouterr().out


@pytest.mark.slow
def test_what_does_not_fit_comes_with_what_does(tmp_path):
  settings = settings_with(hbm_gib=1.0)
  settings = dataclasses.replace(
    settings, train=dataclasses.replace(settings.train, batch_size=64)
  )
  peak = plan.run(settings, tmp_path)['peak_bytes']
  options = dataclasses.replace(settings.plan, hbm_gib=0.7 * peak / 2**30)
  figures = plan.run(dataclasses.replace(settings, plan=options), tmp_path)
  assert (figures['ok'], figures['fits']) == (False, False)
  change = figures['change']
  assert change['train.remat'] == 'full'
  train = {name.split('.')[1]: value for name, value in change.items()}
  fitting = dataclasses.replace(
    settings, plan=options, train=dataclasses.replace(settings.train, **train)
  )
  assert plan.run(fitting, tmp_path)['fits']


# What a mesh of copies needs, what it is proposed below that, and whether that fits.
SPREAD = """\
import dataclasses, json, pathlib, sys
from scmdm_jax.verbs import plan
from scmdm_jax.settings.options import MeshSettings
from scmdm_jax.settings.resolve import resolve
def planned(settings):
  return plan.run(settings, pathlib.Path(sys.argv[1]))
settings = resolve({
  'mode': 'plan',
  'model': {'hidden_dim': 256, 'num_blocks': 2, 'num_heads': 2, 'cond_dim': 4},
  'train': {'batch_size': 8, 'remat': 'full'},
})
peak = planned(settings)['peak_bytes']
options = dataclasses.replace(settings.plan, hbm_gib=0.5 * peak / 2**30)
settings = dataclasses.replace(settings, plan=options)
change = planned(settings)['change']
sizes = {name.removeprefix('mesh.'): size for name, size in change.items()
         if name.startswith('mesh.')}
spread = dataclasses.replace(settings, mesh=MeshSettings(**sizes))
print(json.dumps([change, planned(spread)['fits']]))
"""


@pytest.mark.long
def test_parameters_that_do_not_fit_as_copies_are_spread(tmp_path):
  out = on_eight_devices('-c', SPREAD, str(tmp_path))
  change, fits = json.loads(out.splitlines()[-1])
  assert change == {'mesh.data': 1, 'mesh.fsdp': 8, 'train.remat': 'full'}
  assert fits is True


def cached(**options):
  """Settings of a sampler with a cache, in bfloat16."""
  sample = {'cache': 'dual', 'block_length': 8, 'num_steps': 8, 'batch_size': 8}
  sizes = {'hidden_dim': 32, 'num_blocks': 2, 'num_heads': 4, 'cond_dim': 4}
  return resolve(
    TINY
    | {'model': sizes, 'sample': sample | {'dtype': 'bfloat16'} | options}
    | {'plan': {'job': 'sample'}}
  )


# Keys and values of 2 layers, 8 examples of 32 tokens, 4 heads of 8, 2 bytes each.
WHOLE_CACHE = 2 * 2 * 8 * 32 * 4 * 8 * 2


@pytest.mark.slow
def test_a_plan_of_sampling_lists_what_is_kept_of_keys(tmp_path):
  figures = plan.run(cached(), tmp_path)
  kept = figures['bytes_per_device']
  assert kept['cache'] == WHOLE_CACHE
  assert figures['compiler']['temporaries'] > WHOLE_CACHE
  assert 'cache' not in plan.run(cached(cache='none'), tmp_path)['bytes_per_device']
  # All in the first of two steps of each of 4 blocks, then 8.
  fewer = 4 * 32 + 4 * 8
  described = ModelDescription(DiTConfig(35, 32, 32, 2, 4, 4), 3, '', 'embedding')
  per_token = flops.sampling(described, 32, 8, True, 4, fewer)
  assert figures['cost']['flops_per_token'] == per_token
  with pytest.raises(
    BadInput, match=r"sample\.cache: found 'exact'; wanted one of auto"
  ):
    plan.run(cached(cache='exact', block_length=0), tmp_path)
  with pytest.raises(
    BadInput, match=r'sample\.block_length: found 5; wanted a divisor'
  ):
    plan.run(cached(block_length=5), tmp_path)


def test_a_plan_is_of_the_blocks_that_are_trained(tmp_path):
  """A checkpoint that sees both ways is planned as --mode=train would train it."""
  described = ModelDescription(DiTConfig(36, 32, 8, 1, 2, 4), 35, '')
  store.save_model(tmp_path / 'model', described, random_params(described), {})
  settings = settings_with(model=str(tmp_path / 'model'))
  assert plan._described(settings, tmp_path).block_length == 0
  model = dataclasses.replace(settings.model, block_length=8)
  settings = dataclasses.replace(settings, model=model)
  assert plan._described(settings, tmp_path).block_length == 8
  data = dataclasses.replace(settings.data, length=30)
  with pytest.raises(BadInput, match=r'data\.length: found 30; wanted a multiple of'):
    plan._described(dataclasses.replace(settings, data=data), tmp_path)


# What a plan says of a cache on 8 devices, and the bytes and tokens of a real one.
SHARDED_CACHE = """\
import dataclasses, json, pathlib, sys
import jax, numpy as np
from scmdm_jax.checkpoints import store
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.domains.text.tokenizer import TEXT8
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.models.families.dit import DiTConfig
from scmdm_jax.parallel.mesh import make_mesh, one_device
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.runs import drawing
from scmdm_jax.runs.opening import Model, place
from scmdm_jax.settings.options import MeshSettings
from scmdm_jax.verbs import plan
from tests.models.parameters import random_params
from tests.verbs.plan_test import cached
described = ModelDescription(DiTConfig(36, 32, 32, 2, 4, 4), 35, '', 'embedding')
params, mesh = random_params(described), make_mesh(2, 1, 4)
directory = pathlib.Path(sys.argv[1])
store.save_model(directory / 'model', described, params, {})
settings = cached()
settings = dataclasses.replace(
  settings, mesh=MeshSettings(data=2, tensor=4),
  plan=dataclasses.replace(settings.plan, model=str(directory / 'model')))
figures = plan.run(settings, directory)
kept = figures['bytes_per_device']['cache']
sums = figures['compiler']['collectives']['all-reduce']['runs']
@jax.jit
def evaluated(params, x):
  network = denoiser.bind(params, described, execution=Execution(Placement(mesh)))
  signal = jax.numpy.zeros((*x.shape, 32))
  cache, first = network.cached.start(*x.shape), jax.numpy.int32(0)
  return network.cached.encode(
    x, signal, jax.numpy.zeros(8), cache, first, first)[1]
x = np.full((8, 32), described.mask_id, np.int32)
leaves = jax.tree.leaves(evaluated(place(params, mesh, 'bfloat16'), x))
held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
options = dataclasses.replace(settings.sample, dtype='float32', compact=4)
drawn = [
  drawing.draw(Model(described, params, TEXT8), LogLinear(), options,
               jax.random.key(3), x, mesh).tokens.tolist()
  for mesh in (mesh, one_device())
]
print(json.dumps([kept, held, [str(leaf.dtype) for leaf in leaves],
                  str(leaves[0].sharding.spec), drawn[0] == drawn[1], sums]))
"""


@pytest.mark.slow
def test_a_cache_lies_on_devices_as_planned(tmp_path):
  out = on_eight_devices('-c', SHARDED_CACHE, str(tmp_path))
  planned, held, dtypes, spec, same, sums = json.loads(out.splitlines()[-1])
  assert planned == held == WHOLE_CACHE // 8
  assert dtypes == ['bfloat16'] * 4
  assert 'data' in spec and 'tensor' in spec
  assert same is True
  # Two per layer in each of 8 steps at least, of which 2 are in a loop per block.
  assert sums >= 2 * 2 * 8


def test_nothing_fits_nowhere(tmp_path):
  figures = plan.run(settings_with(hbm_gib=1e-9), tmp_path)
  assert (figures['fits'], figures['change']) == (False, None)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'topology': 'v9:2x2'}, "plan.topology: found 'v9:2x2'; wanted GENERATION:SHAPE"),
    ({'topology': 'h100:8'}, "found 'h100:8'; wanted hosts and GPUs of each, as in"),
    ({'topology': 'h100:0x8'}, 'wanted hosts and GPUs of each'),
    ({'model': 'nowhere.json'}, 'nowhere.json: no such file'),
  ],
)
def test_mistakes(options, message, tmp_path):
  with pytest.raises(BadInput, match=message):
    plan.run(settings_with(**options), tmp_path)


def test_a_causal_checkpoint_is_not_planned_for_masks(tmp_path):
  sizes = DecoderConfig(
    *(12, 8, 16), num_blocks=1, num_heads=2, num_kv_heads=1, mlp_dim=8, causal=True
  )
  description = ModelDescription(sizes, None, '')
  store.save_model(tmp_path / 'base', description, random_params(description), {})
  with pytest.raises(
    BadInput, match=r"method\.objective: found 'masked'; wanted 'causal', as .*base"
  ):
    plan.run(settings_with(model=str(tmp_path / 'base')), tmp_path)


def test_the_exit_code_is_the_verdict(tmp_path, capsys):
  program = tiny_run.Program(capsys)
  config = tiny_run.write_config(tmp_path)
  arguments = [f'--config={config}', '--mode=plan', '--config.plan.tries=0']
  code, out, _ = program.run(
    *arguments, f'--workdir={tmp_path / "no"}', '--config.plan.hbm_gib=0.000001'
  )
  assert code == 1
  assert json.loads(out.splitlines()[-1])['fits'] is False
  code, out, _ = program.run(*arguments, f'--workdir={tmp_path / "yes"}')
  assert code == 0
  assert json.loads(out.splitlines()[-1])['fits'] is None  # A CPU has no such limit.


def test_price_and_hours_follow_from_work_and_speed():
  settings = settings_with(mfu=0.5, tokens=1e9, price_per_hour=2.0)
  described = ModelDescription(DiTConfig(35, 32, 8, 1, 2, 4), 3, '', 'embedding')
  chip = plan.chips.TPUS['v5e']
  cost = plan._cost(settings, described, 4, chip)
  per_token = flops.training(described, 32, 1.0)
  # Rounded up to whole steps of 256 tokens.
  hours = per_token * 1e9 / (0.5 * 197e12) / 3600
  assert cost['device_hours'] == pytest.approx(hours, rel=1e-6)
  assert cost['price'] == pytest.approx(2 * hours, rel=1e-6)
  assert PlanSettings().tokens == 3.25e9


@pytest.mark.slow
def test_flops_are_those_of_the_written_out_sizes():
  length, width, mlp, vocab = 1024, 4096, 12288, 126464
  arch = DecoderConfig(vocab, 4096, width, 32, 32, 32, mlp, causal=False)
  described = ModelDescription(arch, 126336, '', 'embedding')
  layer = 4 * width * width + 3 * width * mlp
  block = 2 * (32 * layer + width * width) + 4 * 32 * length * width
  assert flops.blocks(described, length) == block
  assert flops.vocabulary(described) == 2 * vocab * width
  half = vocab * width
  assert flops.training(described, length, 0.0) == 3 * (block + half)
  assert flops.training(described, length, 1.0) == 4 * (block + half) + half
  assert flops.sampling(described, length, 64, True) == 64 * (block + 2 * half)


@pytest.mark.slow
def test_flops_of_blocks_are_those_of_what_is_evaluated():
  length, width, size, steps = 64, 16, 8, 32
  arch = DecoderConfig(40, length, width, 2, 4, 4, 48, causal=False, block_length=size)
  described = ModelDescription(arch, 3, '', 'embedding')
  kernels = 2 * (2 * (4 * width * width + 3 * width * 48) + width * width)
  # Over all positions a block of n sees n * size: (length + size) / 2 on average.
  seen = sum(n * size * size for n in range(1, length // size + 1)) / length
  block = kernels + 4 * 2 * width * seen
  assert flops.blocks(described, length) == block
  half = 40 * width
  assert flops.training(described, length, 0.0) == 3 * (2 * block + half)
  assert flops.training(described, length, 1.0) == 4 * (2 * block + half) + half
  reads = steps * size * 2 * half
  plain = flops.sampling(described, length, steps, True, 8)
  assert plain * length == steps * length * block + reads
  # Two blocks in the first step of each of eight, then one.
  counts = evaluated('exact', length, size, steps)
  positions = sum(size * n for size, n in counts.items())
  assert positions == 8 * 2 * size + (steps - 8) * size
  cached = flops.sampling(described, length, steps, True, 8, positions)
  assert cached * length == positions * block + reads
