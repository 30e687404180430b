"""`--mode=benchmark`: what sampling and a training step cost, as ratios and as counts.

Everything that is compared runs in this process, round by round in turn, beside a copy
of the reference (A/A): where that copy's ratio is off by more than 5 %, ratios are
marked as too noisy. Writes `benchmark.json` and `benchmark.svg`.
"""

import dataclasses
import functools
import math
import pathlib
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax import files
from scmdm_jax.benchmarks import baselines
from scmdm_jax.checkpoints import layouts
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.diversity import unigram_entropy
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import DiTConfig, ModelDescription
from scmdm_jax.models.flops import training as training_flops
from scmdm_jax.parallel import chips
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import compilation_cache, opening, timing, workdir
from scmdm_jax.settings.building import new_model, optimizer_of, sampler_of, schedule_of
from scmdm_jax.settings.options import SampleSettings, Settings
from scmdm_jax.verbs.sample import compiled_sampler, draw, starting_rows
from scmdm_jax.verbs.train import compiled_step, fresh_state

REFERENCE = 'straightforward scan'
COPY = 'straightforward scan, again'
OURS = 'self-conditioned'
VANILLA = 'vanilla'
_NOISE = 0.05  # Largest deviation of the A/A ratio from 1 that counts as quiet.


class Bench(NamedTuple):
  """A model and the sizes it is run at."""

  settings: Settings
  description: ModelDescription  # With an injection.
  params: Any
  batch: int
  length: int
  num_steps: int

  @property
  def x_init(self) -> jax.Array:
    """All masked, int32 [B, L]."""
    mask_id = self.description.mask_id
    assert mask_id is not None
    return jnp.full((self.batch, self.length), mask_id, jnp.int32)

  @property
  def keys(self) -> jax.Array:
    """One per example, [B]."""
    return jax.random.split(jax.random.key(self.settings.seed), self.batch)


def _random_params(description: ModelDescription, seed: int) -> Any:
  """Every weight random: a fresh model's zero layers would predict nothing."""
  leaves, tree = jax.tree.flatten(denoiser.abstract_params(description))
  rng = np.random.default_rng(seed)
  values = [
    jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32)) for leaf in leaves
  ]
  return jax.tree.unflatten(tree, values)


def _bench(settings: Settings, directory: pathlib.Path, **sizes: int) -> Bench:
  """The checkpoint, or a model of random weights with `benchmark.vocab_size` tokens."""
  if settings.checkpoint:
    description, params = opening.load_masked(
      settings, directory, opening.run_tokenizer(settings, directory)
    )
  else:
    vocab_size = sizes.pop('vocab_size', settings.benchmark.vocab_size)
    length = sizes.get('length', settings.data.length)
    sized = dataclasses.replace(settings.data, length=length)
    description = new_model(
      dataclasses.replace(settings, data=sized), vocab_size, vocab_size - 1
    )
    params = _random_params(description, settings.seed)
  if description.injection == 'none':
    raise BadInput(
      f'checkpoint {settings.checkpoint}: has no self-conditioning to measure; wanted '
      'an adapted model'
    )
  return Bench(
    settings,
    description,
    params,
    sizes.get('batch', settings.sample.batch_size),
    sizes.get('length', settings.data.length),
    sizes.get('num_steps', settings.sample.num_steps),
  )


def _options(bench: Bench, **changes: Any) -> SampleSettings:
  return dataclasses.replace(
    bench.settings.sample,
    num_samples=1,
    batch_size=1,
    num_steps=bench.num_steps,
    prompt='',
    trajectory=False,
    **changes,
  )


def _ours(bench: Bench, **changes: Any) -> Callable[..., Any]:
  """The compiled sampler of the package: `(params, keys, x_init, temperature)`."""
  schedule = schedule_of(bench.settings.method)
  sampler = sampler_of(_options(bench, **changes), schedule)
  return compiled_sampler(bench.description, sampler, False, one_device())


def _straightforward(bench: Bench) -> Callable[..., Any]:
  mask_id = bench.description.mask_id
  assert mask_id is not None
  schedule = schedule_of(bench.settings.method)
  description = dataclasses.replace(bench.description, injection='none')

  def run(params, keys, x_init, temperature):
    del temperature
    network = denoiser.bind(params, description)
    return baselines.scanned(keys, network, x_init, schedule, mask_id, bench.num_steps)

  return jax.jit(run)


