"""What a model is, as plain data: enough to rebuild it from its weights alone."""

import dataclasses
from typing import Any

INJECTIONS = ('none', 'embedding', 'mlp', 'table', 'gate')


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Sizes of the MDLM diffusion transformer (arXiv 2406.07524)."""

  vocab_size: int  # Columns of the output layer, the mask among them.
  length: int  # Longest sequence, in tokens.
  hidden_dim: int
  num_blocks: int
  num_heads: int
  cond_dim: int  # Width of the conditioning vector that drives adaLN.
  mlp_ratio: int = 4
  time_conditioning: bool = False  # False: the network sees sigma = 0 always.


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes of a Llama-family decoder."""

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


_LAYOUTS = {'mdlm': DiTConfig, 'llama': DecoderConfig}


def _check_sizes(architecture: DiTConfig | DecoderConfig) -> None:
  """Every size a whole number from 1; a file may say anything."""
  for field in dataclasses.fields(architecture):
    size = getattr(architecture, field.name)
    if field.type is int and not (type(size) is int and 0 < size < 2**31):
      raise ValueError(f'{field.name} is {size!r}; wanted a whole number from 1')
  if architecture.num_blocks > 10_000:
    raise ValueError(f'num_blocks is {architecture.num_blocks}; wanted up to 10000')
  groups = getattr(architecture, 'num_kv_heads', 1)
  if architecture.num_heads % groups:
    raise ValueError(
      f'num_kv_heads {groups} does not divide num_heads {architecture.num_heads}'
    )


@dataclasses.dataclass(frozen=True)
class ModelDescription:
  """An architecture, its vocabulary and how the previous prediction enters it."""

  architecture: DiTConfig | DecoderConfig
  mask_id: int | None  # None: not a masked diffusion model (a causal judge).
  tokenizer: str  # Name for `scmdm_jax.data.tokenizers.get_tokenizer`; '' if unknown.
  injection: str = 'none'  # One of INJECTIONS.

  def __post_init__(self):
    arch = self.architecture
    _check_sizes(arch)
    if self.injection not in INJECTIONS:
      raise ValueError(f'injection is {self.injection!r}; wanted one of {INJECTIONS}')
    if arch.hidden_dim % arch.num_heads:
      raise ValueError(
        f'hidden_dim {arch.hidden_dim} is not a multiple of num_heads {arch.num_heads}'
      )
    if (arch.hidden_dim // arch.num_heads) % 2:
      raise ValueError(
        f'rotary positions want an even head size; {arch.hidden_dim} / '
        f'{arch.num_heads} is odd'
      )
    if self.mask_id is not None and not 0 <= self.mask_id < arch.vocab_size:
      raise ValueError(
        f'mask_id {self.mask_id} lies outside the vocabulary of {arch.vocab_size}'
      )
    if self.injection != 'none' and self.mask_id is None:
      raise ValueError(f'injection {self.injection!r} needs a mask_id; it is None')

  @property
  def layout(self) -> str:
    """Name of the safetensors layout: 'mdlm' or 'llama'."""
    return next(k for k, v in _LAYOUTS.items() if isinstance(self.architecture, v))

  def to_dict(self) -> dict[str, Any]:
    """Plain JSON data; inverse of `from_dict`."""
    return {'layout': self.layout, **dataclasses.asdict(self)}

  @classmethod
  def from_dict(cls, data: dict[str, Any]) -> 'ModelDescription':
    """Inverse of `to_dict`.

    Raises:
      ValueError: unknown layout, or a field missing or unknown.
    """
    data = dict(data)
    layout = data.pop('layout', None)
    if layout not in _LAYOUTS:
      raise ValueError(f'layout is {layout!r}; wanted one of {tuple(_LAYOUTS)}')
    try:
      architecture = _LAYOUTS[layout](**data.pop('architecture'))
      return cls(architecture=architecture, **data)
    except (TypeError, KeyError) as e:
      raise ValueError(f'not a model description: {e}') from e
