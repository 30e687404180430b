"""Every option of the package: its default, what it may be, what it means.

`default_config` gives these as a locked `ConfigDict` for config files and flags;
`resolve.resolve` checks a `ConfigDict` and freezes it. Below the verbs nobody sees a
`ConfigDict`. `document` writes docs/options.md from these tables.
"""

import dataclasses

from ml_collections import ConfigDict

from scmdm_jax.domains import registry
from scmdm_jax.domains.options import DataSettings
from scmdm_jax.models import families
from scmdm_jax.settings.measure_options import (
  BenchmarkSettings,
  CompareSettings,
  EvaluateSettings,
  PlanSettings,
  ProfileSettings,
)
from scmdm_jax.settings.method_options import (
  MethodSettings,
  SampleSettings,
  TrainSettings,
)
from scmdm_jax.settings.rules import (
  above,
  at_least,
  axis,
  is_seed,
  one_of,
  option,
  plain,
)

MODES = (
  'train',
  'sample',
  'evaluate',
  'compare',
  'benchmark',
  'judge',
  'import',
  'export',
  'verify',
  'doctor',
  'plan',
)


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Sizes of the device mesh; their product is the number of devices."""

  data: int = axis(-1, 'Splits the examples; -1 is what the others leave.')
  fsdp: int = axis(1, 'Splits the examples and the parameters.')
  tensor: int = axis(1, 'Splits widths and vocabulary.')
  sequence: int = axis(1, 'Splits the positions of every example.')


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """A new model's sizes; unused when `checkpoint` names a model to start from."""

  architecture: str = option(
    'mdlm',
    f'one of {", ".join(families.trainable())}',
    lambda name: name in families.trainable(),
    (
      "'dream' is the masked form of 'llama': it reads position i off i - 1, "
      'and so knows the token before without having to learn where to look.'
    ),
  )
  hidden_dim: int = above(96, 0, 'Width of the residual stream.')
  num_blocks: int = above(3, 0, 'Layers.')
  num_heads: int = above(4, 0, 'Attention heads of a layer.')
  mlp_ratio: int = above(4, 0, 'Width of the MLP over hidden_dim.')
  cond_dim: int = above(32, 0, 'mdlm: width of the adaLN conditioning.')
  time_conditioning: bool = plain(False, 'mdlm: the noise level is an input (UDLM).')
  window: int = at_least(
    0,
    0,
    (
      'mdlm: above 0: a position attends to so many on either side and to the '
      'first one.'
    ),
  )
  block_length: int = at_least(
    0,
    0,
    (
      'Above 0: a position attends to its own block of so many and to earlier ones '
      '(BD3LM); data.length is a multiple. A checkpoint that sees both ways is trained '
      'to such blocks.'
    ),
  )
  embedding_dim: int = above(16, 0, 'conv: width of what is read of a token.')
  kernel_size: int = above(5, 0, 'conv: positions that a convolution sees.')


@dataclasses.dataclass(frozen=True)
class Settings:
  """The whole of a run, checked."""

  mode: str = one_of(
    'train', MODES, 'What is done; --mode on the command line goes before it.'
  )
  workdir: str = plain('', 'Where the run lives when --workdir is not given.')
  seed: int = option(
    0, 'a number from 0, below 2**32', is_seed, 'Of all that is random.'
  )
  checkpoint: str = plain(
    '', "The model to start from or to sample; '' trains a new one."
  )
  judge: str = plain(
    '', "A causal model for generative perplexity; '' leaves that out."
  )
  verify_below: int = at_least(
    2 << 30,
    0,
    (
      'Contents of checkpoints with fewer bytes are compared with their '
      'digests whenever they are read; 0: never. --mode=verify compares any '
      'size.'
    ),
  )
  compilation_cache: str = plain(
    '',
    (
      "Where compiled programs are kept for later runs: a directory, 'off', "
      "or '' for JAX_COMPILATION_CACHE_DIR or else ~/.cache/scmdm_jax/xla."
    ),
  )
  profile: ProfileSettings = dataclasses.field(default=ProfileSettings())
  mesh: MeshSettings = dataclasses.field(default=MeshSettings())
  # Of classes that have the options of every domain, too.
  data: DataSettings = dataclasses.field(
    default_factory=lambda: registry.data_settings()()
  )
  model: ModelSettings = dataclasses.field(default=ModelSettings())
  method: MethodSettings = dataclasses.field(default=MethodSettings())
  train: TrainSettings = dataclasses.field(default=TrainSettings())
  sample: SampleSettings = dataclasses.field(default=SampleSettings())
  evaluate: EvaluateSettings = dataclasses.field(
    default_factory=lambda: registry.with_own_evaluation(EvaluateSettings)()
  )
  compare: CompareSettings = dataclasses.field(default=CompareSettings())
  benchmark: BenchmarkSettings = dataclasses.field(default=BenchmarkSettings())
  plan: PlanSettings = dataclasses.field(default=PlanSettings())


def default_config() -> ConfigDict:
  """Returns all options at their defaults; locked, so a misspelt name is an error."""
  return ConfigDict(dataclasses.asdict(Settings())).lock()
