"""`--mode=plan`: whether a run fits its devices, and what it will cost.

config -> mesh of a pod that need not be there -> compiler -> workdir/plan.json

Nothing is run and no weights are read. Exit code 0: it fits; 1: it does not, and the
nearest change that was found to fit is named.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from scmdm_jax import files
from scmdm_jax.buckets import paths
from scmdm_jax.checkpoints import disk, model_config, store
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser, flops, lora
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.parallel import chips, roofline, rules
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.compiled import Facts, compile_and_measure
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.report.plan import table
from scmdm_jax.runs import opening, starting
from scmdm_jax.runs.compiling import compiled_step
from scmdm_jax.runs.counting import flops_per_token
from scmdm_jax.runs.drawing import compiled_sampler, sampler_on
from scmdm_jax.settings.building import (
  adapter_of,
  new_model,
  optimizer_of,
  reported,
  sampler_of,
  schedule_of,
)
from scmdm_jax.settings.options import Settings
from scmdm_jax.training.step import initial_state


def _described(settings: Settings, workdir: pathlib.Path) -> ModelDescription:
  """What is planned for, from a config.json, a checkpoint or the sizes of a new one."""
  path = settings.plan.model or settings.checkpoint
  if not path:
    starting.refuse_adapter_of_nothing(settings.train)
    tokenizer = opening.open_run(settings, workdir).tokenizer
    return new_model(settings, tokenizer.vocab_size, tokenizer.mask_id)
  source = paths.local_path(path)
  # The config.json of a training's workdir holds its options; the model lies below.
  ours = (source / store.MODEL_SUBDIRECTORY / store.MODEL_JSON).is_file()
  if not ours and (source / 'config.json').is_file():
    source = source / 'config.json'
  if source.suffix == '.json':
    if not source.is_file():
      raise BadInput(f'plan.model: {source}: no such file')
    config = disk.read_json(source)
    description = model_config.description_from_config(config, str(source))
  else:
    description = store.open_model(source, verify_below=0).description
  if description.objective == 'classify':
    raise BadInput(f'{path}: a classifier; wanted a model of tokens')
  starting.refuse_other_objective(description, settings.method, path)
  wanted = settings.method.injection
  masked = description.mask_id is not None
  if masked and description.injection == 'none' and settings.method.rate > 0:
    description = dataclasses.replace(description, injection=wanted)
  blocks = settings.model.block_length
  description = reported('model', lambda: description.in_blocks(blocks))
  opening.check_blocks(description, settings)
  has, adapter = description.adapter, adapter_of(settings.train)
  if adapter is not None:
    starting.refuse_other_adapter(has, adapter, path)
  return dataclasses.replace(description, adapter=has or adapter)


def _state(
  settings: Settings, description: ModelDescription, mesh: Mesh
) -> tuple[Any, Any]:
  """What a step changes, and what of the model it does not, if anything."""
  frozen, trained = lora.divided(
    denoiser.abstract_params(description), description.adapter
  )
  start = functools.partial(initial_state, config=optimizer_of(settings.train))
  if frozen is not None:
    frozen = rules.placed(mesh, frozen, settings.train.dtype)
  return rules.placed(mesh, jax.eval_shape(start, trained)), frozen


def _bytes(tree: Any) -> int:
  """Bytes of a placed tree on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _sampler(settings: Settings, description: ModelDescription, mesh: Mesh) -> Sampler:
  """The sampler of a run, with the cache that its model has.

  Raises:
    BadInput: blocks or a cache that the model cannot have.
  """
  sampler = sampler_of(settings.sample, schedule_of(settings.method))
  return sampler_on(description, sampler, mesh, settings.data.length)


def _cache(settings: Settings, description: ModelDescription, mesh: Mesh) -> Any:
  """What is kept of keys and values, by every network; None: nothing is."""
  sampler, sample = _sampler(settings, description, mesh), settings.sample
  if sampler.cache == 'none' or sampler.blocks(settings.data.length) == 1:
    return None
  placement = Placement(mesh)

  def start(params: Any) -> Any:
    network = denoiser.bind(params, description, execution=Execution(placement))
    assert network.cached is not None
    return network.cached.start(sample.batch_size, settings.data.length)

  params = rules.placed(mesh, denoiser.abstract_params(description), sample.dtype)
  kept = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape,
      x.dtype,
      sharding=placement.kept_sharding(x.shape) or meshes.replicated(mesh),
    ),
    jax.eval_shape(start, params),
  )
  return [kept] * (2 if sampler.guidance else 1)


