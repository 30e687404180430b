"""`--mode=compare`: the paper's experiment as one command.

    base --> arm: rate 0, equal FLOPs  (the control: two-pass steps cost more)
         --> arm: rate 0, equal steps        ... times seeds; then every model is
         --> arm: rate 0.5, rate 1, ...      sampled and judged under common keys
         --> report/index.html

Every finished (arm, seed) leaves `result.json`, so the same command resumes.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.processes import multihost
from scmdm_jax.runs import drawing, measuring, opening, starting
from scmdm_jax.runs.arms import BASE, CONTROL, Arm, main_arm, plan_arms
from scmdm_jax.runs.comparing import Bench, measure_cost, run_arm, say, trajectory
from scmdm_jax.runs.workdir import metadata
from scmdm_jax.settings.building import adapter_of, sampler_of, schedule_of
from scmdm_jax.settings.options import Settings


def _notes(settings: Settings) -> list[str]:
  notes = [
    'Sampling noise is float32 in mode high; every sample of a seed starts from the '
    'same key in every arm.',
    'Likelihoods are nats per token over all positions, padding included, on held-out '
    'examples; lower is better.',
    'The equal-FLOPs control trains longer at rate 0, by the FLOPs that XLA counts; '
    'recipes spend as many.',
  ]
  if count := settings.compare.sweep_samples:
    notes.append(
      f'At temperatures but {settings.sample.temperature:g} only {count} are drawn: '
      'measures are those of all samples, moved by what changes for the first so many.'
    )
  if settings.train.lora_rank:
    notes.append(
      f'All arms are adapters of rank {settings.train.lora_rank} beside one base in '
      f'{settings.train.dtype}; the arm that is not adapted is that base.'
    )
  return notes


def _bench(settings: Settings, directory: pathlib.Path) -> Bench:
  """Reads what every arm needs: base, judge, rows; checks that they are such."""
  opened = opening.open_run(settings, directory)
  tokenizer, domain = opened.tokenizer, registry.of(settings.data)
  # A wrong prompt shows itself before the hours of training, and so does a sampler.
  drawing.starting_rows(settings, tokenizer, 1)
  adapter = adapter_of(settings.train)
  if opened.stored is not None and opened.stored.base is not None:
    raise BadInput(
      f'checkpoint {settings.checkpoint}: an adapter beside its base; wanted a whole '
      'model, as --mode=export makes of it'
    )
  # An adapter's base is frozen in the dtype of training, for all arms and as it is.
  frozen = settings.train.dtype if adapter else ''
  base = opening.load_masked(settings, opened, opening.mesh_of(settings), frozen=frozen)
  if base.description.injection != 'none':
    raise BadInput(
      f'checkpoint {settings.checkpoint}: has self-conditioning already; wanted a '
      'vanilla model, so that the controls are'
    )
  _check_samplers(settings, base.description)
  assert opened.stored is not None
  origin = starting.origin_of(opened.stored, adapter)
  base = dataclasses.replace(base, origin=origin)
  bench = Bench(
    settings=settings,
    base=base,
    domain=domain,
    measure_samples=measuring.measure_of(settings, directory, tokenizer),
    train_rows=domain.read_rows(settings.data, tokenizer, 'train'),
    test_rows=domain.read_rows(settings.data, tokenizer, 'test'),
  )
  if len(bench.train_rows) < settings.train.batch_size:
    raise BadInput(
      f'train.batch_size: found {settings.train.batch_size}; wanted at most the '
      f'{len(bench.train_rows)} examples of the training split'
    )
  return bench


def _check_samplers(settings: Settings, base: ModelDescription) -> None:
  """Refuses what one of the arms, or the base, cannot be drawn with."""
  schedule, mesh = schedule_of(settings.method), opening.mesh_of(settings)
  for description in (base, starting.as_trained(base, settings)):
    for steps in settings.compare.step_counts:
      options = dataclasses.replace(settings.sample, num_steps=steps)
      sampler = sampler_of(options, schedule)
      drawing.sampler_on(description, sampler, mesh, settings.data.length)


def _results(bench: Bench, arms: list[Arm], runs: list[dict]) -> dict[str, Any]:
  """What the report is made of, but for the cost and the trajectory."""
  settings, first = bench.settings, bench.settings.compare.seeds[0]
  leaves = jax.tree.leaves(bench.base.params)
  return {
    'domain': bench.domain.name,
    'metrics': {n: figure._asdict() for n, figure in bench.domain.figures.items()},
    'tokenizer': bench.base.tokenizer.name,
    'title': 'Self-conditioning adaptation against its controls',
    **metadata(),
    'config': dataclasses.asdict(settings),
    'base': {
      'path': settings.checkpoint,
      'parameters': int(sum(np.size(x) for x in leaves)),
      'nelbo_null': runs[0]['likelihood']['nelbo_null'],
    },
    'control': CONTROL,
    'arms': [dataclasses.asdict(arm) for arm in arms],
    'seeds': list(settings.compare.seeds),
    'runs': runs,
    'gallery': {r['arm']: r['gallery'] for r in runs if r['seed'] == first},
    'temperature_curve': [
      {'arm': r['arm'], 'seed': r['seed'], **point}
      for r in runs
      for point in r['temperature_curve']
    ],
    'notes': _notes(settings),
  }


def run(settings: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Adapts, judges, reports; returns the main figures."""
  # Drawing libraries are an extra, and slow to import: only this mode pays.
  try:
    from scmdm_jax.report.compare import write_report
    from scmdm_jax.report.table import Metrics, text_table
  except ImportError as e:
    raise BadInput(
      f'--mode=compare: {e.name} is not installed; run pip install '
      "'scmdm_jax[quickstart]'"
    ) from e

  started = time.time()
  bench = _bench(settings, workdir)
  arms = plan_arms(settings, bench.base)
  everything = [Arm(BASE, 0.0, 0, 0.0), *arms]
  runs = [
    run_arm(bench, arm, seed, workdir / 'arms' / arm.directory / f'seed_{seed}')
    for seed in settings.compare.seeds
    for arm in everything
  ]
  full = main_arm(arms)
  cost = {}
  if settings.compare.benchmark_pairs:
    say('timing the step and the sampler')
    cost = measure_cost(bench, full, settings.compare.benchmark_pairs)
  first = settings.compare.seeds[0]
  last = workdir / 'arms' / full.directory / f'seed_{first}'
  results = _results(bench, everything, runs) | {
    'cost': cost,
    'trajectory': trajectory(bench, full, last, first),
  }
  figures = {
    'mode': 'compare',
    'seeds': len(settings.compare.seeds),
    'arms': {arm.name: arm.train_steps for arm in arms},
    'cost': {k: {n: r['median'] for n, r in v.items()} for k, v in cost.items()},
    'seconds': round(time.time() - started, 1),
  }
  if multihost.index() > 0:
    return figures
  page = write_report(workdir / 'report', results)
  report = json.loads((page.parent / 'report.json').read_text())
  metrics = Metrics(report['metrics'])
  matched = report['matched_entropy_summary']
  print(text_table(report['summary'], CONTROL, metrics, matched))
  return figures | {'report': str(page)}
