"""The domains by data set: the only place that knows molecules from texts.

What runs share asks a `Domain`; trainer, sampler, report and comparison know none.
"""

import dataclasses
import functools
import importlib
from collections.abc import Sequence
from typing import Any

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.domains.options import DataSettings, tokenizer_option
from scmdm_jax.domains.protocol import BuiltIn, Domain
from scmdm_jax.errors import BadInput
from scmdm_jax.settings.rules import one_of

# Folders here; the first gives `data.name` its default.
_FOLDERS = (
  'molecules',
  'text',
  'images',
  'genomes',
)
_domains: dict[str, Domain[Any]] = {}


def register(domain: Domain[Any]) -> None:
  """Makes a domain's data sets, options and tokenizers known.

  Raises:
    ValueError: another domain has a data set or an option of that name.
  """
  for other in _domains.values():
    sets = set(other.data_sets) & set(domain.data_sets)
    own = set(own_options(domain)) & set(own_options(other))
    if other.name == domain.name or sets or own:
      raise ValueError(
        f'domain {domain.name}: {other.name} has its name, a data set or an option of '
        f'that name ({", ".join(sorted(sets | own))}); wanted others'
      )
  _domains[domain.name] = domain
  data_settings.cache_clear()
  with_own_evaluation.cache_clear()


def domains() -> tuple[Domain[Any], ...]:
  """All of them."""
  return tuple(_domains.values())


def of(data: DataSettings) -> Domain[Any]:
  """The domain of a data set."""
  return next(d for d in domains() if data.name in d.data_sets)


def own_options(domain: Domain[Any]) -> dict[str, dataclasses.Field]:
  """The options that only this domain has, `data.NAME` and `evaluate.NAME`, by path."""
  general = {field.name for field in dataclasses.fields(DataSettings)}
  found = {
    f'data.{field.name}': field
    for field in dataclasses.fields(domain.settings)
    if field.name not in general
  }
  if domain.evaluation is not None:
    fields = dataclasses.fields(domain.evaluation)
    found |= {f'evaluate.{field.name}': field for field in fields}
  return found


@functools.cache
def data_settings() -> type[DataSettings]:
  """The data settings of a run: with the options of every domain."""
  names = tuple(name for d in domains() for name in d.data_sets)
  patterns = tokenizer_names()
  meaning = {f.name: f.metadata['meaning'] for f in dataclasses.fields(DataSettings)}
  defaults = [
    ('name', str, one_of(names[0], names, meaning['name'])),
    ('tokenizer', str, tokenizer_option(patterns[0], patterns)),
  ]
  own = dict.fromkeys(d.settings for d in domains() if d.settings is not DataSettings)
  return _joined(DataSettings, tuple(own), defaults)


@functools.cache
def with_own_evaluation(base: type) -> type:
  """The class `base` of evaluation settings with the options of every domain."""
  own = tuple(d.evaluation for d in domains() if d.evaluation is not None)
  return _joined(base, own)


def _joined(base: type, own: tuple[type, ...], fields: Sequence[Any] = ()) -> type:
  """`base` with the options of `own`, and `fields` of the same names in their place."""
  about = {'__doc__': base.__doc__}
  return dataclasses.make_dataclass(
    base.__name__, fields, bases=(*own, base), namespace=about, frozen=True
  )


def _built_in(name: str) -> BuiltIn | None:
  kinds = (kind for domain in domains() for kind in domain.tokenizers)
  return next((kind for kind in kinds if kind.make and kind.is_name(name)), None)


def is_built_in(name: str) -> bool:
  """Whether `get_tokenizer` knows it."""
  return _built_in(name) is not None


def tokenizer_names() -> list[str]:
  """The built-in tokenizers for messages, as in 'pixels:LEVELS'."""
  return [kind.pattern for domain in domains() for kind in domain.tokenizers]


def get_tokenizer(name: str) -> Tokenizer:
  """The built-in tokenizer of that name.

  Raises:
    BadInput: no such tokenizer.
  """
  kind = _built_in(name)
  if kind is None or kind.make is None:
    raise BadInput(
      f'tokenizer: {name!r} is not known; choose from {sorted(tokenizer_names())}'
    )
  return kind.make(name)


for _folder in _FOLDERS:
  register(importlib.import_module(f'scmdm_jax.domains.{_folder}.domain').DOMAIN)