def _lowered(settings: Settings, description: ModelDescription, mesh: Mesh) -> Any:
  """The training step or the sampler of a run, ready to be compiled."""
  rows, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
  key = jax.eval_shape(lambda: jax.random.key(0)).dtype
  number = jax.ShapeDtypeStruct((), np.float32, sharding=whole)
  length = settings.data.length
  if settings.plan.job == 'train':
    train = settings.train
    meshes.check_batch(
      'train.batch_size / train.accumulate', train.batch_size // train.accumulate, mesh
    )
    step = compiled_step(
      description,
      settings.method,
      optimizer_of(train),
      mesh,
      train.remat,
      train.dtype,
    )
    shape = (train.batch_size, length)
    batch = jax.eval_shape(batch_of, jax.ShapeDtypeStruct(shape, np.int32))
    state, frozen = _state(settings, description, mesh)
    return step.lower(
      state,
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch
      ),
      jax.ShapeDtypeStruct((), key, sharding=whole),
      number,
      **({} if frozen is None else {'frozen': frozen}),
    )
  sample = settings.sample
  meshes.check_batch('sample.batch_size', sample.batch_size, mesh)
  run = compiled_sampler(
    description, _sampler(settings, description, mesh), sample.trajectory, mesh
  )
  shape = (sample.batch_size, length)
  return run.lower(
    rules.placed(mesh, denoiser.abstract_params(description), sample.dtype),
    jax.ShapeDtypeStruct(shape[:1], key, sharding=rows),
    jax.ShapeDtypeStruct(shape, np.int32, sharding=rows),
    number,
  )


def _kept(
  settings: Settings, description: ModelDescription, mesh: Mesh
) -> dict[str, int]:
  """Bytes per device of what stays from step to step."""
  if settings.plan.job == 'sample':
    params = denoiser.abstract_params(description)
    kept = {'weights': _bytes(rules.placed(mesh, params, settings.sample.dtype))}
    cache = _cache(settings, description, mesh)
    return kept if cache is None else kept | {'cache': _bytes(cache)}
  state, frozen = _state(settings, description, mesh)
  return {
    'weights': _bytes((state.params, frozen)),
    'optimizer': _bytes(state.opt_state),
    'average': _bytes(state.ema),
  }


