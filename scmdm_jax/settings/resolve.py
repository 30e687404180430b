"""A `ConfigDict` checked option by option, and the ones that depend on each other."""

import dataclasses
import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from scmdm_jax.buckets import urls
from scmdm_jax.diffusion.strategies import Joint
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput
from scmdm_jax.models import families
from scmdm_jax.settings.building import (
  adapter_of,
  loop_of,
  optimizer_of,
  reported,
  sampler_of,
  schedule_of,
)
from scmdm_jax.settings.options import SampleSettings, Settings
from scmdm_jax.settings.rules import is_kind

# Paths of this disk alone: compiled programs are of a machine.
_NOT_IN_BUCKETS = ('compilation_cache',)


def _build(cls: type, values: Any, path: str) -> Any:
  """Checks `values` (a mapping) field by field and builds the dataclass `cls`."""
  if not isinstance(values, ConfigDict | dict):
    raise BadInput(f'{path}: found {values!r}; wanted a group of options')
  fields = {f.name: f for f in dataclasses.fields(cls)}
  prefix = f'{path}.' if path else ''
  for name in values:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, n=1)
      hint = f'; did you mean {prefix}{near[0]}?' if near else ''
      raise BadInput(f'{prefix}{name}: no such option{hint}')
  built, default = {}, cls()
  for name, field in fields.items():
    if name not in values:
      continue
    group = getattr(default, name)
    if dataclasses.is_dataclass(group):
      built[name] = _build(type(group), values[name], f'{prefix}{name}')
    else:
      built[name] = _check(field, values[name], f'{prefix}{name}')
  return cls(**built)


def _check(field: dataclasses.Field, value: Any, path: str) -> Any:
  """Returns `value` of `field` if it has the type and obeys the rule."""
  kind: Any = field.type
  if kind is tuple and isinstance(value, list):
    value = tuple(value)
  if not is_kind(value, kind):
    raise BadInput(f'{path}: found {value!r}; wanted {kind.__name__}')
  if (
    kind is str and path != 'sample.prompt'
  ):  # A prompt is text, all else may be a path.
    value = urls.accepted(path, value, bucket=path not in _NOT_IN_BUCKETS)
  if kind is float:
    value = float(value)
  numbers = value if isinstance(value, tuple) else (value,)
  if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
    raise BadInput(f'{path}: found {value!r}; wanted finite numbers')
  wanted, check = field.metadata.get('rule', ('', lambda _: True))
  try:
    allowed = check(value)
  except TypeError:
    allowed = False
  if not allowed:
    raise BadInput(f'{path}: found {value!r}; wanted {wanted}')
  return value


def resolve(config: ConfigDict | dict) -> Settings:
  """Checks every option and the ones that depend on each other, and freezes them.

  Raises:
    BadInput: one line naming the option, what was found and what was wanted.
  """
  settings = _build(Settings, config, '')
  _check_train(settings)
  _check_method(settings)
  _check_domain(settings)
  _check_sample(settings)
  for name in settings.benchmark.strategies:
    sample = dataclasses.replace(settings.sample, strategy=name)
    _check_sample(dataclasses.replace(settings, sample=sample))
  if settings.mode == 'compare':
    _check_compare(settings)
  return settings


