"""The programs of pods, compiled by the compiler of TPUs, through --mode=plan."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from scmdm_jax import command_line
from scmdm_jax.models import flops
from scmdm_jax.settings.resolve import resolve
from scmdm_jax.verbs import plan

ROOT = pathlib.Path(__file__).parents[2]
# Compiling takes a minute or two of a core each, far more on a busy machine.
LIMIT = 3600
pytestmark = [
  pytest.mark.long,
  pytest.mark.timeout(2 * LIMIT),
  pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="the TPU compiler is not installed: pip install 'jax[tpu]'",
  ),
]
SAMPLE = '--config.plan.job=sample'
PROGRAMS = {
  'mdlm v5e': ['mdlm_owt.py'],
  'mdlm v6e': ['mdlm_owt.py:v6e'],
  # The same for 16 times the devices and the batch.
  'mdlm v6e 256': [
    'mdlm_owt.py:v6e',
    '--config.plan.topology=v6e:16x16',
    '--config.train.batch_size=8192',
  ],
  'mdlm v5e sample': ['mdlm_owt.py', SAMPLE],
  'mdlm v6e sample': ['mdlm_owt.py:v6e', SAMPLE],
  'llada': ['llada_8b.py'],
  'llada sample': ['llada_8b.py:sample'],
  'dream': ['dream_7b.py'],
  'dream sample': ['dream_7b.py:sample'],
}


def plan_of(config, *options):
  """Exit code and last line of --mode=plan."""
  done = subprocess.run(
    [sys.executable, '-m', 'scmdm_jax.main', f'--config=configs/{config}', *options],
    cwd=ROOT,
    env={**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': '0', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=LIMIT,
    check=False,
  )
  assert done.returncode in (0, 1), done.stderr[-3000:]
  return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
  """What --mode=plan says of a program, by its name; each is compiled once."""
  directory = tmp_path_factory.mktemp('plans')

  def run(name, config, *options):
    workdir = f'--workdir={directory / name.replace(" ", "_")}'
    code, figures = plan_of(config, workdir, '--config.plan.tries=0', *options)
    assert code == 0, figures
    return figures

  # The largest first, two at a time: a compiler keeps one core busy.
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    jobs = {name: pool.submit(run, name, *PROGRAMS[name]) for name in sorted(PROGRAMS)}
    yield {name: job.result() for name, job in jobs.items()}


def described(name):
  """Settings and model of a program."""
  settings = resolve(
    command_line.load_config(str(ROOT / 'configs' / PROGRAMS[name][0]))
  )
  return settings, plan._described(settings, ROOT)


@pytest.mark.parametrize('name', PROGRAMS)
def test_it_fits_and_gathers_no_vocabulary(planned, name):
  figures = planned[name]
  compiler, (settings, description) = figures['compiler'], described(name)
  assert figures['fits'] is True
  assert compiler['peak'] <= figures['room']
  assert compiler['peak'] == figures['peak_bytes']
  # Neither the table nor the scores of a device's part of the batch are put together.
  arch = description.architecture
  rows = settings.sample.batch_size
  if figures['job'] == 'train':
    rows = settings.train.batch_size // settings.train.accumulate
  split = figures['mesh']['data'] * figures['mesh']['fsdp']
  table = arch.vocab_size * arch.hidden_dim
  scores = max(rows // split, 1) * settings.data.length * arch.vocab_size
  assert compiler['largest_gather'] < min(table, scores)
  if figures['job'] == 'sample':  # Nor those of one position.
    assert compiler['largest_gather'] < arch.vocab_size


@pytest.mark.parametrize('name', PROGRAMS)
def test_it_is_one_program_for_all_steps(planned, name):
  # The state comes back as it was given, so that the next step meets the same program.
  # A sampler is given the same for every batch, and gives nothing back.
  steady = planned[name]['compiler']['steady']
  assert steady is (True if planned[name]['job'] == 'train' else None)


def test_parameters_are_those_of_the_published_models(planned):
  billions = {name: planned[name]['parameters'] / 1e9 for name in planned}
  # Published sizes, and the injection of hidden_dim squared.
  assert billions['mdlm v5e'] == pytest.approx(0.17, abs=0.01)
  assert billions['llada'] == pytest.approx(8.02 + 4096**2 / 1e9, abs=0.01)
  assert billions['dream'] == pytest.approx(7.62 + 3584**2 / 1e9, abs=0.01)


def test_what_stays_is_split_as_the_mesh_says(planned):
  for name, ways in (('llada', 64), ('dream', 64), ('mdlm v6e', 1)):
    figures = planned[name]
    weights = 4 * figures['parameters'] / ways
    kept = figures['bytes_per_device']
    # Norms and biases are whole.
    assert weights <= kept['weights'] < 1.02 * weights, name
    assert kept['average'] == kept['weights']
    assert kept['optimizer'] == 2 * kept['weights'] + 4


def test_weak_scaling(planned):
  few, many = planned['mdlm v6e'], planned['mdlm v6e 256']
  assert (few['devices'], many['devices']) == (16, 256)
  assert many['compiler']['flops'] == pytest.approx(few['compiler']['flops'], rel=0.01)
  assert many['compiler']['peak'] == pytest.approx(few['compiler']['peak'], rel=0.05)
  # Gradients are summed over all devices, whole: as many bytes for any number of them.
  sent = [figures['communication']['bytes_per_step'] for figures in (few, many)]
  assert sent[1] == pytest.approx(sent[0], rel=0.05)
  # The job ends sixteen times as soon, for the same device-hours.
  ratio = many['cost']['device_hours'] / few['cost']['device_hours']
  assert ratio == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize('name', ['mdlm v6e', 'llada', 'dream'])
def test_a_training_is_planned_to_its_end(planned, name):
  figures, (settings, description) = planned[name], described(name)
  cost = figures['cost']
  assert cost['flops_per_token'] == flops.training(
    description, settings.data.length, settings.method.rate
  )
  assert cost['tokens'] == 3.25e9
  assert cost['steps'] * cost['tokens_per_step'] >= 3.25e9
  assert cost['device_hours'] > 0
  assert cost['seconds_per_step'] > 0
  assert figures['communication']['bytes_per_step'] > 0


def test_what_does_not_fit_is_told_with_what_does(tmp_path):
  options = [
    *('--mode=plan', '--config.plan.topology=v5e:2x2'),
    '--config.train.batch_size=262144',
  ]
  workdir = f'--workdir={tmp_path / "large"}'
  code, figures = plan_of('quickstart.py', workdir, *options)
  # The compiler has found no room, and says how much it would have needed.
  assert (code, figures['fits'], figures['compiler']) == (1, False, None)
  assert figures['peak_bytes'] > figures['room']
  change = [f'--config.{name}={value}' for name, value in figures['change'].items()]
  workdir = f'--workdir={tmp_path / "changed"}'
  code, figures = plan_of('quickstart.py', workdir, *options, *change)
  assert (code, figures['fits']) == (0, True)
