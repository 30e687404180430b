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
import re
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax import recipes
from scmdm_jax.checkpoints import store
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.errors import BadInput
from scmdm_jax.modes import domains, evaluate, models, sample, timing, train, workdir
from scmdm_jax.modes.models import mesh_of
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.settings import MethodSettings, Settings, optimizer_of, schedule_of
from scmdm_jax.training.writer import read_metrics

BASE = 'base (not adapted)'
CONTROL = 'rate 0, equal FLOPs'
_GALLERY = 12


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to spend the budget."""

  name: str
  rate: float
  train_steps: int
  flops_ratio: float  # Training FLOPs relative to the most expensive rate.
  recipe: str = ''  # Of `recipes.parse`; '': the run's own method at that rate.

  @property
  def directory(self) -> str:
    """Its name as a directory."""
    return re.sub('[:,=]', '-', self.name.replace(', ', '-').replace(' ', '_'))

  def method(self, settings: Settings) -> MethodSettings:
    """The run's method as this arm has it."""
    return _method(settings, self.rate, self.recipe)


def _method(settings: Settings, rate: float, recipe: str = '') -> MethodSettings:
  method = dataclasses.replace(settings.method, rate=rate)
  if not recipe:
    return method
  wanted = recipes.parse(recipe)
  return dataclasses.replace(
    method,
    estimate=wanted.estimate,
    injection=wanted.injection or method.injection,
  )


def _start(model: evaluate.Model, method: MethodSettings, seed: int):
  """The base with the injection an arm of this method needs."""
  key = jax.random.fold_in(jax.random.key(seed), 0)
  return train.add_injection(*model, method, key)


def _step_arguments(settings: Settings, model: evaluate.Model, method: MethodSettings):
  """A compiled step of an arm and what it is called with."""
  description, params = _start(model, method, seed=0)
  optimizer = optimizer_of(settings.train)
  # Counted for one device, so that the mesh does not change the length of a run.
  mesh = one_device()
  step = train.compiled_step(description, method, optimizer, mesh)
  state = train.fresh_state(params, optimizer, mesh)
  shape = (settings.train.batch_size, settings.data.length)
  tokens = jnp.zeros(shape, jnp.int32)
  return step, (state, tokens, jax.random.key(0), np.float32(0))


def step_flops(
  settings: Settings, model: evaluate.Model, method: MethodSettings
) -> float:
  """FLOPs of one training step, as XLA counts them before optimization.

  Counted without accumulation: of a loop XLA counts the body once.
  """
  options = dataclasses.replace(settings.train, accumulate=1)
  settings = dataclasses.replace(settings, train=options)
  step, arguments = _step_arguments(settings, model, method)
  counts: Any = step.lower(*arguments).cost_analysis()
  return float(counts['flops'])


def plan_arms(settings: Settings, model: evaluate.Model) -> list[Arm]:
  """The arms, with steps and FLOPs.

  Every rate has the run's steps, the control and the recipes what the FLOPs of the
  dearest rate buy.
  """
  steps, compare = settings.train.num_steps, settings.compare
  rates = sorted(compare.rates)

  def flops_of(rate: float, recipe: str = '') -> float:
    return step_flops(settings, model, _method(settings, rate, recipe))

  flops = {rate: flops_of(rate) for rate in (0.0, *rates)}
  budget = flops[rates[-1]] * steps
  equal = round(budget / flops[0.0])
  arms = [Arm(CONTROL, 0.0, equal, equal * flops[0.0] / budget)]
  if compare.equal_steps:
    arms.append(Arm('rate 0, equal steps', 0.0, steps, steps * flops[0.0] / budget))
  arms += [Arm(f'rate {r:g}', r, steps, steps * flops[r] / budget) for r in rates]
  for recipe in compare.recipes:
    rate = recipes.parse(recipe).rate
    cost = flops_of(rate, recipe)
    own = round(budget / cost)
    arms.append(Arm(recipe, rate, own, own * cost / budget, recipe))
  return arms


