"""The values that options stand for: schedule, strategy, optimizer, a new model."""

import dataclasses
import difflib
import math
from typing import Any

import numpy as np

from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.readout import MEASURES
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial, Schedule
from scmdm_jax.domains.images.rows import SHAPES, grid_of
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import (
  ConvConfig,
  DecoderConfig,
  DiTConfig,
  ModelDescription,
)
from scmdm_jax.settings.options import (
  DataSettings,
  MethodSettings,
  SampleSettings,
  Settings,
  TrainSettings,
)
from scmdm_jax.training.guards import GuardConfig
from scmdm_jax.training.loop import LoopConfig
from scmdm_jax.training.step import OptimizerConfig


def grid_of_rows(data: DataSettings) -> tuple[int, ...]:
  """Channels, height and width of the image in a row; () where there is none."""
  return grid_of(data.name, data.side) if data.name in SHAPES else ()


STRATEGIES: dict[str, type] = {
  'ancestral': strategies.Ancestral,
  'first_hitting': strategies.FirstHitting,
  'maskgit': strategies.MaskGIT,
  'confidence': strategies.Confidence,
  'dream': strategies.Dream,
  'threshold': strategies.Threshold,
  'factor': strategies.Factor,
  'entropy_bound': strategies.EntropyBound,
  'remdm': strategies.ReMDM,
  'p2': strategies.P2,
}


_STRATEGY_WORDS = {
  'measure': MEASURES[1:],
  'rule': ('cap', 'rescale', 'conf', 'loop'),
}


