"""What a model is, as plain data: enough to rebuild it from its weights alone."""

import dataclasses
from typing import Any

from scmdm_jax.models.families import FAMILIES
from scmdm_jax.models.family import Family, Sizes
from scmdm_jax.models.injection import INJECTIONS
from scmdm_jax.models.lora import Adapter

NOISES = ('mask', 'uniform')
# Rows with the tokenizer's start before them and its end behind, rows of nothing but
# text, or unknown: neither is recorded. Prompts begin as rows do.
FRAMINGS = ('start_end', 'none', '')


@dataclasses.dataclass(frozen=True)
class ModelDescription:
  """A backbone's sizes, its vocabulary and how the previous prediction enters it."""

  architecture: Sizes
  mask_id: int | None  # None: not a diffusion model (a judge).
  # What `scmdm_jax.data.tokenizers` knows it by: a name, or the name of the file that
  # lies in the checkpoint's `tokenizer/`; '' if unknown.
  tokenizer: str
  injection: str = 'none'  # One of INJECTIONS.
  family: str = ''  # One of FAMILIES; '' is the first with such an architecture.
  noise: str = 'mask'  # One of NOISES: the forward process it was trained for.
  fingerprint: str = ''  # Of the tokenizer; '' if unknown.
  # Half-open ranges (start, stop) of ids that no token has (a padded vocabulary).
  undefined_ids: tuple[tuple[int, int], ...] = ()
  framing: str = ''  # One of FRAMINGS: how the rows it was trained on begin and end.
  adapter: Adapter | None = None  # Low-rank factors beside a frozen backbone, if any.

  def __post_init__(self):
    arch = self.architecture
    if not self.family:
      family = next((n for n, f in FAMILIES.items() if f.sizes is type(arch)), '')
      object.__setattr__(self, 'family', family)
    if self.family not in FAMILIES or self.record.sizes is not type(arch):
      raise ValueError(f'family is {self.family!r}, which has no {type(arch).__name__}')
    if self.injection not in INJECTIONS:
      raise ValueError(
        f'injection is {self.injection!r}; wanted one of {(*INJECTIONS,)}'
      )
    if self.noise not in NOISES:
      raise ValueError(f'noise is {self.noise!r}; wanted one of {NOISES}')
    if self.mask_id is not None and not 0 <= self.mask_id < arch.vocab_size:
      raise ValueError(
        f'mask_id {self.mask_id} lies outside the vocabulary of {arch.vocab_size}'
      )
    if self.injection != 'none' and self.mask_id is None:
      raise ValueError(f'injection {self.injection!r} needs a mask_id; it is None')
    if self.adapter is not None and self.record.is_classifier:
      raise ValueError('adapter: a classifier has none; wanted None')
    if self.framing not in FRAMINGS:
      raise ValueError(f'framing is {self.framing!r}; wanted one of {FRAMINGS}')
    ranges = tuple((int(start), int(stop)) for start, stop in self.undefined_ids)
    object.__setattr__(self, 'undefined_ids', ranges)
    for start, stop in ranges:
      if not 0 <= start < stop <= arch.vocab_size:
        raise ValueError(
          f'undefined_ids has [{start}, {stop}); wanted ranges inside the vocabulary '
          f'of {arch.vocab_size}'
        )

  @property
  def record(self) -> Family:
    """The record of its family."""
    return FAMILIES[self.family]

  @property
  def objective(self) -> str:
    """What it is trained for: 'masked', 'causal' or 'classify'."""
    if self.record.is_classifier:
      return 'classify'
    return 'causal' if self.mask_id is None else 'masked'

  @property
  def block_length(self) -> int:
    """Of its attention: every position sees its own block and earlier ones; 0: all."""
    return getattr(self.architecture, 'block_length', 0)

  @property
  def keeps_keys(self) -> bool:
    """Whether its keys and values can be kept from one evaluation to the next."""
    return hasattr(self.architecture, 'block_length') and not self.architecture.causal

  def with_vocabulary(self, size: int) -> 'ModelDescription':
    """Returns the same with so many tokens."""
    architecture: Any = self.architecture
    wider = dataclasses.replace(architecture, vocab_size=size)
    return dataclasses.replace(self, architecture=wider)

  def in_blocks(self, block_length: int) -> 'ModelDescription':
    """Returns the same with blocks of `block_length`; 0: with those that it has.

    Raises:
      ValueError: it has other blocks, or cannot have these.
    """
    if block_length in (0, self.block_length):
      return self
    if self.block_length or not self.keeps_keys:
      raise ValueError(
        f'block_length: found {block_length} with a {self.family} model whose own is '
        f'{self.block_length}; wanted 0'
      )
    architecture: Any = self.architecture
    blocks = dataclasses.replace(architecture, block_length=block_length)
    return dataclasses.replace(self, architecture=blocks)

  def to_dict(self) -> dict[str, Any]:
    """Plain JSON data; inverse of `from_dict`."""
    data = dataclasses.asdict(self)
    data['architecture'] = {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in data['architecture'].items()
    }
    data['undefined_ids'] = [list(r) for r in self.undefined_ids]
    if self.adapter is None:
      del data['adapter']
    # The family is called so in files.
    return {'layout' if n == 'family' else n: value for n, value in data.items()}

  @classmethod
  def from_dict(cls, data: dict[str, Any]) -> 'ModelDescription':
    """Inverse of `to_dict`.

    Raises:
      ValueError: unknown layout, or a field missing or unknown.
    """
    data = dict(data)
    family = data.pop('layout', None)
    if family not in FAMILIES:
      raise ValueError(f'layout is {family!r}; wanted one of {tuple(FAMILIES)}')
    try:
      architecture = FAMILIES[family].sizes(**data.pop('architecture'))
      if 'adapter' in data:
        data['adapter'] = Adapter(**data['adapter'])
      return cls(architecture=architecture, family=family, **data)
    except (TypeError, KeyError) as e:
      raise ValueError(f'not a model description: {e}') from e