@dataclasses.dataclass(frozen=True)
class _Bench:
  """What every arm is trained and judged with."""

  settings: Settings
  base: evaluate.Model
  base_origin: dict[str, Any]
  domain: domains.Domain
  measure_samples: domains.Measure
  tokenizer: Tokenizer
  train_rows: Rows
  test_rows: Rows

  def adapt(self, arm: Arm, seed: int, directory: pathlib.Path) -> evaluate.Model:
    """Trains an arm from the base, resuming in `directory`."""
    method = arm.method(self.settings)
    options = dataclasses.replace(self.settings.train, num_steps=arm.train_steps)
    settings = dataclasses.replace(
      self.settings, seed=seed, method=method, train=options
    )
    description, params = _start(self.base, method, seed)
    name = f'{arm.name}, seed {seed}'
    state = train.fresh_state(params, optimizer_of(options), mesh_of(settings))
    trained = train.fit(
      settings,
      description,
      state,
      self.train_rows,
      directory,
      name,
    )
    store.save_model(
      directory / store.MODEL_SUBDIRECTORY,
      description,
      trained,
      train.origin(settings, self.base_origin),
      self.tokenizer.files,
    )
    return description, trained

  def draw(self, model: evaluate.Model, seed: int, **changes: Any) -> sample.Drawn:
    """Samples under the seed's own keys, the same for every arm."""
    options = dataclasses.replace(self.settings.sample, **changes)
    key = jax.random.fold_in(jax.random.key(seed), 2)
    x_init = sample.starting_rows(self.settings, self.tokenizer, options.num_samples)
    schedule = schedule_of(self.settings.method)
    mesh = mesh_of(self.settings)
    return sample.draw(*model, schedule, options, key, x_init, mesh)

  def judge_drawn(self, drawn: sample.Drawn) -> dict[str, Any]:
    """All measures of a set of samples."""
    return evaluate.judge_samples(self.measure_samples, drawn, self.tokenizer)

  def measure(self, model: evaluate.Model, seed: int, sweep: bool) -> dict[str, Any]:
    """Likelihood, samples at every step count, and a temperature sweep if asked."""
    compare = self.settings.compare
    figures: dict[str, Any] = {
      'likelihood': evaluate.likelihood(
        model,
        schedule_of(self.settings.method),
        self.test_rows,
        self.settings.evaluate,
        jax.random.fold_in(jax.random.key(seed), 3),
        mesh_of(self.settings),
      ),
      'samples': {},
      'temperature_curve': [],
    }
    for steps in compare.step_counts:
      drawn = self.draw(model, seed, num_steps=steps)
      figures['samples'][str(steps)] = self.judge_drawn(drawn)
      if steps == self.settings.sample.num_steps:
        first = drawn.tokens[:_GALLERY]
        figures['gallery'] = [self.tokenizer.decode(tokens) for tokens in first]
    for temperature in compare.temperatures if sweep else (1.0,):
      if temperature == self.settings.sample.temperature:
        scores = figures['samples'][str(self.settings.sample.num_steps)]
      else:
        scores = self.judge_drawn(self.draw(model, seed, temperature=temperature))
      names = ('entropy', *self.domain.swept)
      point = {name: scores[name] for name in names if name in scores}
      figures['temperature_curve'].append({'temperature': temperature, **point})
    return figures


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def run_arm(
  bench: _Bench, arm: Arm, seed: int, directory: pathlib.Path
) -> dict[str, Any]:
  """Trains and measures one (arm, seed), or reads what an earlier run left."""
  result = directory / 'result.json'
  if result.exists():
    return json.loads(result.read_text())
  directory.mkdir(parents=True, exist_ok=True)
  _say(f'{arm.name}, seed {seed}: {arm.train_steps} training steps')
  started = time.time()
  model = bench.adapt(arm, seed, directory) if arm.train_steps else bench.base
  trained = time.time()
  figures = bench.measure(model, seed, sweep=arm.name == CONTROL)
  figures |= {
    'arm': arm.name,
    'seed': seed,
    'train_steps': arm.train_steps,
    'flops_ratio': arm.flops_ratio,
    'training_curve': [
      {'step': line['step'], 'loss': line['loss']}
      for line in read_metrics(directory / 'metrics.jsonl')
    ],
    'seconds': {'training': trained - started, 'measuring': time.time() - trained},
  }
  temporary = result.with_suffix('.tmp')
  temporary.write_text(json.dumps(figures) + '\n')
  temporary.rename(result)
  return figures


def measure_cost(bench: _Bench, rate: float, pairs: int) -> dict[str, Any]:
  """Interleaved time ratios of a conditioned over a vanilla step and sampler.

  The A/A ratio, vanilla over vanilla, says how far to trust the others.
  """

  def stepper(rate: float):
    method = _method(bench.settings, rate)
    step, (state, *rest) = _step_arguments(bench.settings, bench.base, method)
    holder = [state]

    def run():
      holder[0], metrics = step(holder[0], *rest)
      return metrics

    return run

  conditioned = _start(bench.base, _method(bench.settings, rate), 0)
  few = {'num_samples': bench.settings.sample.batch_size}

  def sampler(model: evaluate.Model):
    return lambda: bench.draw(model, 0, **few).tokens

  vanilla_step, two_pass = stepper(0.0), stepper(rate)
  vanilla_sampler, carried = sampler(bench.base), sampler(conditioned)
  ratio = timing.interleaved_ratio
  return {
    'train_step_ratio': {
      'vanilla over vanilla': ratio(vanilla_step, vanilla_step, pairs),
      f'rate {rate:g} over vanilla': ratio(two_pass, vanilla_step, pairs),
    },
    'sampler_ratio': {
      'vanilla over vanilla': ratio(vanilla_sampler, vanilla_sampler, pairs),
      'self-conditioned over vanilla': ratio(carried, vanilla_sampler, pairs),
    },
  }


