"""The arms of a comparison: the method of each, what it starts from, what it spends."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.diffusion.noise import batch_of
from scmdm_jax.models import denoiser, lora
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import compiling, starting
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings import recipes
from scmdm_jax.settings.building import optimizer_of
from scmdm_jax.settings.options import MethodSettings, Settings
from scmdm_jax.training.step import initial_state

BASE = 'base (not adapted)'

CONTROL = 'rate 0, equal FLOPs'


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to spend the budget."""

  name: str
  rate: float
  train_steps: int
  flops_ratio: float  # Training FLOPs relative to those of `main_arm`.
  recipe: str = ''  # Of `recipes.parse`; '': the run's own method at that rate.

  @property
  def directory(self) -> str:
    """Its name as a directory."""
    return re.sub('[:,=]', '-', self.name.replace(', ', '-').replace(' ', '_'))

  def method(self, settings: Settings) -> MethodSettings:
    """Returns the run's method as this arm has it."""
    return method_of(settings, self.rate, self.recipe)


def method_of(settings: Settings, rate: float, recipe: str = '') -> MethodSettings:
  """The method of the run at another rate, or as a recipe has it."""
  method = dataclasses.replace(settings.method, rate=rate)
  if not recipe:
    return method
  wanted = recipes.parse(recipe)
  return dataclasses.replace(
    method,
    estimate=wanted.estimate,
    injection=wanted.injection or method.injection,
  )


def start_of(
  settings: Settings, model: Model, method: MethodSettings, seed: int
) -> Model:
  """The base as an arm of this method begins, as --mode=train does of that seed."""
  key = jax.random.fold_in(jax.random.key(seed), 0)
  description = starting.as_trained(model.description, settings)
  model = dataclasses.replace(model, description=description)
  return starting.adapted(model, settings, method, key)


def step_flops(settings: Settings, model: Model, method: MethodSettings) -> float:
  """FLOPs of one training step, as XLA counts them before optimization.

  Counted of shapes alone, for one device and without accumulation, of whose loop XLA
  counts the body once, so that neither changes the length of a run; rematerialization
  is not counted.
  """
  options = dataclasses.replace(settings.train, accumulate=1)
  settings = dataclasses.replace(settings, train=options)
  optimizer = optimizer_of(settings.train)
  description = starting.as_adapted(model.description, settings, method)
  frozen, trained = lora.divided(
    denoiser.abstract_params(description), description.adapter
  )
  start = functools.partial(initial_state, config=optimizer)
  step = compiling.compiled_step(description, method, optimizer, one_device())
  shape = (settings.train.batch_size, settings.data.length)
  batch = batch_of(jnp.zeros(shape, jnp.int32))
  state = jax.eval_shape(start, trained)
  named = {} if frozen is None else {'frozen': frozen}
  lowered = step.lower(state, batch, jax.random.key(0), np.float32(0), **named)
  counts: Any = lowered.cost_analysis()
  return float(counts['flops'])


def plan_arms(settings: Settings, model: Model) -> list[Arm]:
  """The arms, with steps and FLOPs.

  Every rate has the run's steps, the control and the recipes what the FLOPs of the
  dearest rate buy; without rates the first recipe has the run's steps.
  """
  steps, compare = settings.train.num_steps, settings.compare
  rates = sorted(compare.rates)

  def flops_of(rate: float, recipe: str = '') -> float:
    return step_flops(settings, model, method_of(settings, rate, recipe))

  flops = {rate: flops_of(rate) for rate in (0.0, *rates)}
  recipe_flops = {r: flops_of(recipes.parse(r).rate, r) for r in compare.recipes}
  dearest = flops[rates[-1]] if rates else recipe_flops[compare.recipes[0]]
  budget = dearest * steps
  equal = round(budget / flops[0.0])
  arms = [Arm(CONTROL, 0.0, equal, equal * flops[0.0] / budget)]
  if compare.equal_steps:
    arms.append(Arm('rate 0, equal steps', 0.0, steps, steps * flops[0.0] / budget))
  arms += [Arm(f'rate {r:g}', r, steps, steps * flops[r] / budget) for r in rates]
  for recipe, cost in recipe_flops.items():
    own, rate = round(budget / cost), recipes.parse(recipe).rate
    arms.append(Arm(recipe, rate, own, own * cost / budget, recipe))
  return arms


def main_arm(arms: list[Arm]) -> Arm:
  """The arm whose FLOPs the others get: the highest rate, or else the first recipe."""
  rates = [arm for arm in arms if arm.rate and not arm.recipe]
  return rates[-1] if rates else next(arm for arm in arms if arm.recipe)
