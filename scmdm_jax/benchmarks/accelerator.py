r"""What one accelerator does with MDLM-OWT and a model of LLaDA-8B's shape, once run.

python -m scmdm_jax.benchmarks.accelerator FILE.json [--reduced]

Random weights in bfloat16, samplers and a training step; made for one H100 of 80 GB and
ten minutes; no accelerator has run it. `--reduced` takes toy sizes. Ours is run in
turn with a straightforward JAX sampler and, of MDLM, with PyTorch's where that is
installed. LLaDA-8B is adapted by low-rank factors. Writes JSON: times of all rounds,
tokens per second, MFU by the formula of `models.flops`, and bytes at the peak.
"""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax import files
from scmdm_jax.benchmarks import contenders
from scmdm_jax.benchmarks.contenders import OURS, REFERENCE, VANILLA, Bench
from scmdm_jax.benchmarks.measuring import utilization
from scmdm_jax.checkpoints import disk, model_config
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.models import denoiser, flops, lora
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import timing
from scmdm_jax.runs.adapting import fresh_state
from scmdm_jax.runs.compiling import compiled_step
from scmdm_jax.runs.workdir import metadata
from scmdm_jax.settings import default_config
from scmdm_jax.settings.building import adapter_of, optimizer_of
from scmdm_jax.settings.resolve import resolve

_MODELS = pathlib.Path(__file__).parents[2] / 'configs' / 'models'
_ROUNDS = 3
_SECONDS = 420  # After which no other program is begun.


@dataclasses.dataclass(frozen=True)
class Job:
  """One model and the sizes at which it is sampled and adapted.

  Attributes:
    model: a file of configs/models.
    toy: what of it `--reduced` changes.
    batch: examples that are sampled at a time.
    length: tokens of each.
    steps: of the sampler; few, since all cost the same.
    strategy: of the sampler.
    examples: of a training step.
    trained_length: tokens of each.
    options: of `train`.
  """

  model: str
  toy: dict[str, int]
  batch: int
  length: int
  steps: int
  strategy: str
  examples: int
  trained_length: int
  options: dict[str, Any]

  def reduced(self) -> 'Job':
    """Returns the job for CPUs, of seconds."""
    return dataclasses.replace(
      self, batch=2, length=16, steps=4, examples=4, trained_length=16
    )


JOBS = {
  'MDLM-OWT': Job(
    'mdlm_owt.json',
    {'vocab_size': 300, 'hidden_dim': 32, 'n_blocks': 2, 'n_heads': 2, 'cond_dim': 8},
    *(32, 1024, 16, 'ancestral', 64, 1024),
    {'accumulate': 2},
  ),
  'LLaDA-8B': Job(
    'llada_8b.json',
    {
      **{'d_model': 32, 'n_layers': 2, 'n_heads': 2, 'n_kv_heads': 2},
      **{'mlp_hidden_size': 64, 'vocab_size': 300, 'embedding_size': 300},
      'mask_token_id': 298,
    },
    *(8, 1024, 16, 'confidence', 8, 2048),
    {'accumulate': 4, 'remat': 'full', 'lora_rank': 16},
  ),
}