def trajectory(
  bench: _Bench, arm: Arm, model: evaluate.Model, seed: int
) -> dict[str, Any]:
  """One sample, step by step, for the report."""
  drawn = bench.draw(model, seed, num_samples=1, trajectory=True)
  assert drawn.trajectory is not None
  start = sample.starting_rows(bench.settings, bench.tokenizer, 1)
  rows = [*start, *drawn.trajectory[:, 0]]
  return {
    'arm': arm.name,
    'num_steps': bench.settings.sample.num_steps,
    'tokens': [[bench.tokenizer.tokens[t] for t in row] for row in rows],
    'masked': [(np.asarray(row) == bench.tokenizer.mask_id).tolist() for row in rows],
  }


def _notes(settings: Settings) -> list[str]:
  return [
    'Sampling noise is float32 in mode high; every sample of a seed starts from the '
    'same key in every arm.',
    f'The temperature sweep is at T = {settings.sample.num_steps} steps.',
    'Likelihoods are nats per token over all positions, padding included, on held-out '
    'examples; lower is better.',
    'The equal-FLOPs control trains longer at rate 0, by the FLOPs that XLA counts; '
    'recipes spend as many.',
  ]


def run(settings: Settings, directory: pathlib.Path) -> dict[str, Any]:
  """Adapts, judges, reports; returns the main figures."""
  # Drawing libraries are an extra, and slow to import: only this mode pays.
  try:
    from scmdm_jax.report.compare import write_report
    from scmdm_jax.report.table import text_table
  except ImportError as e:
    raise BadInput(
      f'--mode=compare: {e.name} is not installed; run pip install '
      "'scmdm_jax[quickstart]'"
    ) from e

  started = time.time()
  tokenizer = models.run_tokenizer(settings, directory)
  sample.starting_rows(settings, tokenizer, 1)  # A wrong prompt shows itself first.
  base = models.load_masked(settings, directory, tokenizer)
  if base[0].injection != 'none':
    raise BadInput(
      f'checkpoint {settings.checkpoint}: has self-conditioning already; wanted a '
      'vanilla model, so that the controls are'
    )
  domain = domains.of(settings.data)
  bench = _Bench(
    settings=settings,
    base=base,
    base_origin=models.base_origin(settings, directory),
    domain=domain,
    measure_samples=domain.judging(settings, directory, tokenizer),
    tokenizer=tokenizer,
    train_rows=domain.read_rows(settings.data, tokenizer, 'train'),
    test_rows=domain.read_rows(settings.data, tokenizer, 'test'),
  )
  if len(bench.train_rows) < settings.train.batch_size:
    raise BadInput(
      f'train.batch_size: found {settings.train.batch_size}; wanted at most the '
      f'{len(bench.train_rows)} examples of the training split'
    )
  arms = plan_arms(settings, base)
  everything = [Arm(BASE, 0.0, 0, 0.0), *arms]
  runs = [
    run_arm(bench, arm, seed, directory / 'arms' / arm.directory / f'seed_{seed}')
    for seed in settings.compare.seeds
    for arm in everything
  ]
  full = next(arm for arm in reversed(arms) if not arm.recipe)
  cost = {}
  if settings.compare.benchmark_pairs:
    _say('timing the step and the sampler')
    cost = measure_cost(bench, full.rate, settings.compare.benchmark_pairs)
  first = settings.compare.seeds[0]
  last_model = store.load_model(directory / 'arms' / full.directory / f'seed_{first}')
  results = {
    'domain': domain.name,
    'tokenizer': tokenizer.name,
    'title': 'Self-conditioning adaptation against its controls',
    **workdir.metadata(),
    'config': dataclasses.asdict(settings),
    'base': {
      'path': settings.checkpoint,
      'parameters': int(sum(np.size(x) for x in jax.tree.leaves(base[1]))),
      'nelbo_null': runs[0]['likelihood']['nelbo_null'],
    },
    'control': CONTROL,
    'arms': [dataclasses.asdict(arm) for arm in everything],
    'seeds': list(settings.compare.seeds),
    'runs': runs,
    'gallery': {r['arm']: r['gallery'] for r in runs if r['seed'] == first},
    'trajectory': trajectory(bench, full, last_model, first),
    'temperature_curve': [
      {'arm': r['arm'], 'seed': r['seed'], **point}
      for r in runs
      for point in r['temperature_curve']
    ],
    'cost': cost,
    'notes': _notes(settings),
  }
  page = write_report(directory / 'report', results)
  report = json.loads((page.parent / 'report.json').read_text())
  print(text_table(report['summary'], CONTROL, report['matched_entropy_summary']))
  return {
    'mode': 'compare',
    'report': str(page),
    'seeds': len(settings.compare.seeds),
    'arms': {arm.name: arm.train_steps for arm in arms},
    'cost': {k: {n: r['median'] for n, r in v.items()} for k, v in cost.items()},
    'seconds': round(time.time() - started, 1),
  }
