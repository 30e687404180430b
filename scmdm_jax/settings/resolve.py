"""A `ConfigDict` checked option by option, and the ones that depend on each other."""

import dataclasses
import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from scmdm_jax.diffusion.strategies import FirstHitting, Joint
from scmdm_jax.domains.genomes import tokenizer as species
from scmdm_jax.domains.images import tokenizer as pixels
from scmdm_jax.domains.images.rows import SHAPES
from scmdm_jax.errors import BadInput
from scmdm_jax.models import families
from scmdm_jax.settings.building import (
  grid_of_rows,
  loop_of,
  optimizer_of,
  reported,
  sampler_of,
  schedule_of,
)
from scmdm_jax.settings.options import (
  CHECKPOINT_TOKENIZER,
  DATASETS,
  SMILES_TOKENIZER,
  TRAINED_TOKENIZER,
  DataSettings,
  Settings,
)
from scmdm_jax.settings.rules import is_kind

_WITHOUT_CLASSES = ('molecules', 'text')


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
  built = {}
  for name, field in fields.items():
    if name not in values:
      continue
    built[name] = _check(field, values[name], f'{prefix}{name}')
  return cls(**built)


def _check(field: dataclasses.Field, value: Any, path: str) -> Any:
  """Returns `value` of `field` if it has the type and obeys the rule."""
  kind: Any = field.type
  if dataclasses.is_dataclass(field.type):
    return _build(kind, value, path)
  if kind is tuple and isinstance(value, list):
    value = tuple(value)
  if not is_kind(value, kind):
    raise BadInput(f'{path}: found {value!r}; wanted {kind.__name__}')
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
  _check_data(settings.data)
  _check_mauve(settings)
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
  if method.class_shown and DATASETS[settings.data.name] in _WITHOUT_CLASSES:
    raise BadInput(
      f'method.class_shown: found {method.class_shown:g} with data.name = '
      f'{settings.data.name!r}; wanted 0, or data with classes'
    )
  unsignalled = method.injection == 'none' and method.rate > 0
  if unsignalled and method.objective == 'masked':
    raise BadInput(
      f"method.rate: found {method.rate} with method.injection = 'none'; "
      'wanted rate 0, or an injection'
    )


def _check_data(data: DataSettings) -> None:
  """Refuses a tokenizer that is not one for the data, and rows of another length."""
  choice = data.tokenizer
  if not data.length and DATASETS[data.name] != 'molecules':
    raise BadInput(
      f'data.length: found 0 with data.name = {data.name!r}; wanted a number above 0, '
      'or molecules'
    )
  _check_genomes(data)
  if data.name in SHAPES:
    grid = grid_of_rows(data)
    if data.length != 1 + math.prod(grid):
      raise BadInput(
        f'data.length: found {data.length}; wanted {1 + math.prod(grid)}, a class and '
        f'{" x ".join(map(str, grid))} values'
      )
    if choice != CHECKPOINT_TOKENIZER and not pixels.is_name(choice):
      raise BadInput(
        f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted '
        "'pixels:LEVELS' with 2 to 256 levels, as in pixels:16, or with a number of "
        'classes other than 10 behind them, as in pixels:16:9'
      )
    return
  if data.side or data.flip:
    raise BadInput(
      f'data: found side {data.side}, flip {data.flip} with name = {data.name!r}; '
      f'wanted 0 and False, or images: {", ".join(SHAPES)}'
    )
  if pixels.is_name(choice):
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted it for '
      f'images only: {", ".join(SHAPES)}'
    )
  if DATASETS[data.name] == 'genomes':
    return
  molecules = DATASETS[data.name] == 'molecules'
  if choice == SMILES_TOKENIZER and not molecules:
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted it for '
      'molecules only'
    )
  if not molecules and choice == 'smiles_qm9':
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted one '
      "for text: 'sentencepiece:1024', 'checkpoint', or the path of a tokenizer"
    )
  if not choice.startswith(TRAINED_TOKENIZER):
    return
  size = choice.removeprefix(TRAINED_TOKENIZER)
  if molecules or not (size.isdecimal() and 300 <= int(size) <= 1_000_000):
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted text '
      'and a number of pieces from 300, as in sentencepiece:1024'
    )


def _check_mauve(settings: Settings) -> None:
  """Refuses MAUVE of what is not text, or without anybody to read it."""
  seeds, domain = settings.evaluate.mauve_seeds, DATASETS[settings.data.name]
  if seeds and (domain != 'text' or not settings.judge):
    raise BadInput(
      f'evaluate.mauve_seeds: found {seeds} with data.name = {settings.data.name!r} '
      f'and judge = {settings.judge!r}; wanted text and a judge that reads it, or 0'
    )


def _check_genomes(data: DataSettings) -> None:
  """Refuses bases without classes, and what only genomes have elsewhere."""
  genomes, choice = DATASETS[data.name] == 'genomes', data.tokenizer
  if genomes and not (choice == CHECKPOINT_TOKENIZER or species.is_name(choice)):
    raise BadInput(
      f'data.tokenizer: found {choice!r} with data.name = {data.name!r}; wanted '
      "'species:COUNT' with 2 to 1000 species, as in species:9"
    )
  if genomes and data.length < 2:
    raise BadInput(f'data.length: found {data.length}; wanted a class and bases')
  if not genomes and (
    data.chunk_limit or data.reverse_complement or species.is_name(choice)
  ):
    raise BadInput(
      f'data: found chunk_limit {data.chunk_limit}, reverse_complement '
      f'{data.reverse_complement}, tokenizer {choice!r} with data.name = '
      f'{data.name!r}; wanted 0, False and another tokenizer, or genomes'
    )


def _check_compare(settings: Settings) -> None:
  """Refuses what would make the arms differ in more than their rate."""
  compare, sample, method = settings.compare, settings.sample, settings.method
  if sample.num_steps not in compare.step_counts:
    raise BadInput(
      f'compare.step_counts: found {compare.step_counts}; wanted sample.num_steps = '
      f'{sample.num_steps} among them, where temperatures are swept'
    )
  for name in ('rates', 'seeds', 'step_counts', 'temperatures'):
    values = getattr(compare, name)
    if len(set(values)) < len(values):
      raise BadInput(f'compare.{name}: found {values}; wanted each only once')
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
  if not length:
    return  # It is checked when it is known.
  reported('sample', lambda: sampler.blocks(length))
  if isinstance(sampler.strategy, FirstHitting) and sample.num_steps < length:
    raise BadInput(
      f'sample.num_steps: found {sample.num_steps}; first_hitting writes one token per '
      f'step, wanted at least {length}'
    )
  if isinstance(sampler.strategy, Joint) and sample.temperature == 0:
    raise BadInput(
      "sample.noise: found 'low' at sample.temperature = 0; the joint draw wants a "
      'temperature above 0'
    )