def bench_of(job: Job, is_reduced: bool) -> Bench:
  """Returns the job's model with random bfloat16 weights, which lie on the device."""
  config: Any = default_config()
  config.data.length = job.length
  config.method.rate = 1.0
  config.sample.strategy = job.strategy
  config.train.batch_size = job.examples
  config.train.dtype = 'bfloat16'
  config.benchmark.torch = not is_reduced  # Its compiler takes minutes on a CPU.
  for name, value in job.options.items():
    setattr(config.train, name, value)
  settings = resolve(config)
  sizes = disk.read_json(_MODELS / job.model) | (job.toy if is_reduced else {})
  description = dataclasses.replace(
    model_config.description_from_config(sizes, job.model),
    injection=settings.method.injection,
  )

  @functools.partial(jax.jit, static_argnums=1)
  def weights(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return (0.02 * jax.random.normal(key, shape)).astype(jnp.bfloat16)

  leaves, tree = jax.tree.flatten(denoiser.abstract_params(description))
  values = [weights(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
  params = jax.tree.unflatten(tree, values)
  return Bench(settings, description, params, job.batch, job.length, job.steps)


def _peak(compiled: Any) -> dict[str, int]:
  """Bytes at the peak: of a program by its compiler, of the process by the device."""
  memory = compiled.memory_analysis()
  used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  used += memory.output_size_in_bytes - memory.alias_size_in_bytes
  seen = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)
  return {'peak_bytes_of_program': used, 'peak_bytes_so_far': seen}


def _row(seconds: list[float], tokens: int, work: float) -> dict[str, Any]:
  middle = statistics.median(seconds)
  return {
    'seconds': seconds,
    'tokens_per_second': tokens / middle,
    'mfu': utilization(work, middle),
  }


def sampling(bench: Bench, is_late: Callable[[], bool]) -> dict[str, Any]:
  """Ours with and without the carried prediction, and others, in turn."""
  arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
  programs: dict[str, Any] = {
    OURS: contenders.ours(bench, self_conditioning=True),
    VANILLA: contenders.ours(bench, self_conditioning=False),
    REFERENCE: contenders.straightforward(bench),
  }
  runs: dict[str, Callable[[], Any]] = {}
  facts = {}
  for name, run in programs.items():
    if runs and is_late():
      continue
    started = time.perf_counter()
    compiled = run.lower(*arguments).compile()
    facts[name] = {'compile_seconds': time.perf_counter() - started, **_peak(compiled)}
    runs[name] = functools.partial(compiled, *arguments)
  if not is_late():
    runs |= contenders.pytorch(bench)
  times = timing.interleaved(runs, _ROUNDS)
  tokens = bench.batch * bench.length
  rows = {}
  for name, seconds in times.items():
    work = tokens * flops.sampling(
      bench.description, bench.length, bench.num_steps, name == OURS
    )
    rows[name] = _row(seconds, tokens, work) | facts.get(name, {})
    rows[name]['ms_per_step'] = 1e3 * statistics.median(seconds) / bench.num_steps
    rows[name]['over_straightforward'] = (
      timing.ratio_of(seconds, times[REFERENCE]) if REFERENCE in times else None
    )
  return {'steps': bench.num_steps, 'batch': [bench.batch, bench.length], 'rows': rows}


def adaptation(bench: Bench, length: int) -> dict[str, Any]:
  """A compiled step at rate 1, of all weights or of low-rank factors beside them."""
  settings = bench.settings
  description = dataclasses.replace(
    bench.description, adapter=adapter_of(settings.train)
  )
  optimizer, params = optimizer_of(settings.train), bench.params
  abstract = denoiser.abstract_params(description)
  frozen, trained = lora.divided(abstract, description.adapter)
  rest = {}
  if frozen is not None:
    trained = jax.tree.map(lambda x: jnp.full(x.shape, 0.02, jnp.float32), trained)
    rest = {'frozen': {'backbone': params['backbone']}}
  else:
    trained = params
  step = compiled_step(
    *(description, settings.method, optimizer, one_device()),
    *(settings.train.remat, settings.train.dtype),
  )
  shape = (settings.train.batch_size, length)
  tokens = np.random.default_rng(0).integers(0, 200, shape)
  state = fresh_state(trained, optimizer, one_device())
  arguments = (batch_of(jnp.asarray(tokens, jnp.int32)), jax.random.key(0))
  started = time.perf_counter()
  compiled = step.lower(state, *arguments, jnp.float32(1e-4), **rest).compile()
  spent = time.perf_counter() - started
  seconds, loss = [], math.nan
  for _ in range(_ROUNDS + 1):
    started = time.perf_counter()
    state, metrics = compiled(state, *arguments, jnp.float32(1e-4), **rest)
    loss = float(metrics['loss'])
    seconds.append(time.perf_counter() - started)
  assert math.isfinite(loss)
  work = flops.training(description, length, settings.method.rate) * tokens.size
  # The first has warmed up.
  row = _row(seconds[1:], tokens.size, work)
  return {'batch': list(shape), 'compile_seconds': spent, **row, **_peak(compiled)}


def measure(is_reduced: bool) -> dict[str, Any]:
  """Runs every job; returns what is written."""
  started = time.monotonic()

  def is_late() -> bool:
    return time.monotonic() - started > _SECONDS

  found: dict[str, Any] = {'reduced': is_reduced, **metadata(), 'jobs': {}}
  for name, job in JOBS.items():
    sized = job.reduced() if is_reduced else job
    bench = bench_of(sized, is_reduced)
    leaves = jax.tree.leaves(bench.params)
    found['jobs'][name] = {
      'parameters': sum(leaf.size for leaf in leaves),
      'sampling': sampling(bench, is_late),
      'adaptation': None if is_late() else adaptation(bench, sized.trained_length),
    }
    print(json.dumps({name: found['jobs'][name]}), flush=True)
  return found | {'seconds': time.monotonic() - started}


if __name__ == '__main__':
  files.write_json(pathlib.Path(sys.argv[1]), measure('--reduced' in sys.argv[2:]))