def _check_train(settings: Settings) -> None:
  """Refuses a training run whose numbers contradict each other."""
  train = settings.train
  optimizer_of(train)
  loop_of(train)
  if train.batch_size % train.accumulate:
    raise BadInput(
      f'train.accumulate: found {train.accumulate}; wanted a divisor of '
      f'train.batch_size = {train.batch_size}'
    )
  if train.warmup_steps >= train.num_steps:
    raise BadInput(
      f'train.warmup_steps: found {train.warmup_steps}; wanted fewer than '
      f'train.num_steps = {train.num_steps}'
    )
  if train.final_learning_rate > train.learning_rate:
    raise BadInput(
      f'train.final_learning_rate: found {train.final_learning_rate}; wanted at most '
      f'train.learning_rate = {train.learning_rate}'
    )
  if adapter_of(train) and (
    settings.mode == 'benchmark' or settings.method.objective == 'classify'
  ):
    raise BadInput(
      f'train.lora_rank: found {train.lora_rank} with --mode={settings.mode} and '
      f'method.objective = {settings.method.objective!r}; wanted 0 there'
    )
  if not train.lora_rank and not train.lora_targets:
    raise BadInput(
      "train.lora_targets: found '' with train.lora_rank = 0, which trains everything; "
      'wanted a rank above 0, to train the injection alone'
    )
  masked = settings.method.objective == 'masked'
  # The control of a comparison has no injection.
  vanilla = settings.mode == 'compare' or not settings.method.rate or not masked
  trains = settings.mode in ('train', 'plan', 'compare')
  if train.lora_rank and not train.lora_targets and vanilla and trains:
    raise BadInput(
      f"train.lora_targets: found '' with --mode={settings.mode}, method.rate = "
      f'{settings.method.rate} and method.objective = {settings.method.objective!r}, '
      'where there is no injection to be trained alone; wanted layers, or '
      "--mode=train, a rate above 0 and 'masked'"
    )
  if train.evaluate_every and settings.method.objective != 'masked':
    raise BadInput(
      f'train.evaluate_every: found {train.evaluate_every} with method.objective = '
      f"{settings.method.objective!r}; wanted 0, or 'masked'"
    )
  window = settings.profile.window
  if window and (settings.mode != 'train' or window[1] > train.num_steps):
    raise BadInput(
      f'profile.steps: found {settings.profile.steps!r}; wanted steps up to '
      f'train.num_steps = {train.num_steps}, with --mode=train'
    )


def _check_method(settings: Settings) -> None:
  """Refuses an objective that the model, the mode or the data do not have."""
  method, architecture = settings.method, settings.model.architecture
  fitting = families.trainable(method.objective)
  if not settings.checkpoint and architecture not in fitting:
    raise BadInput(
      f'method.objective: found {method.objective!r} with model.architecture = '
      f'{architecture!r}; wanted {" or ".join(fitting)} with it'
    )
  if method.objective == 'classify' and settings.mode in ('plan', 'benchmark'):
    raise BadInput(
      f'method.objective: found {method.objective!r} with --mode={settings.mode}, '
      "which is of diffusion models; wanted 'masked'"
    )
  if method.class_shown and not registry.of(settings.data).has_classes:
    raise BadInput(
      f'method.class_shown: found {method.class_shown:g} with data.name = '
      f'{settings.data.name!r}; wanted 0, or data with classes'
    )
  recipes = settings.compare.recipes if settings.mode == 'compare' else ()
  estimates = ('method.estimate', method.estimate), *(('a recipe', r) for r in recipes)
  for what, estimate in estimates if method.first_pass == 'base' else ():
    if not settings.train.lora_rank or estimate.partition(':')[0] != 'same_t':
      raise BadInput(
        f"method.first_pass: found 'base' with train.lora_rank = "
        f'{settings.train.lora_rank} and {what} = {estimate!r}; wanted '
        "'adapted', or a rank above 0 and 'same_t'"
      )
  unsignalled = method.injection == 'none' and method.rate > 0
  if unsignalled and method.objective == 'masked':
    raise BadInput(
      f"method.rate: found {method.rate} with method.injection = 'none'; "
      'wanted rate 0, or an injection'
    )