def _looped(bench: Bench, wait: bool) -> Callable[[], Any]:
  """The straightforward step, one call at a time from Python."""
  description = dataclasses.replace(bench.description, injection='none')
  mask_id = bench.description.mask_id
  assert mask_id is not None

  @jax.jit
  def step(params, keys, x_t, alpha_t, alpha_s, sigma):
    network = denoiser.bind(params, description)
    return baselines.vanilla_step(network, keys, x_t, alpha_t, alpha_s, sigma, mask_id)

  return lambda: baselines.python_loop(
    functools.partial(step, bench.params),
    bench.keys,
    bench.x_init,
    schedule_of(bench.settings.method),
    bench.num_steps,
    wait=wait,
  )


def _torch(bench: Bench) -> dict[str, Callable[[], Any]]:
  """The PyTorch sampler, if PyTorch is there and the layout is its own."""
  arch = bench.description.architecture
  if not isinstance(arch, DiTConfig) or arch.time_conditioning or arch.num_classes:
    return {}
  if arch.grid or arch.window:
    return {}
  if not bench.settings.benchmark.torch:
    return {}
  try:
    import torch

    from scmdm_jax.benchmarks import torch_mdlm
  except ImportError:
    return {}
  tensors = {}
  for name, entry in layouts.manifest(bench.description).items():
    if entry.path[0] == 'backbone':
      value = bench.params
      for key in entry.path:
        value = value[key]
      tensors[name] = np.asarray(value).T if entry.transposed else np.asarray(value)
  network = torch_mdlm.TorchMDLM(tensors, arch.num_heads)
  assert bench.description.mask_id is not None
  sizes = (bench.batch, bench.length, bench.description.mask_id, bench.num_steps)
  found: dict[str, Callable[[], Any]] = {
    f'PyTorch {torch.__version__}, eager': lambda: torch_mdlm.sample(network, *sizes)
  }
  compiled: Any = torch.compile(network.__call__)
  try:
    compiled(torch.zeros((1, 2), dtype=torch.int64))
  except Exception:  # It wants a C++ compiler, and reports its lack in many ways.
    return found
  name = f'PyTorch {torch.__version__}, torch.compile'
  return found | {name: lambda: torch_mdlm.sample(compiled, *sizes)}


