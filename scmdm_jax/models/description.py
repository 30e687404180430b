"""What a model is, as plain data: enough to rebuild it from its weights alone."""

import dataclasses
import math
from typing import Any

INJECTIONS = ('none', 'embedding', 'mlp', 'table', 'gate')
NOISES = ('mask', 'uniform')
# Rows with the tokenizer's start before them and its end behind, rows of nothing but
# text, or unknown: neither is said of it. Prompts begin as rows do.
FRAMINGS = ('start_end', 'none', '')


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Sizes of the diffusion transformer of MDLM (arXiv 2406.07524) and UDLM."""

  vocab_size: int  # Columns of the output layer, the mask among them.
  length: int  # Longest sequence, in tokens.
  hidden_dim: int
  num_blocks: int
  num_heads: int
  cond_dim: int  # Width of the conditioning vector that drives adaLN.
  mlp_ratio: int = 4
  time_conditioning: bool = False  # False: the network sees sigma = 0 always.
  num_classes: int = 0  # Above 0: a class is an input; class `num_classes` is "none".
  # Channels, height and width of what stands behind the first token, in this order: its
  # positions are those of an image. (): positions are those of a text.
  grid: tuple[int, ...] = ()
  # Above 0: a position attends to so many on either side, and to the first one, which
  # attends to all (see `attention.attend`); 0: all to all.
  window: int = 0

  def __post_init__(self):
    object.__setattr__(self, 'grid', tuple(self.grid))

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: never."""
    return False


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes of a Llama-family decoder: Llama, Qwen2, LLaDA, Dream."""

  vocab_size: int
  length: int
  hidden_dim: int
  num_blocks: int
  num_heads: int
  num_kv_heads: int
  mlp_dim: int
  rope_theta: float = 10000.0
  norm_eps: float = 1e-5
  causal: bool = True
  qkv_bias: bool = False  # Qwen2 and Dream.
  tied: bool = False  # The embedding table is the vocabulary product, too.
  shifted: bool = False  # Dream: position i is read off the hidden state of i - 1.


@dataclasses.dataclass(frozen=True)
class GPT2Config:
  """Sizes of GPT-2: causal, learned positions, tied embeddings."""

  vocab_size: int
  length: int
  hidden_dim: int
  num_blocks: int
  num_heads: int
  mlp_dim: int
  norm_eps: float = 1e-5

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: always."""
    return True


@dataclasses.dataclass(frozen=True)
class ConvConfig:
  """Sizes of a convolutional classifier of rows that begin with their class."""

  vocab_size: int
  length: int  # Tokens of a row, its class among them.
  hidden_dim: int  # Features.
  num_blocks: int  # Stages, each of which halves the positions.
  embedding_dim: int
  kernel_size: int
  first_class: int  # Id of class 0; the ids of the others follow.
  num_classes: int
  # Channels, height and width of what follows the class; (): it is a sequence.
  grid: tuple[int, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'grid', tuple(self.grid))

  @property
  def causal(self) -> bool:
    """Whether a position sees only what stands before it: never."""
    return False


Architecture = DiTConfig | DecoderConfig | GPT2Config | ConvConfig

# Layout (names of the tensors in safetensors files) and the architecture it stores.
LAYOUTS: dict[str, type] = {
  'mdlm': DiTConfig,
  'llama': DecoderConfig,
  'qwen2': DecoderConfig,
  'dream': DecoderConfig,
  'llada': DecoderConfig,
  'gpt2': GPT2Config,
  'conv': ConvConfig,
}