def strategy_of(sample: SampleSettings) -> strategies.Strategy:
  """The strategy of a run, its fields as written behind the colon.

  Raises:
    BadInput: unknown name or field, or a value that is not one.
  """
  name, _, written = sample.strategy.partition(':')
  if name not in STRATEGIES:
    near = difflib.get_close_matches(name, STRATEGIES, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise BadInput(
      f'sample.strategy: found {name!r}; wanted one of {", ".join(STRATEGIES)}{hint}'
    )
  if sample.noise == 'low':
    if sample.strategy != 'ancestral':
      raise BadInput(
        f"sample.noise: found 'low' with sample.strategy = {sample.strategy!r}; the "
        "joint draw is 'ancestral' only"
      )
    return strategies.Joint()
  cls = STRATEGIES[name]
  fields = {f.name: f for f in dataclasses.fields(cls)}
  values: dict[str, Any] = {}
  for item in filter(None, written.split(',')):
    field, _, text = item.partition('=')
    if field in values:
      raise BadInput(f'sample.strategy: {name}:{field} is there twice; wanted it once')
    if field not in fields:
      wanted = ', '.join(fields) or 'none'
      raise BadInput(
        f'sample.strategy: {name} has no field {field!r}; its fields: {wanted}'
      )
    values[field] = _strategy_value(f'sample.strategy: {name}:{field}', field, text)
  strategy = cls(**values)
  if isinstance(strategy, strategies.ReMDM) and strategy.t_on <= strategy.t_off:
    raise BadInput(
      f'sample.strategy: remdm:t_on: found {strategy.t_on:g}; wanted more than t_off = '
      f'{strategy.t_off:g}, since time runs from 1 to 0'
    )
  return strategy


def _strategy_value(path: str, field: str, text: str) -> Any:
  if field in _STRATEGY_WORDS:
    if text not in _STRATEGY_WORDS[field]:
      wanted = ', '.join(_STRATEGY_WORDS[field])
      raise BadInput(f'{path}: found {text!r}; wanted one of {wanted}')
    return text
  try:
    value = float(text)
  except ValueError as e:
    raise BadInput(f'{path}: found {text!r}; wanted a number') from e
  if not (math.isfinite(value) and value >= 0):
    raise BadInput(f'{path}: found {text!r}; wanted a finite number from 0')
  if (field, path.split(': ')[1].split(':')[0]) == ('eta', 'remdm') and value > 1:
    raise BadInput(f'{path}: found {text!r}; wanted a probability, at most 1')
  if field == 'eps' and value >= 1:
    raise BadInput(f'{path}: found {text!r}; wanted a time below 1')
  if field in ('t_on', 't_off', 'alpha_on') and not 0 < value < 1:
    raise BadInput(f'{path}: found {text!r}; wanted a number between 0 and 1')
  return value


def schedule_of(method: MethodSettings) -> Schedule:
  """The masking schedule of a run."""
  if method.schedule == 'log_linear':
    return LogLinear(method.eps)
  if method.schedule == 'cosine':
    return Cosine(method.eps)
  return Polynomial(method.power, method.eps)


def optimizer_of(train: TrainSettings) -> OptimizerConfig:
  """The optimizer of a run."""
  return OptimizerConfig(
    weight_decay=train.weight_decay,
    clip=train.clip,
    ema_decay=train.ema_decay,
    accumulate=train.accumulate,
    rate_factors=(('self_conditioning', train.injection_rate_factor),),
  )


def loop_of(train: TrainSettings) -> LoopConfig:
  """The host loop of a run."""
  return LoopConfig(
    num_steps=train.num_steps,
    learning_rate=train.learning_rate,
    final_learning_rate=train.final_learning_rate,
    warmup_steps=train.warmup_steps,
    save_every=train.save_every,
    log_every=train.log_every,
    fall_back=train.fall_back,
    guard=GuardConfig(
      train.skip_limit, train.spike_window, train.spike_sigma, train.step_timeout
    ),
  )


def new_model(
  settings: Settings,
  vocab_size: int,
  mask_id: int | None,
  class_ids: tuple[int, ...] = (),
) -> ModelDescription:
  """The description of a model trained from scratch, but for its tokenizer.

  Raises:
    BadInput: sizes that do not fit each other, or a classifier without classes.
  """
  model, causal = settings.model, settings.method.objective == 'causal'
  if model.architecture == 'mdlm':
    architecture = DiTConfig(
      vocab_size=vocab_size,
      length=settings.data.length,
      hidden_dim=model.hidden_dim,
      num_blocks=model.num_blocks,
      num_heads=model.num_heads,
      cond_dim=model.cond_dim,
      mlp_ratio=model.mlp_ratio,
      time_conditioning=model.time_conditioning,
      grid=grid_of_rows(settings.data),
      window=model.window,
    )
  elif model.architecture == 'conv':
    if len(class_ids) < 2 or np.any(np.diff(class_ids) != 1):
      raise BadInput(
        f'method.objective: found {settings.method.objective!r}, but data.tokenizer = '
        f'{settings.data.tokenizer!r} has no classes; wanted data with classes'
      )
    architecture = ConvConfig(
      vocab_size=vocab_size,
      length=settings.data.length,
      hidden_dim=model.hidden_dim,
      num_blocks=model.num_blocks,
      embedding_dim=model.embedding_dim,
      kernel_size=model.kernel_size,
      first_class=class_ids[0],
      num_classes=len(class_ids),
      grid=grid_of_rows(settings.data),
    )
  else:
    architecture = DecoderConfig(
      vocab_size=vocab_size,
      length=settings.data.length,
      hidden_dim=model.hidden_dim,
      num_blocks=model.num_blocks,
      num_heads=model.num_heads,
      num_kv_heads=model.num_heads,
      mlp_dim=model.mlp_ratio * model.hidden_dim,
      causal=causal,
      qkv_bias=not causal,
      shifted=not causal,
    )
  masked = settings.method.objective == 'masked'
  try:
    return ModelDescription(
      architecture,
      mask_id=mask_id if masked else None,
      tokenizer='',
      injection=settings.method.injection if masked else 'none',
      layout=model.architecture,
    )
  except ValueError as e:
    raise BadInput(f'model: {e}') from e