def _changes(
  settings: Settings, count: int
) -> Iterator[tuple[dict[str, Any], Settings]]:
  """Changes that need less memory, the cheapest first, as options and settings."""
  train, sample, mesh = settings.train, settings.sample, settings.mesh
  if settings.plan.job == 'train':
    if train.remat != 'full':
      changed = dataclasses.replace(train, remat='full')
      yield {'train.remat': 'full'}, dataclasses.replace(settings, train=changed)
    train = dataclasses.replace(train, remat='full')
    while train.batch_size % (2 * train.accumulate) == 0:
      train = dataclasses.replace(train, accumulate=2 * train.accumulate)
      change = {'train.remat': 'full', 'train.accumulate': train.accumulate}
      yield change, dataclasses.replace(settings, train=train)
  else:
    while sample.batch_size % 2 == 0:
      sample = dataclasses.replace(sample, batch_size=sample.batch_size // 2)
      yield (
        {'sample.batch_size': sample.batch_size},
        dataclasses.replace(settings, sample=sample),
      )
  fsdp = count // (max(mesh.tensor, 1) * max(mesh.sequence, 1))
  if mesh.fsdp not in (-1, fsdp):
    spread = dataclasses.replace(mesh, data=1, fsdp=fsdp)
    train = dataclasses.replace(settings.train, remat='full')
    change = {'mesh.data': 1, 'mesh.fsdp': fsdp}
    if settings.plan.job == 'train':
      change |= {'train.remat': 'full'}
    yield change, dataclasses.replace(settings, mesh=spread, train=train)


def _nearest(
  settings: Settings, description: ModelDescription, devices: Any, room: float
) -> dict[str, Any] | None:
  """The first change that compiles into `room` bytes, of `plan.tries` at most."""
  tried = 0
  for change, changed in _changes(settings, len(devices)):
    if tried == settings.plan.tries:
      return None
    try:
      mesh = opening.mesh_of(changed, devices)
      # No need of a compiler to see that the state alone is too much.
      if sum(_kept(changed, description, mesh).values()) > room:
        continue
      lowered = _lowered(changed, description, mesh)
    except BadInput:
      continue
    tried += 1
    facts, peak = compile_and_measure(
      lowered, chips.planning_options(settings.plan.topology)
    )
    if facts is not None and peak <= room:
      return change
  return None


def _cost(
  settings: Settings,
  description: ModelDescription,
  devices: int,
  chip: Any,
  sampler: Sampler | None = None,
) -> dict[str, Any]:
  """Work, time and price at the stated share of the chip's speed."""
  plan, length = settings.plan, settings.data.length
  if sampler is None:
    per_token = flops.training(description, length, settings.method.rate)
    tokens = settings.train.batch_size * length
  else:
    per_token = flops_per_token(description, sampler, length)
    tokens = settings.sample.batch_size * length
  cost: dict[str, Any] = {
    'flops_per_token': per_token,
    'tokens_per_step': tokens,
    'tokens': plan.tokens,
    'steps': math.ceil(plan.tokens / tokens),
    'mfu': plan.mfu,
  }
  if chip is not None:
    seconds = per_token * tokens / (devices * chip.flops * plan.mfu)
    hours = seconds * cost['steps'] * devices / 3600
    cost |= {'seconds_per_step': seconds, 'device_hours': hours}
    if plan.price_per_hour:
      cost['price'] = hours * plan.price_per_hour
  return cost


def _communication(settings: Settings, facts: Facts | None) -> dict[str, float] | None:
  """What a device sends and receives for a step of training or of sampling, at most."""
  if facts is None or facts.collectives is None:
    return None
  steps = settings.sample.num_steps if settings.plan.job == 'sample' else 1
  kinds = facts.collectives.values()
  return {
    'collectives_per_step': sum(kind['runs'] for kind in kinds) / steps,
    'bytes_per_step': sum(kind['bytes'] for kind in kinds) / steps,
  }


def _prediction(
  settings: Settings,
  description: ModelDescription,
  facts: Facts | None,
  chip: Any,
  devices: int,
  kept: int,
  cost: dict[str, Any],
) -> dict[str, Any] | None:
  """What a roofline says of a step of training or sampling; see `roofline`."""
  if facts is None or facts.traffic is None or chip is None:
    return None
  is_sampling = settings.plan.job == 'sample'
  tokens = cost['tokens_per_step'] / devices
  steps = settings.sample.num_steps if is_sampling else 1
  floor = roofline.floor_bytes(kept, description.architecture, tokens, not is_sampling)
  moved = {name: size / steps for name, size in facts.traffic.items()}
  flops = cost['flops_per_token'] * tokens / steps
  return roofline.predicted(moved, flops, floor, cost['tokens_per_step'] / steps, chip)


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Compiles, writes `plan.json`, prints a table and returns the same figures."""
  plan, description = settings.plan, _described(settings, workdir)
  devices = chips.absent(plan.topology) if plan.topology else jax.devices()
  chip = chips.chip_of(devices[0])
  mesh = opening.mesh_of(settings, devices)
  room = plan.hbm_gib * 2**30 or (chip.hbm_bytes if chip else 0)
  facts: Facts | None
  options = chips.planning_options(plan.topology)
  facts, peak = compile_and_measure(_lowered(settings, description, mesh), options)
  fits = (facts is not None and peak <= room) if room else None
  params = denoiser.abstract_params(description)
  kept = _kept(settings, description, mesh)
  sampler = None if plan.job == 'train' else _sampler(settings, description, mesh)
  cost = _cost(settings, description, len(devices), chip, sampler)
  compiler = None if facts is None else facts._asdict()
  if compiler is not None:
    del compiler['traffic']  # Of every operation; `prediction` has the sum.
  figures = {
    'mode': 'plan',
    'ok': fits is not False,
    'job': plan.job,
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
    'topology': plan.topology,
    'devices': len(devices),
    'chip': chip.name if chip else devices[0].device_kind,
    'mesh': dict(mesh.shape),
    'bytes_per_device': kept,
    'room': room,
    'peak_bytes': peak,
    'fits': fits,
    'compiler': compiler,
    'communication': _communication(settings, facts),
    'cost': cost,
    'prediction': _prediction(
      settings, description, facts, chip, len(devices), sum(kept.values()), cost
    ),
    'change': None
    if fits is not False
    else _nearest(settings, description, devices, room),
  }
  print(table(figures))
  files.write_json(workdir / 'plan.json', figures)
  return figures
