"""`--mode=benchmark`: what sampling and a training step cost, as ratios and as counts.

Everything that is compared runs in this process, round by round in turn, beside a copy
of the reference (A/A): where that copy's ratio is off by more than 5 %, ratios are
marked as too noisy. Writes `benchmark.json` and `benchmark.svg`.
"""

import dataclasses
import pathlib
import resource
from typing import Any

import jax

from scmdm_jax import files
from scmdm_jax.benchmarks.contenders import OURS, VANILLA, bench_of
from scmdm_jax.benchmarks.measuring import (
  measure_memory,
  measure_samplers,
  measure_training,
  sweep,
)
from scmdm_jax.benchmarks.table import table
from scmdm_jax.domains.protocol import Measure
from scmdm_jax.errors import BadInput
from scmdm_jax.judges.diversity import unigram_entropy
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.processes import multihost
from scmdm_jax.runs import measuring
from scmdm_jax.runs.drawing import draw, starting_rows
from scmdm_jax.runs.opening import Model, load_masked, open_run
from scmdm_jax.runs.workdir import metadata
from scmdm_jax.settings.building import schedule_of
from scmdm_jax.settings.options import Settings


def _quality(settings: Settings, model: Model, measure: Measure) -> dict[str, Any]:
  """Measures of what the timed samplers draw, and entropy beside them.

  `sample.num_samples` of each, by the key of `--mode=evaluate`.
  """
  sample, schedule = settings.sample, schedule_of(settings.method)
  options = {
    OURS: sample,
    VANILLA: dataclasses.replace(sample, self_conditioning=False),
  }
  for name in settings.benchmark.strategies:
    options[f'{OURS}, {name}'] = dataclasses.replace(sample, strategy=name)
  key, _ = jax.random.split(jax.random.key(settings.seed))
  x_init = starting_rows(settings, model.tokenizer)
  found = {}
  for name, choice in options.items():
    drawn = draw(model, schedule, choice, key, x_init, one_device())
    found[name] = {
      **measure(drawn.tokens),
      'entropy': unigram_entropy(drawn.tokens),
      'noise': choice.noise,
      'evaluations': drawn.evaluations,
      'samples': len(drawn.tokens),
    }
  return found


def _measured(settings: Settings, model: Model | None) -> dict[str, Any]:
  """What was measured of samplers, training step and memory, and on what."""
  bench, options = bench_of(settings, model), settings.benchmark
  grid = getattr(bench.description.architecture, 'grid', ())
  if grid and options.lengths:
    raise BadInput(
      f'benchmark.lengths: found {options.lengths} with a model of images; wanted '
      f'none, its length is that of its grid {grid}'
    )
  results: dict[str, Any] = {
    **metadata(),
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
  if options.memory_shape[0] and model is None and not grid:
    results['memory'] = measure_memory(settings)
  return results


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Measures, prints the table, writes `benchmark.json` and the chart."""
  # A drawing library is an extra, and slow to import: only this mode pays.
  try:
    from scmdm_jax.report.benchmark import chart
  except ImportError as e:
    raise BadInput(
      f'--mode=benchmark: {e.name} is not installed; run pip install '
      "'scmdm_jax[report]'"
    ) from e
  model, measure = None, None
  if settings.checkpoint or settings.judge:
    model = load_masked(settings, open_run(settings, workdir))
  if settings.judge and model is not None:
    measure = measuring.measure_of(settings, workdir, model.tokenizer)
  quality = {}
  if model is not None and measure is not None:
    quality['quality'] = _quality(settings, model, measure)
  # One device is measured: the other processes would only take its memory's time.
  results = multihost.first_does('benchmark', lambda: _measured(settings, model))
  if results is None:
    return {}
  results |= quality
  results['sweeps'] = sweep(settings, model)
  # Kilobytes on Linux; of the whole process, what was measured last included.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  results['peak_resident_bytes'] = peak
  files.write_json(workdir / 'benchmark.json', results)
  files.write_text(workdir / 'benchmark.svg', chart(results))
  print(table(results))
  samplers = results['samplers']
  return {
    'mode': 'benchmark',
    'results': str(workdir / 'benchmark.json'),
    'quiet': samplers['quiet'],
    'ratios': {n: r['ratio']['median'] for n, r in samplers['rows'].items()},
    'self_conditioning_overhead': samplers['self_conditioning_overhead']['median'],
  }