def _check_sizes(architecture: Architecture) -> None:
  """Every size a whole number from 1; a file may say anything."""
  for field in dataclasses.fields(architecture):
    size = getattr(architecture, field.name)
    low = 0 if field.name in ('num_classes', 'first_class', 'window') else 1
    if field.type is int and not (type(size) is int and low <= size < 2**31):
      raise ValueError(f'{field.name} is {size!r}; wanted a whole number from {low}')
  if architecture.num_blocks > 10_000:
    raise ValueError(f'num_blocks is {architecture.num_blocks}; wanted up to 10000')
  if isinstance(architecture, ConvConfig):
    _check_classes(architecture)
    return
  groups = getattr(architecture, 'num_kv_heads', 1)
  if architecture.num_heads % groups:
    raise ValueError(
      f'num_kv_heads {groups} does not divide num_heads {architecture.num_heads}'
    )
  if architecture.hidden_dim % architecture.num_heads:
    raise ValueError(
      f'hidden_dim {architecture.hidden_dim} is not a multiple of num_heads '
      f'{architecture.num_heads}'
    )
  rotary = not isinstance(architecture, GPT2Config)
  if rotary and (architecture.hidden_dim // architecture.num_heads) % 2:
    raise ValueError(
      f'rotary positions want an even head size; {architecture.hidden_dim} / '
      f'{architecture.num_heads} is odd'
    )


def _check_classes(architecture: ConvConfig) -> None:
  """Classes inside the vocabulary."""
  last = architecture.first_class + architecture.num_classes
  if architecture.num_classes < 2 or last > architecture.vocab_size:
    raise ValueError(
      f'classes have ids {architecture.first_class} to {last - 1}; wanted at least '
      f'two, inside the vocabulary of {architecture.vocab_size}'
    )


def _check_grid(architecture: DiTConfig | ConvConfig) -> None:
  """Three sizes that fill the length, and a head that can turn with each."""
  grid, length = architecture.grid, architecture.length
  if not grid:
    return
  sizes = all(type(size) is int and size > 0 for size in grid)
  if len(grid) != 3 or not sizes or 1 + math.prod(grid) != length:
    raise ValueError(
      f'grid is {grid}; wanted channels, height and width, whose product is one less '
      f'than the length, {length}'
    )
  if isinstance(architecture, ConvConfig):
    return
  if architecture.hidden_dim // architecture.num_heads < 8:
    raise ValueError(
      f'grid is {grid}, and hidden_dim {architecture.hidden_dim} over num_heads '
      f'{architecture.num_heads} is below 8; wanted wider heads, which turn by three '
      'coordinates'
    )


@dataclasses.dataclass(frozen=True)
class ModelDescription:
  """An architecture, its vocabulary and how the previous prediction enters it."""

  architecture: Architecture
  mask_id: int | None  # None: not a diffusion model (a judge).
  # What `scmdm_jax.data.tokenizers` knows it by: a name, or the name of the file that
  # lies in the checkpoint's `tokenizer/`; '' if unknown.
  tokenizer: str
  injection: str = 'none'  # One of INJECTIONS.
  layout: str = ''  # One of LAYOUTS; '' is the first that stores the architecture.
  noise: str = 'mask'  # One of NOISES: the forward process it was trained for.
  fingerprint: str = ''  # Of the tokenizer; '' if unknown.
  # Half-open ranges (start, stop) of ids that no token has (a padded vocabulary).
  undefined_ids: tuple[tuple[int, int], ...] = ()
  framing: str = ''  # One of FRAMINGS: how the rows it was trained on begin and end.

  def __post_init__(self):
    arch = self.architecture
    _check_sizes(arch)
    if isinstance(arch, DiTConfig | ConvConfig):
      _check_grid(arch)
    if not self.layout:
      layout = next(k for k, v in LAYOUTS.items() if type(arch) is v)
      object.__setattr__(self, 'layout', layout)
    if LAYOUTS.get(self.layout) is not type(arch):
      raise ValueError(
        f'layout is {self.layout!r}, which does not store a {type(arch).__name__}'
      )
    if self.injection not in INJECTIONS:
      raise ValueError(f'injection is {self.injection!r}; wanted one of {INJECTIONS}')
    if self.noise not in NOISES:
      raise ValueError(f'noise is {self.noise!r}; wanted one of {NOISES}')
    if self.mask_id is not None and not 0 <= self.mask_id < arch.vocab_size:
      raise ValueError(
        f'mask_id {self.mask_id} lies outside the vocabulary of {arch.vocab_size}'
      )
    if self.injection != 'none' and self.mask_id is None:
      raise ValueError(f'injection {self.injection!r} needs a mask_id; it is None')
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
  def objective(self) -> str:
    """What it is trained for: 'masked', 'causal' or 'classify'."""
    if isinstance(self.architecture, ConvConfig):
      return 'classify'
    return 'causal' if self.mask_id is None else 'masked'

  def to_dict(self) -> dict[str, Any]:
    """Plain JSON data; inverse of `from_dict`."""
    data = dataclasses.asdict(self)
    data['architecture'] = {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in data['architecture'].items()
    }
    return data | {'undefined_ids': [list(r) for r in self.undefined_ids]}

  @classmethod
  def from_dict(cls, data: dict[str, Any]) -> 'ModelDescription':
    """Inverse of `to_dict`.

    Raises:
      ValueError: unknown layout, or a field missing or unknown.
    """
    data = dict(data)
    layout = data.get('layout')
    if layout not in LAYOUTS:
      raise ValueError(f'layout is {layout!r}; wanted one of {tuple(LAYOUTS)}')
    try:
      architecture = LAYOUTS[layout](**data.pop('architecture'))
      return cls(architecture=architecture, **data)
    except (TypeError, KeyError) as e:
      raise ValueError(f'not a model description: {e}') from e