def _check_domain(settings: Settings) -> None:
  """Refuses what the domain of the data refuses, and what only other domains have."""
  data = settings.data
  domain = registry.of(data)
  if not data.length and domain.length is None:
    raise BadInput(
      f'data.length: found 0 with data.name = {data.name!r}; wanted a number above 0, '
      'or data whose examples have a length of their own'
    )
  domain.check_settings(data, settings.evaluate, settings.judge)
  for other in registry.domains():
    if other is domain:
      continue
    sets = f'{other.name}: {", ".join(other.data_sets)}'
    for path, field in registry.own_options(other).items():
      group, name = path.split('.')
      value = getattr(getattr(settings, group), name)
      if value and value != field.default:  # What is off asks for nothing.
        raise BadInput(
          f'{path}: found {value!r} with data.name = {data.name!r}; wanted '
          f'{field.default!r}, or {sets}'
        )
    foreign = any(k.is_name(data.tokenizer) and not k.shared for k in other.tokenizers)
    if foreign:
      raise BadInput(
        f'data.tokenizer: found {data.tokenizer!r} with data.name = {data.name!r}; '
        f'wanted it for {sets} only'
      )


def _check_compare(settings: Settings) -> None:
  """Refuses what would make the arms differ in more than their rate."""
  compare, sample, method = settings.compare, settings.sample, settings.method
  if sample.num_steps not in compare.step_counts:
    raise BadInput(
      f'compare.step_counts: found {compare.step_counts}; wanted sample.num_steps = '
      f'{sample.num_steps} among them, at which samples are shown'
    )
  if compare.sweep_samples > sample.num_samples:
    raise BadInput(
      f'compare.sweep_samples: found {compare.sweep_samples}; wanted at most '
      f'sample.num_samples = {sample.num_samples}, or 0'
    )
  for name in ('rates', 'seeds', 'step_counts', 'temperatures'):
    values = getattr(compare, name)
    if len(set(values)) < len(values):
      raise BadInput(f'compare.{name}: found {values}; wanted each only once')
  if not compare.rates and not compare.recipes:
    raise BadInput(
      'compare.rates: found () and no recipe either; wanted one of the two at least, '
      'as the arm that the controls are to match'
    )
  if method.objective != 'masked' or method.injection == 'none':
    raise BadInput(
      f'method: found objective {method.objective!r}, injection {method.injection!r}; '
      "--mode=compare wants 'masked' and an injection"
    )
  if 1.0 not in compare.temperatures:
    raise BadInput(
      f'compare.temperatures: found {compare.temperatures}; wanted 1.0 among them'
    )
  if sample.temperature != 1 or not sample.self_conditioning:
    raise BadInput(
      f'sample: found temperature {sample.temperature}, self_conditioning '
      f'{sample.self_conditioning}; --mode=compare wants 1.0 and True'
    )


def _check_sample(settings: Settings) -> None:
  """Refuses a sampler that cannot run."""
  sample, length = settings.sample, settings.data.length
  sampler = sampler_of(sample, schedule_of(settings.method))
  if isinstance(sampler.strategy, Joint) and sample.temperature == 0:
    raise BadInput(
      "sample.noise: found 'low' at sample.temperature = 0; the joint draw wants a "
      'temperature above 0'
    )
  if sample.prompts:
    _check_prompts(settings)
    return  # Every prompt has its own length.
  if settings.evaluate.lm_eval:
    return
  if sample.max_new_tokens:
    raise BadInput(
      f'sample.max_new_tokens: found {sample.max_new_tokens} without sample.prompts or '
      'evaluate.lm_eval; wanted 0'
    )
  if not length:
    return  # It is checked when it is known.
  reported('sample', lambda: sampler.blocks(length))
  reported('sample', lambda: sampler.strategy.check_steps(sample.num_steps, length))


def _check_prompts(settings: Settings) -> None:
  """Refuses what goes with one prompt for all samples, and not with a file of them."""
  sample, default = settings.sample, SampleSettings()
  for name in ('prompt', 'label', 'trajectory'):
    value = getattr(sample, name)
    if value != getattr(default, name):
      raise BadInput(
        f'sample.{name}: found {value!r} with sample.prompts; wanted one of the two'
      )
  if settings.mode != 'sample':
    raise BadInput(
      f'sample.prompts: found {sample.prompts!r} with --mode={settings.mode}; wanted '
      'it with --mode=sample'
    )
