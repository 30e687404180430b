"""The values that options stand for: schedule, strategy, optimizer, a new model."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial, Schedule
from scmdm_jax.diffusion.strategies import Joint, parse
from scmdm_jax.domains import registry
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families import FAMILIES
from scmdm_jax.models.lora import Adapter
from scmdm_jax.settings.options import (
  MethodSettings,
  SampleSettings,
  Settings,
  TrainSettings,
)
from scmdm_jax.training.guards import GuardConfig
from scmdm_jax.training.loop import LoopConfig
from scmdm_jax.training.step import OptimizerConfig

T = TypeVar('T')


def grid_of_rows(data: DataSettings) -> tuple[int, ...]:
  """Channels, height and width of the picture in a row; () where there is none."""
  return registry.of(data).grid(data)


def reported(name: str, build: Callable[[], T]) -> T:
  """Returns what `build` does; a complaint of the value names the option, too.

  Raises:
    BadInput: the value refuses what it is built of; `name` is the group of options.
  """
  try:
    return build()
  except ValueError as e:
    raise BadInput(f'{name}.{e}') from e


def _shared(cls: type[T], options: Any, **more: Any) -> T:
  """Returns a `cls` of the fields that `options` has, too, and of `more`."""
  names = {f.name for f in dataclasses.fields(options)}
  fields = {f.name for f in dataclasses.fields(cast(Any, cls))}
  return cls(**{name: getattr(options, name) for name in names & fields} | more)


def sampler_of(sample: SampleSettings, schedule: Schedule) -> Sampler:
  """Returns the sampler of a run; 'low' noise stands for the joint draw.

  Raises:
    BadInput: see `Sampler` and `strategies.parse`.
  """
  if sample.noise == 'low' and sample.strategy != 'ancestral':
    raise BadInput(
      f"sample.noise: found 'low' with sample.strategy = {sample.strategy!r}; the "
      "joint draw is 'ancestral' only"
    )
  joint = sample.noise == 'low'
  return reported(
    'sample',
    lambda: _shared(
      Sampler,
      sample,
      schedule=schedule,
      strategy=Joint() if joint else parse(sample.strategy),
      guidance=Guidance(sample.guidance) if sample.guidance else None,
    ),
  )


def schedule_of(method: MethodSettings) -> Schedule:
  """Returns the masking schedule of a run.

  Raises:
    BadInput: see `schedules`.
  """
  # It takes both options, so that both are checked whatever the schedule.
  polynomial = reported('method', lambda: Polynomial(method.power, method.eps))
  by_name = {'log_linear': LogLinear, 'cosine': Cosine}
  return (
    by_name[method.schedule](method.eps) if method.schedule in by_name else polynomial
  )


def optimizer_of(train: TrainSettings) -> OptimizerConfig:
  """Returns the optimizer of a run.

  Raises:
    BadInput: see `OptimizerConfig`.
  """
  factors = (('self_conditioning', train.injection_rate_factor),)
  return reported(
    'train', lambda: _shared(OptimizerConfig, train, rate_factors=factors)
  )


def adapter_of(train: TrainSettings) -> Adapter | None:
  """Returns the adapter that is trained beside a frozen base; None: all is trained.

  Raises:
    BadInput: see `lora.Adapter`.
  """
  if not train.lora_rank:
    return None
  try:
    return Adapter(train.lora_rank, train.lora_alpha, train.lora_targets)
  except ValueError as e:
    raise BadInput(f'train.lora_{e}') from e


def loop_of(train: TrainSettings) -> LoopConfig:
  """Returns the host loop of a run.

  Raises:
    BadInput: see `LoopConfig`.
  """
  return reported(
    'train', lambda: _shared(LoopConfig, train, guard=_shared(GuardConfig, train))
  )


def new_model(
  settings: Settings,
  vocab_size: int,
  mask_id: int | None,
  class_ids: tuple[int, ...] = (),
) -> ModelDescription:
  """Returns the description of a model trained from scratch, without a tokenizer.

  Raises:
    BadInput: sizes that do not fit each other, or a classifier without classes.
  """
  model, data, objective = settings.model, settings.data, settings.method.objective
  if objective == 'classify' and (
    len(class_ids) < 2 or np.any(np.diff(class_ids) != 1)
  ):
    raise BadInput(
      f'method.objective: found {objective!r}, but data.tokenizer = '
      f'{data.tokenizer!r} has no classes; wanted data with classes'
    )
  family, masked = FAMILIES[model.architecture], objective == 'masked'
  offered = {
    **dataclasses.asdict(model),
    'vocab_size': vocab_size,
    'length': data.length,
    'grid': grid_of_rows(data),
    'class_ids': class_ids,
  }
  named = {f.name for f in dataclasses.fields(family.sizes)} & offered.keys()
  sizes = {name: offered[name] for name in named} | family.new(offered)
  try:
    return ModelDescription(
      family.sizes(**{**sizes, **family.always}),
      mask_id=mask_id if masked else None,
      tokenizer='',
      injection=settings.method.injection if masked else 'none',
      family=model.architecture,
    )
  except ValueError as e:
    raise BadInput(f'model: {e}') from e