def _compiled_facts(run: Any, arguments: tuple) -> dict[str, Any]:
  """Compile time cold and from the persistent cache, memory, of one jitted function.

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
  return {
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


def _row(bench: Bench, seconds: list[float], evaluations: int) -> dict[str, Any]:
  """Rates of one sampler from its times; generated tokens only."""
  tokens = bench.batch * bench.length
  middle = statistics.median(seconds)
  per_step = sorted(1e3 * s / evaluations for s in seconds)
  return {
    'seconds': middle,
    'tokens_per_second': tokens / middle,
    'tokens_per_second_per_device': tokens / middle,  # One device is used.
    'evaluations': evaluations,
    'evaluations_per_second': evaluations / middle,
    'tokens_per_evaluation': tokens / evaluations,
    'ms_per_step_p50': statistics.median(per_step),
    'ms_per_step_p90': per_step[math.ceil(0.9 * len(per_step)) - 1],
  }


def measure_samplers(bench: Bench) -> dict[str, Any]:
  """All samplers in turn; ratios to the straightforward scan."""
  options = bench.settings.benchmark
  arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
  compiled: dict[str, Any] = {
    REFERENCE: _straightforward(bench),
    OURS: _ours(bench, self_conditioning=True),
    VANILLA: _ours(bench, self_conditioning=False),
  }
  for name in options.strategies:
    compiled[f'{OURS}, {name}'] = _ours(bench, strategy=name)
  facts = {name: _compiled_facts(run, arguments) for name, run in compiled.items()}
  evaluations = {}
  for name, run in compiled.items():
    result = run(*arguments)
    evaluations[name] = int(getattr(result, 'evaluations', bench.num_steps))
  contenders: dict[str, Callable[[], Any]] = {
    name: functools.partial(run, *arguments) for name, run in compiled.items()
  }
  contenders[COPY] = contenders[REFERENCE]
  contenders['Python loop, waiting'] = _looped(bench, wait=True)
  contenders['Python loop, asynchronous'] = _looped(bench, wait=False)
  contenders |= _torch(bench)
  times = timing.interleaved(contenders, options.rounds)
  roofline, counted = matmul_roofline(), flops(bench)
  rows = {}
  for name, seconds in times.items():
    row = _row(bench, seconds, evaluations.get(name, bench.num_steps))
    row['ratio'] = timing.ratio_of(seconds, times[REFERENCE])
    if name in compiled:
      row |= facts[name]
      row['compilations'] = compiled[name]._cache_size()
    rows[name] = row
  # Half of the positions are masked on average with the log-linear schedule.
  masked = bench.batch * bench.length * bench.num_steps / 2
  work = bench.num_steps * counted['encoder']
  work += masked * 2 * counted['vocabulary_per_position']
  quiet = abs(rows[COPY]['ratio']['median'] - 1) <= _NOISE
  return {
    'rows': rows,
    'quiet': quiet,
    'flops': counted,
    'matmul_flops_per_second': roofline,
    'mfu': utilization(work, rows[OURS]['seconds']),
    'share_of_matmul_roofline': work / rows[OURS]['seconds'] / roofline,
    'self_conditioning_overhead': timing.ratio_of(times[OURS], times[VANILLA]),
  }


def measure_memory(settings: Settings, directory: pathlib.Path) -> dict[str, Any]:
  """Temporaries of the compiled samplers at `benchmark.memory_shape`; nothing runs."""
  batch, length = settings.benchmark.memory_shape
  bench = _bench(settings, directory, batch=batch, length=length)
  arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
  found = {}
  run: Any
  for name, run in (
    (REFERENCE, _straightforward(bench)),
    (OURS, _ours(bench, self_conditioning=True)),
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
  key, rate = jax.random.key(settings.seed), jnp.float32(1e-4)
  contenders, facts = {}, {}
  for name, conditioned in ((VANILLA, 0.0), (OURS, 1.0)):
    method = dataclasses.replace(settings.method, rate=conditioned)
    step = compiled_step(bench.description, method, optimizer, one_device())
    state = fresh_state(bench.params, optimizer, one_device())
    compiled: Any = step.lower(state, tokens, key, rate).compile()
    facts[name] = {
      'temporary_bytes': compiled.memory_analysis().temp_size_in_bytes,
      'flops': float(compiled.cost_analysis()['flops']),
    }
    contenders[name] = _stepper(step, state, (tokens, key, rate))
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


def sweep(settings: Settings, directory: pathlib.Path) -> dict[str, Any]:
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
    ('vocab_size', () if settings.checkpoint else options.vocab_sizes),
  ):
    if len(sizes) < 2:
      continue
    contenders, work = {}, []
    for size in sizes:
      bench = _bench(settings, directory, **{name: size})
      arguments = (bench.params, bench.keys, bench.x_init, jnp.float32(1))
      run = _ours(bench, self_conditioning=True)
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


def measure_quality(settings: Settings, directory: pathlib.Path) -> dict[str, Any]:
  """Measures of what the timed samplers draw, and entropy beside them.

  `sample.num_samples` of each, by the key of `--mode=evaluate`.
  """
  tokenizer = opening.run_tokenizer(settings, directory)
  description, params = opening.load_masked(settings, directory, tokenizer)
  measure = registry.of(settings.data).judging(settings, directory, tokenizer)
  sample, schedule = settings.sample, schedule_of(settings.method)
  options = {
    OURS: sample,
    VANILLA: dataclasses.replace(sample, self_conditioning=False),
  }
  for name in settings.benchmark.strategies:
    options[f'{OURS}, {name}'] = dataclasses.replace(sample, strategy=name)
  key, _ = jax.random.split(jax.random.key(settings.seed))
  x_init = starting_rows(settings, tokenizer)
  found = {}
  for name, choice in options.items():
    drawn = draw(description, params, schedule, choice, key, x_init, one_device())
    found[name] = {
      **measure(drawn.tokens),
      'entropy': unigram_entropy(drawn.tokens),
      'noise': choice.noise,
      'evaluations': drawn.evaluations,
      'samples': len(drawn.tokens),
    }
  return found


def _slope(sizes, values) -> float:
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(results: dict[str, Any]) -> str:
  """The figures for a terminal."""
  samplers = results['samplers']
  lines = [
    f'{"sampler":38} {"tokens/s":>9} {"evals":>6} {"ms/step p50 p90":>17}  ratio'
  ]
  for name, row in samplers['rows'].items():
    ratio = row['ratio']
    lines.append(
      f'{name:38} {row["tokens_per_second"]:9.1f} {row["evaluations"]:6d} '
      f'{row["ms_per_step_p50"]:8.1f} {row["ms_per_step_p90"]:8.1f}  '
      f'{ratio["median"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})'
    )
  if not samplers['quiet']:
    lines.append('too noisy: the A/A ratio is off by more than 5 %')
  for name, row in results.get('training', {}).get('rows', {}).items():
    ratio = row['ratio']
    lines.append(
      f'{"training step, " + name:38} {row["tokens_per_second"]:9.1f} {"":24}  '
      f'{ratio["median"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})'
    )
  for name, curve in results.get('sweeps', {}).items():
    lines.append(
      f'time ~ {name} ^ {curve["exponent"]:.2f} (FLOPs ^ '
      f'{curve["exponent_of_flops"]:.2f}) over {curve["sizes"]}'
    )
  for name, figures in results.get('quality', {}).items():
    told = {k: v for k, v in figures.items() if isinstance(v, float)}
    measured = ', '.join(f'{k.replace("_", " ")} {v:.4g}' for k, v in told.items())
    lines.append(
      f'{name}: {measured} ({figures["samples"]} samples, noise {figures["noise"]}, '
      f'{figures["evaluations"]} evaluations)'
    )
  if 'memory' in results:
    memory = results['memory']
    lines.append(
      f'temporaries at {memory["shape"]}: {memory["ratio"]:.3f} of the straightforward '
      'sampler'
    )
  return '\n'.join(lines)


def run(settings: Settings, directory: pathlib.Path) -> dict[str, Any]:
  """Measures, prints the table, writes `benchmark.json` and the chart."""
  # A drawing library is an extra, and slow to import: only this mode pays.
  try:
    from scmdm_jax.report.benchmark import chart
  except ImportError as e:
    raise BadInput(
      f'--mode=benchmark: {e.name} is not installed; run pip install '
      "'scmdm_jax[report]'"
    ) from e
  bench = _bench(settings, directory)
  options = settings.benchmark
  grid = getattr(bench.description.architecture, 'grid', ())
  if grid and options.lengths:
    raise BadInput(
      f'benchmark.lengths: found {options.lengths} with a model of images; wanted '
      f'none, its length is that of its grid {grid}'
    )
  results: dict[str, Any] = {
    **workdir.metadata(),
    'config': dataclasses.asdict(settings),
    'shape': {'batch': bench.batch, 'length': bench.length, 'steps': bench.num_steps},
    'parameters': int(sum(x.size for x in jax.tree.leaves(bench.params))),
    'vocab_size': bench.description.architecture.vocab_size,
    'dtype': 'float32',
    'strategy': settings.sample.strategy,
    'noise': settings.sample.noise,
    'temperature': 1.0,
    'samplers': measure_samplers(bench),
  }
  if options.train:
    results['training'] = measure_training(bench)
  if options.memory_shape[0] and not settings.checkpoint and not grid:
    results['memory'] = measure_memory(settings, directory)
  if settings.judge:
    results['quality'] = measure_quality(settings, directory)
  results['sweeps'] = sweep(settings, directory)
  # Kilobytes on Linux; of the whole process, what was measured last included.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  results['peak_resident_bytes'] = peak
  files.write_json(directory / 'benchmark.json', results)
  files.write_text(directory / 'benchmark.svg', chart(results))
  print(table(results))
  samplers = results['samplers']
  return {
    'mode': 'benchmark',
    'results': str(directory / 'benchmark.json'),
    'quiet': samplers['quiet'],
    'ratios': {n: r['ratio']['median'] for n, r in samplers['rows'].items()},
    'self_conditioning_overhead': samplers['self_conditioning_overhead']['median'],
  }
