"""Time, memory and work of samplers and of a training step, as ratios and as counts."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.benchmarks.contenders import (
  COPY,
  OURS,
  REFERENCE,
  VANILLA,
  Bench,
  bench_of,
  looped,
  ours,
  pytorch,
  sampler_in,
  straightforward,
)
from scmdm_jax.data.tokenizers.protocol import up_to_end
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.models import denoiser
from scmdm_jax.models.flops import training as training_flops
from scmdm_jax.parallel import chips, roofline
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import compilation_cache, timing
from scmdm_jax.runs.adapting import fresh_state
from scmdm_jax.runs.compiling import compiled_step
from scmdm_jax.runs.counting import flops_per_token, generated
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.building import optimizer_of
from scmdm_jax.settings.options import Settings

_NOISE = 0.05  # Largest deviation of the A/A ratio from 1 that counts as quiet.


def _prediction(
  bench: Bench, compiled: Any, per_token: float, is_trained: bool = False
) -> dict[str, Any] | None:
  """What a roofline says of a step, see `roofline.predicted`; None: not known.

  Args:
    bench: what is measured.
    compiled: the program.
    per_token: FLOPs of the model, of a whole run of the program.
    is_trained: whether that is a step of training; else it is all steps of a sampler.
  """
  chip = chips.chip_of(jax.devices()[0])
  if chip is None:
    return None
  steps = 1 if is_trained else bench.num_steps
  batch = bench.settings.train.batch_size if is_trained else bench.batch
  tokens = batch * bench.length
  kept = sum(leaf.nbytes for leaf in jax.tree.leaves(bench.params))
  moved = roofline.traffic(compiled.as_text())
  return roofline.predicted(
    {name: size / steps for name, size in moved.items()},
    per_token * tokens / steps,
    # Trained are the weights, their average and two moments.
    roofline.floor_bytes(
      4 * kept if is_trained else kept,
      bench.description.architecture,
      tokens,
      is_trained,
    ),
    tokens / steps,
    chip,
  )


def _compiled_facts(
  bench: Bench, run: Any, arguments: tuple, sampler: Sampler
) -> dict[str, Any]:
  """Compile time cold and from the persistent cache, memory, roofline of one sampler.

  Before its first call: what JAX holds in memory would be taken for a warm cache.
  """
  compiled: Any = None
  with compilation_cache.fresh() as found:
    spent = []
    for _ in range(2):
      jax.clear_caches()
      lowered = run.lower(*arguments)
      started = time.perf_counter()
      compiled = lowered.compile()
      spent.append(time.perf_counter() - started)
    programs_found = found()
  memory = compiled.memory_analysis()
  per_token = flops_per_token(bench.description, sampler, bench.length)
  return {
    'prediction': _prediction(bench, compiled, per_token),
    'compile_seconds_cold': spent[0],
    'compile_seconds_warm': spent[1],
    'programs_found_in_warm_cache': programs_found,
    'temporary_bytes': memory.temp_size_in_bytes,
    'argument_bytes': memory.argument_size_in_bytes,
  }


def matmul_roofline(size: int = 2048) -> float:
  """FLOP per second of a large float32 product on the default device, measured now."""
  x = jnp.ones((size, size), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready(multiply(x, x))
  best = min(timing.seconds(lambda: multiply(x, x)) for _ in range(5))
  return 2 * size**3 / best


def flops(bench: Bench) -> dict[str, float]:
  """Of one evaluation, as XLA counts them: the encoder; the vocabulary per position."""
  network = denoiser.bind(bench.params, bench.description)
  sigma = jnp.zeros((bench.batch,))
  signal = jnp.zeros((*bench.x_init.shape, network.signal_dim))
  lowered = jax.jit(network.encode).lower(bench.x_init, signal, sigma)
  counted: Any = lowered.compile().cost_analysis()
  arch = bench.description.architecture
  return {
    'encoder': float(counted['flops']),
    'bytes_accessed_encoder': float(counted['bytes accessed']),
    'vocabulary_per_position': 2.0 * arch.vocab_size * arch.hidden_dim,
  }


def utilization(work: float, seconds: float) -> float | None:
  """MFU: share of the peak of one device, dense bfloat16, whatever the dtype here.

  Args:
    work: FLOPs of the model.
    seconds: that they took.

  Returns:
    None where the peak is not known, as of a CPU.
  """
  chip = chips.chip_of(jax.devices()[0])
  return None if chip is None else work / seconds / chip.flops


class _Made(NamedTuple):
  """What one run of a sampler made, and of how much."""

  evaluations: int  # Of the denoiser, of a batch.
  positions: int  # Of an example that were evaluated.
  generated: int  # Tokens of all examples, without ends and what is behind them.


def _made(bench: Bench, result: Any) -> _Made:
  """What a run returned: `Samples`, or tokens [B, L] of all steps on all positions."""
  tokens = np.asarray(getattr(result, 'tokens', result))
  x_init = np.asarray(bench.x_init)
  count = x_init.size
  if bench.tokenizer is not None:
    ended = up_to_end(tokens, x_init, bench.tokenizer)
    count = int(generated(ended, x_init, bench.tokenizer).sum())
  evaluations = int(getattr(result, 'evaluations', bench.num_steps))
  positions = int(getattr(result, 'positions', evaluations * bench.length))
  return _Made(evaluations, positions, count)


def _row(bench: Bench, seconds: list[float], made: _Made) -> dict[str, Any]:
  """Rates of one sampler from its times; generated tokens only."""
  evaluations, tokens = made.evaluations, made.generated
  middle = statistics.median(seconds)
  per_step = sorted(1e3 * s / evaluations for s in seconds)
  return {
    'seconds': middle,
    'generated': tokens,
    'tokens_per_second': tokens / middle,
    'tokens_per_second_per_device': tokens / middle,  # One device is used.
    'evaluations': evaluations,
    'positions': made.positions,
    'evaluations_per_second': evaluations / middle,
    'tokens_per_evaluation': tokens / bench.batch / evaluations,  # Of an example.
    'ms_per_step_p50': statistics.median(per_step),
    'ms_per_step_p90': per_step[math.ceil(0.9 * len(per_step)) - 1],
  }


def measure_samplers(bench: Bench) -> dict[str, Any]:
  """All samplers in turn; ratios to the straightforward scan."""
  options = bench.settings.benchmark
  arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
  changes: dict[str, dict[str, Any]] = {
    OURS: {'self_conditioning': True},
    VANILLA: {'self_conditioning': False},
    **{f'{OURS}, {name}': {'strategy': name} for name in options.strategies},
  }
  whole = Sampler(bench.num_steps, self_conditioning=False)
  samplers = {name: sampler_in(bench, **how) for name, how in changes.items()}
  compiled: dict[str, Any] = {REFERENCE: straightforward(bench)}
  compiled |= {name: ours(bench, **how) for name, how in changes.items()}
  facts = {
    name: _compiled_facts(bench, run, arguments, samplers.get(name, whole))
    for name, run in compiled.items()
  }
  contenders: dict[str, Callable[[], Any]] = {
    name: functools.partial(run, *arguments) for name, run in compiled.items()
  }
  contenders[COPY] = contenders[REFERENCE]
  contenders['Python loop, waiting'] = looped(bench, wait=True)
  contenders['Python loop, asynchronous'] = looped(bench, wait=False)
  contenders |= pytorch(bench)
  made = {name: _made(bench, run()) for name, run in contenders.items()}
  times = timing.interleaved(contenders, options.rounds)
  speed, counted = matmul_roofline(), flops(bench)
  rows = {}
  for name, seconds in times.items():
    row = _row(bench, seconds, made[name])
    row['ratio'] = timing.ratio_of(seconds, times[REFERENCE])
    if name in compiled:
      row |= facts[name]
      row['compilations'] = compiled[name]._cache_size()
    rows[name] = row
  # Half of a block is masked on average with the log-linear schedule.
  own, size = made[OURS], samplers[OURS].block_length or bench.length
  masked = bench.batch * size * own.evaluations / 2
  work = own.positions / bench.length * counted['encoder']
  work += masked * 2 * counted['vocabulary_per_position']
  quiet = abs(rows[COPY]['ratio']['median'] - 1) <= _NOISE
  return {
    'rows': rows,
    'quiet': quiet,
    'flops': counted,
    'matmul_flops_per_second': speed,
    'mfu': utilization(work, rows[OURS]['seconds']),
    'share_of_matmul_roofline': work / rows[OURS]['seconds'] / speed,
    'self_conditioning_overhead': timing.ratio_of(times[OURS], times[VANILLA]),
  }


def measure_memory(settings: Settings) -> dict[str, Any]:
  """Temporaries of the compiled samplers at `benchmark.memory_shape`; nothing runs."""
  batch, length = settings.benchmark.memory_shape
  bench = bench_of(settings, None, batch=batch, length=length)
  arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
  found = {}
  run: Any
  for name, run in (
    (REFERENCE, straightforward(bench)),
    (OURS, ours(bench, self_conditioning=True)),
  ):
    compiled = run.lower(*arguments).compile()
    found[name] = compiled.memory_analysis().temp_size_in_bytes
  return {'shape': [batch, length], **found, 'ratio': found[OURS] / found[REFERENCE]}


def measure_training(bench: Bench) -> dict[str, Any]:
  """The compiled training step at rate 1 and at rate 0, in turn."""
  settings = bench.settings
  optimizer = optimizer_of(settings.train)
  rng = np.random.default_rng(settings.seed)
  shape = (settings.train.batch_size, bench.length)
  tokens = jnp.asarray(rng.integers(0, bench.description.mask_id, shape), jnp.int32)
  batch = batch_of(tokens)
  key, rate = jax.random.key(settings.seed), jnp.float32(1e-4)
  contenders, facts = {}, {}
  for name, conditioned in ((VANILLA, 0.0), (OURS, 1.0)):
    method = dataclasses.replace(settings.method, rate=conditioned)
    step = compiled_step(bench.description, method, optimizer, one_device())
    state = fresh_state(bench.params, optimizer, one_device())
    compiled: Any = step.lower(state, batch, key, rate).compile()
    work = training_flops(bench.description, bench.length, conditioned)
    facts[name] = {
      'prediction': _prediction(bench, compiled, work, is_trained=True),
      'temporary_bytes': compiled.memory_analysis().temp_size_in_bytes,
      'flops': float(compiled.cost_analysis()['flops']),
    }
    contenders[name] = _stepper(step, state, (batch, key, rate))
  contenders[f'{VANILLA}, again'] = contenders[VANILLA]
  times = timing.interleaved(contenders, settings.benchmark.rounds)
  per_token = [
    training_flops(bench.description, bench.length, rate) for rate in (0.0, 1.0)
  ]
  rows = {}
  for name, seconds in times.items():
    middle = statistics.median(seconds)
    rows[name] = facts.get(name, {}) | {
      'seconds': middle,
      'tokens_per_second': tokens.size / middle,
      'mfu': utilization(per_token[name == OURS] * tokens.size, middle),
      'ratio': timing.ratio_of(seconds, times[VANILLA]),
    }
  temporary = {n: facts[n]['temporary_bytes'] for n in facts}
  return {
    'shape': list(shape),
    'rows': rows,
    'quiet': abs(rows[f'{VANILLA}, again']['ratio']['median'] - 1) <= _NOISE,
    'temporary_ratio': temporary[OURS] / temporary[VANILLA],
  }


def _stepper(step, state, arguments) -> Callable[[], Any]:
  """A step on a state that is donated and replaced at every call."""
  held = [state]

  def run():
    held[0], metrics = step(held[0], *arguments)
    return metrics

  return run


def sweep(settings: Settings, model: Model | None) -> dict[str, Any]:
  """Seconds of the self-conditioned sampler along T, B, L and V, and the exponent.

  The exponent is the slope of log time over log size, by least squares; FLOPs counted
  the same way stand beside it.
  """
  options = settings.benchmark
  curves = {}
  for name, sizes in (
    ('num_steps', options.step_counts),
    ('batch', options.batch_sizes),
    ('length', options.lengths),
    ('vocab_size', () if model else options.vocab_sizes),
  ):
    if len(sizes) < 2:
      continue
    contenders, work = {}, []
    for size in sizes:
      bench = bench_of(settings, model, **{name: size})
      arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
      run = ours(bench, self_conditioning=True)
      contenders[str(size)] = functools.partial(run, *arguments)
      counted = flops(bench)
      positions = bench.batch * bench.length / 2
      vocabulary = positions * 2 * counted['vocabulary_per_position']
      work.append(bench.num_steps * (counted['encoder'] + vocabulary))
    times = timing.interleaved(contenders, max(options.rounds // 2, 3))
    medians = [statistics.median(times[str(size)]) for size in sizes]
    curves[name] = {
      'sizes': list(sizes),
      'seconds': medians,
      'exponent': _slope(sizes, medians),
      'exponent_of_flops': _slope(sizes, work),
    }
  return curves


def _slope(sizes, values) -> float:
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
