"""A comparison as it is done: arms trained, sampled, judged and timed.

Every finished (arm, seed) leaves `result.json`, so the same command resumes.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax import files
from scmdm_jax.checkpoints import store
from scmdm_jax.data.pipeline import Rows
from scmdm_jax.data.tokenizers.protocol import up_to_end
from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.domains.protocol import Domain, Measure
from scmdm_jax.models import lora
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel import rules
from scmdm_jax.processes import multihost
from scmdm_jax.report.table import GENERAL
from scmdm_jax.runs import adapting, compiling, drawing, scoring, timing, watching
from scmdm_jax.runs.arms import CONTROL, Arm, method_of, start_of
from scmdm_jax.runs.opening import Model, mesh_of
from scmdm_jax.runs.results import updated
from scmdm_jax.settings.building import optimizer_of, sampler_of, schedule_of
from scmdm_jax.settings.options import MethodSettings, Settings
from scmdm_jax.training.step import NO_LIMITS
from scmdm_jax.training.writer import read_metrics

_GALLERY = 12
# Of a line of `metrics.jsonl`; the held-out ones with `train.evaluate_every`.
_LEARNED = ('step', 'loss', 'heldout_nelbo', 'heldout_nelbo_two_pass')


@dataclasses.dataclass(frozen=True)
class Bench:
  """What every arm is trained and judged with."""

  settings: Settings
  base: Model
  domain: Domain[Any]
  measure_samples: Measure
  train_rows: Rows
  test_rows: Rows

  def adapt(self, arm: Arm, seed: int, directory: pathlib.Path) -> Model:
    """Trains an arm from the base, resuming in `directory`."""
    method = arm.method(self.settings)
    options = dataclasses.replace(self.settings.train, num_steps=arm.train_steps)
    settings = dataclasses.replace(
      self.settings, seed=seed, method=method, train=options
    )
    start = start_of(self.settings, self.base, method, seed)
    name = f'{arm.name}, seed {seed}'
    model = adapting.fit(
      settings, start, self.train_rows, directory, name=name, heldout=self.test_rows
    )
    adapting.save(directory, model, settings)
    return model

  def draw(self, model: Model, seed: int, **changes: Any) -> drawing.Drawn:
    """Samples under the seed's own keys, the same for every arm."""
    options = dataclasses.replace(self.settings.sample, **changes)
    key = sampling_key(seed)
    x_init = drawing.starting_rows(
      self.settings, self.base.tokenizer, options.num_samples
    )
    schedule = schedule_of(self.settings.method)
    mesh = mesh_of(self.settings)
    drawn = drawing.draw(model, schedule, options, key, x_init, mesh)
    tokens = up_to_end(drawn.tokens, x_init, self.base.tokenizer)
    return drawn._replace(tokens=tokens)

  def judge_drawn(self, drawn: drawing.Drawn) -> dict[str, Any]:
    """All measures of a set of samples."""
    return scoring.judge_samples(self.measure_samples, drawn, self.base.tokenizer)

  def measure(self, model: Model, seed: int, sweep: bool) -> dict[str, Any]:
    """Likelihood, and samples at every step count, at all temperatures if asked."""
    figures: dict[str, Any] = {
      'likelihood': scoring.likelihood(
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
    for steps in self.settings.compare.step_counts:
      drawn = self.draw(model, seed, num_steps=steps)
      figures['samples'][str(steps)] = scores = self.judge_drawn(drawn)
      curve = self._curve(model, seed, steps, drawn, scores, sweep)
      figures['temperature_curve'] += curve
      if steps == self.settings.sample.num_steps:
        first = drawn.tokens[:_GALLERY]
        show, data = self.domain.show, self.settings.data
        figures['gallery'] = show(data, first, self.base.tokenizer)
    return figures

  def _of_count(self, name: str) -> bool:
    figure = self.domain.figures.get(name) or GENERAL.get(name)
    return figure is not None and figure.of_count

  def _curve(
    self,
    model: Model,
    seed: int,
    steps: int,
    drawn: drawing.Drawn,
    scores: dict[str, Any],
    sweep: bool,
  ) -> list[dict[str, Any]]:
    """Entropy and the domain's swept measures by temperature, after `steps`.

    Fewer samples at the other temperatures are compared with the first so many of
    `drawn`: sample i has the same noise at each, so that the difference has little.
    What depends on how many there are is None there.
    """
    options, compare = self.settings.sample, self.settings.compare
    names = [name for name in ('entropy', *self.domain.swept) if name in scores]
    count, few = options.num_samples, scores
    temperatures = compare.temperatures if sweep else (1.0,)
    if len(temperatures) > 1 and 0 < compare.sweep_samples < count:
      count = compare.sweep_samples
      few = self.judge_drawn(drawn._replace(tokens=drawn.tokens[:count]))
    points = []
    for temperature in temperatures:
      point = {name: scores[name] for name in names}
      if temperature != options.temperature:
        changes = {'temperature': temperature, 'num_samples': count}
        other = self.draw(model, seed, num_steps=steps, **changes)
        found = self.judge_drawn(other)
        point = {name: found.get(name) for name in names}
        if few is not scores:
          point = {
            name: None
            if self._of_count(name)
            else _moved(name, scores[name], few.get(name), found.get(name))
            for name in names
          }
      points.append({'num_steps': steps, 'temperature': temperature, **point})
    return points


def _moved(
  name: str, value: float | None, before: float | None, after: float | None
) -> float | None:
  """A measure of many samples, moved by what it changes for the first few of them.

  Perplexities are moved by their ratio, as it is their logarithm that is a mean.
  """
  if value is None or before is None or after is None:
    return None
  if name == 'generative_perplexity':
    return value * after / before
  return value + after - before


def trained_parameters(model: Model) -> int:
  """How many parameters of an adapted model were trained."""
  _, trained = lora.divided(model.params, model.description.adapter)
  return sum(int(np.size(x)) for x in jax.tree.leaves(trained))


def sampling_key(seed: int) -> jax.Array:
  """What every arm's samples of a seed start from."""
  return jax.random.fold_in(jax.random.key(seed), 2)


def say(text: str) -> None:
  """Tells the user what is under way, on standard error."""
  if multihost.index() == 0:
    print(text, file=sys.stderr, flush=True)


def run_arm(
  bench: Bench, arm: Arm, seed: int, directory: pathlib.Path
) -> dict[str, Any]:
  """Trains and measures one (arm, seed), or reads what an earlier run left."""
  result = directory / 'result.json'
  first = multihost.index() == 0
  # What one of several processes saw might be there when another looks.
  found = multihost.from_first(result.read_text() if first and result.is_file() else '')
  if found:
    return updated(json.loads(found), bench.settings.sample.num_steps)
  directory.mkdir(parents=True, exist_ok=True)
  say(f'{arm.name}, seed {seed}: {arm.train_steps} training steps')
  started = time.time()
  model = bench.adapt(arm, seed, directory) if arm.train_steps else bench.base
  trained = time.time()
  sweep = bench.settings.compare.sweep_all or arm.name == CONTROL
  figures = bench.measure(model, seed, sweep)
  figures |= {
    'arm': arm.name,
    'seed': seed,
    'train_steps': arm.train_steps,
    'flops_ratio': arm.flops_ratio,
    'trained_parameters': trained_parameters(model) if arm.train_steps else 0,
    'training_curve': [
      {name: line[name] for name in _LEARNED if name in line}
      for line in read_metrics(directory / 'metrics.jsonl')
    ],
    'seconds': {'training': trained - started, 'measuring': time.time() - trained},
  }
  if first:
    files.write_json(result, figures)
  return figures


def measure_cost(bench: Bench, arm: Arm, pairs: int) -> dict[str, Any]:
  """Interleaved time ratios of an arm's over a vanilla step and sampler.

  As the run itself takes them: on its mesh, in its dtypes. The A/A ratio, vanilla over
  vanilla, says how far to trust the others.
  """
  settings = bench.settings
  options, mesh = settings.train, mesh_of(settings)
  rows = jnp.zeros((options.batch_size, settings.data.length), jnp.int32)
  batch = meshes.place_rows(mesh, batch_of(rows))

  def stepper(start: Model, method: MethodSettings):
    frozen, trained = lora.divided(start.params, start.description.adapter)
    holder = [adapting.fresh_state(trained, optimizer_of(options), mesh)]
    key = jax.random.key(0)
    step = compiling.step_on_mesh(
      start.description, method, options, mesh, key, lambda x: x, frozen
    )

    def run():
      holder[0], metrics = step(holder[0], batch, 0.0, NO_LIMITS)
      return metrics

    return run

  vanilla, method = method_of(settings, 0.0), arm.method(settings)
  control = start_of(settings, bench.base, vanilla, 0)
  conditioned = start_of(settings, bench.base, method, 0)
  few = {'num_samples': settings.sample.batch_size}

  def sampler(model: Model):
    return lambda: bench.draw(model, 0, **few).tokens

  vanilla_step, two_pass = stepper(control, vanilla), stepper(conditioned, method)
  vanilla_sampler, carried = sampler(control), sampler(conditioned)
  ratio = timing.interleaved_ratio
  return {
    'train_step_ratio': {
      'vanilla over vanilla': ratio(vanilla_step, vanilla_step, pairs),
      f'{arm.name} over vanilla': ratio(two_pass, vanilla_step, pairs),
    },
    'sampler_ratio': {
      'vanilla over vanilla': ratio(vanilla_sampler, vanilla_sampler, pairs),
      'self-conditioned over vanilla': ratio(carried, vanilla_sampler, pairs),
    },
  }


def trajectory(
  bench: Bench, arm: Arm, directory: pathlib.Path, seed: int
) -> dict[str, Any]:
  """One sample of the arm in `directory`, step by step, for the report."""
  place = functools.partial(rules.placed, mesh_of(bench.settings))
  description, params = store.load_own(directory, place=place)
  if description.adapter is not None:
    params = lora.joined({'backbone': bench.base.params['backbone']}, params)
  model = dataclasses.replace(bench.base, description=description, params=params)
  drawn = bench.draw(model, seed, num_samples=1, trajectory=True)
  assert drawn.trajectory is not None
  tokenizer, settings = bench.base.tokenizer, bench.settings
  start = drawing.starting_rows(settings, tokenizer, 1)
  rows = np.stack([*start, *drawn.trajectory[:, 0]])
  domain = bench.domain
  show = (
    (lambda rows: domain.show(settings.data, rows, tokenizer)) if domain.film else None
  )
  film = {'film': domain.film, 'frames': show(rows)} if show else {}
  sampler = sampler_of(settings.sample, schedule_of(settings.method))
  beliefs = watching.side_by_side(
    model,
    sampler,
    settings.sample,
    sampling_key(seed),
    start,
    mesh_of(settings),
    show,
  )
  return film | {
    'arm': arm.name,
    'num_steps': settings.sample.num_steps,
    'tokens': [[tokenizer.tokens[t] for t in row] for row in rows],
    'masked': (rows == tokenizer.mask_id).tolist(),
    'beliefs': beliefs,
  }
