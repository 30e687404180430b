"""Every option of the package: its default, what it means, what it may be.

`default_config` gives these as a locked `ConfigDict` for config files and flags;
`resolve` checks a `ConfigDict` and freezes it. Below the mode files nobody sees a
`ConfigDict`.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from scmdm_jax.data.image_rows import SHAPES, grid_of
from scmdm_jax.data.tokenizers import pixels, species
from scmdm_jax.diffusion import strategies
from scmdm_jax.diffusion.draws import NOISES
from scmdm_jax.diffusion.estimates import is_estimate
from scmdm_jax.diffusion.readout import MEASURES
from scmdm_jax.diffusion.schedules import Cosine, LogLinear, Polynomial, Schedule
from scmdm_jax.errors import BadInput
from scmdm_jax.models.description import (
  INJECTIONS,
  ConvConfig,
  DecoderConfig,
  DiTConfig,
  ModelDescription,
)
from scmdm_jax.models.execution import REMATS
from scmdm_jax.recipes import is_recipe
from scmdm_jax.training.loop import LoopConfig
from scmdm_jax.training.step import OptimizerConfig

# As data.tokenizer: the checkpoint's own, or one made of the training texts.
CHECKPOINT_TOKENIZER = 'checkpoint'
TRAINED_TOKENIZER = 'sentencepiece:'

# Data set -> the domain that reads and judges it (modes/domains).
DATASETS = {
  'qm9': 'molecules',
  'text': 'text',
  'openwebtext': 'text',
  'lm1b': 'text',
  'text8': 'text',
  'wikitext': 'text',
  'ptb': 'text',
  'lambada': 'text',
  'ag_news': 'text',
  'pubmed': 'text',
  'arxiv': 'text',
  **dict.fromkeys(SHAPES, 'images'),
  'genomes': 'genomes',
  'ten_species': 'genomes',
}

_WITHOUT_CLASSES = ('molecules', 'text')

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
  'plan',
)


def _option(default: Any, wanted: str, check: Callable[[Any], bool]) -> Any:
  """A field with a rule; `wanted` completes the sentence "wanted ..."."""
  return dataclasses.field(default=default, metadata={'rule': (wanted, check)})


def _above(default: Any, low: float) -> Any:
  return _option(default, f'a number above {low:g}', lambda x: x > low)


def _at_least(default: Any, low: float) -> Any:
  return _option(default, f'a number of at least {low:g}', lambda x: x >= low)


def _within(default: float, low: float, high: float) -> Any:
  return _option(
    default, f'a number from {low:g} to {high:g}', lambda x: low <= x <= high
  )


def _one_of(default: str, choices: tuple[str, ...]) -> Any:
  return _option(default, f'one of {", ".join(choices)}', lambda x: x in choices)


def _seed(value: Any) -> bool:
  """Whether JAX keeps seeds apart: it drops all but the lowest 32 bits."""
  return 0 <= value < 2**32


def _each(default: tuple, kind: type, wanted: str, check: Callable[[Any], bool]) -> Any:
  """A tuple of one or more different entries, every one of `kind` and by the rule."""
  return _option(
    default,
    f'a tuple of different {wanted}',
    lambda xs: (
      0 < len(xs) == len(set(xs)) and all(_is(x, kind) and check(x) for x in xs)
    ),
  )


def _is(value: Any, kind: type) -> bool:
  """Whether `value` is of `kind`; a truth value is no number, an int is a float."""
  if isinstance(value, bool):
    return kind is bool
  return isinstance(value, kind) or (kind is float and isinstance(value, int))


def _axis(default: int) -> Any:
  return _option(default, 'a whole number above 0, or -1', lambda x: x > 0 or x == -1)


# What the products of a network are computed in; parameters are kept, and losses,
# softmaxes, norms and averages computed, in float32.
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Sizes of the device mesh; their product is the number of devices."""

  data: int = _axis(-1)  # Splits the examples; -1 is what the others leave.
  fsdp: int = _axis(1)  # Splits the examples and the parameters.
  tensor: int = _axis(1)  # Splits widths and vocabulary.
  sequence: int = _axis(1)  # Splits the positions of every example.


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where it lies."""

  # 'text': documents of one's own; behind it published sets, from files downloaded
  # elsewhere (data/datasets/text says which).
  name: str = _one_of('qm9', tuple(DATASETS))
  directory: str = ''  # Prepared data; '' is ~/.cache/scmdm_jax.
  # QM9: a CSV or parquet file instead of the qm9pack package. Text: a file or a folder
  # (.txt .md .rst .html .jsonl .parquet); a document is a file, a line or a row.
  # Images: the folder of the published files (data/datasets/images says which).
  # Genomes: a folder with a folder or a FASTA file per species, or parquet files.
  source: str = ''
  # smiles_qm9, dna or text8; for images pixels:16, that many levels of a value, of 2 to
  # 256 (as published), and 10 classes, or pixels:16:9 (emoji); for genomes species:9,
  # that many classes; the path of a tokenizer, a file or a directory;
  # 'checkpoint': the one that the checkpoint brings along; or 'sentencepiece:1024':
  # that many pieces, learnt from the training texts.
  tokenizer: str = _option('smiles_qm9', 'a name or a path', lambda x: x != '')
  length: int = _at_least(32, 1)  # Tokens per example, padding included.
  frame: bool = True  # Packed text: rows begin with bos and end with eos, as MDLM's.
  # Images: height and width, averaged down to; 0: as they are.
  side: int = _at_least(0, 0)
  flip: bool = False  # Images: every epoch has each training image mirrored, too.
  # Genomes: most stretches of a species, drawn once, of both splits; 0: all.
  chunk_limit: int = _at_least(0, 0)
  # Genomes: every epoch has each training stretch on its other strand, too.
  reverse_complement: bool = False


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """A new model's sizes; unused when `checkpoint` names a model to start from."""

  # 'dream' is the masked kin of 'llama': it reads position i off i - 1, and so knows
  # the token before without having to learn where to look.
  architecture: str = _one_of('mdlm', ('mdlm', 'dream', 'llama', 'conv'))
  hidden_dim: int = _above(96, 0)
  num_blocks: int = _above(3, 0)
  num_heads: int = _above(4, 0)
  mlp_ratio: int = _above(4, 0)  # Width of the MLP over hidden_dim.
  cond_dim: int = _above(32, 0)  # mdlm: width of the adaLN conditioning.
  time_conditioning: bool = False  # mdlm: the noise level is an input (UDLM).
  # mdlm: above 0: a position attends to so many on either side and to the first one.
  window: int = _at_least(0, 0)
  embedding_dim: int = _above(16, 0)  # conv: width of what is read of a token.
  kernel_size: int = _above(5, 0)  # conv: positions that a convolution sees.


# Objective -> architectures of a new model.
_ARCHITECTURES_OF = {
  'masked': ('mdlm', 'dream'),
  'causal': ('llama',),
  'classify': ('conv',),
}


@dataclasses.dataclass(frozen=True)
class MethodSettings:
  """The objective, its masking schedule and self-conditioning."""

  # 'causal' and 'classify' make judges, of the architectures 'llama' and 'conv'; a
  # classifier learns which class token began a row.
  objective: str = _one_of('masked', tuple(_ARCHITECTURES_OF))
  schedule: str = _one_of('log_linear', ('log_linear', 'cosine', 'polynomial'))
  eps: float = _option(1e-3, 'a number from 0, below 1', lambda x: 0 <= x < 1)
  power: float = _above(2.0, 0)  # Of the polynomial schedule.
  injection: str = _one_of('embedding', INJECTIONS)
  rate: float = _within(1.0, 0, 1)  # lambda: share of conditioned examples (train).
  # How the prediction that conditions them is made; see diffusion/estimates.
  estimate: str = _option(
    'same_t',
    'same_t, unrolled:passes=3, or earlier_t:low=0.01,high=0.2,passes=1',
    is_estimate,
  )
  # Share of examples whose first token, a class, is shown at every time, as samplers
  # show it; it is masked like any other in the rest, which guidance needs. For data
  # with classes; 0.9 leaves out the class as often as published recipes drop it.
  class_shown: float = _within(0.0, 0, 0.99)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """One training run: AdamW, warm-up, cosine decay, parameter average."""

  num_steps: int = _above(1000, 0)
  batch_size: int = _above(64, 0)  # Examples per step.
  accumulate: int = _above(1, 0)  # Micro-batches per step; divides batch_size.
  learning_rate: float = _above(1e-3, 0)  # At the end of the warm-up.
  # Times learning_rate for the self-conditioning parameters, which start from zero
  # while the backbone is already good. Ours; the paper's optimizer is not published.
  injection_rate_factor: float = _above(1.0, 0)
  final_learning_rate: float = _at_least(0.0, 0)  # Where the cosine ends.
  warmup_steps: int = _at_least(100, 0)
  weight_decay: float = _at_least(0.0, 0)
  clip: float = _above(1.0, 0)  # Largest gradient norm.
  ema_decay: float = _option(0.999, 'a number from 0, below 1', lambda x: 0 <= x < 1)
  save_every: int = _above(500, 0)  # Steps between checkpoints.
  keep: int = _above(2, 0)  # Checkpoints kept.
  log_every: int = _above(50, 0)  # Steps between lines of metrics.jsonl.
  dtype: str = _one_of('float32', DTYPES)  # See DTYPES.
  # What backward computes anew instead of keeping it: nothing, all but the products
  # with weights, everything inside a block.
  remat: str = _one_of('none', REMATS)


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """How samples are drawn."""

  num_samples: int = _above(1024, 0)
  batch_size: int = _above(64, 0)
  num_steps: int = _above(32, 0)  # T: denoiser evaluations per batch, at most.
  # NAME or NAME:field=value,... as in remdm:rule=conf,eta=0.1. Names are the keys of
  # STRATEGIES below; their fields and sources are in diffusion/strategies.py.
  strategy: str = 'ancestral'
  # At 1e6 all tokens are equally likely; far above, even those that are banned.
  temperature: float = _within(1.0, 0, 1e6)
  top_p: float = _option(1.0, 'a number above 0, at most 1', lambda x: 0 < x <= 1)
  # 'low' draws token and mask jointly in plain float32, as MDLM and MD4 do, which loses
  # rare tokens; 'float64' is slow. Published figures depend on it; see diffusion/draws.
  noise: str = _one_of('high', NOISES)
  # Above 0: blocks of so many positions, finished from left to right in equal steps.
  block_length: int = _at_least(0, 0)
  # Above 0: how much more the prompt or class counts; a second evaluation per step.
  guidance: float = _within(0.0, 0, 1e6)
  shared_signal: bool = False  # Guidance: both evaluations see the guided prediction.
  keep_signal: bool = True  # A position that is masked again keeps its prediction.
  dtype: str = _one_of('float32', DTYPES)  # Also of the parameters; see DTYPES.
  self_conditioning: bool = True  # False: the vanilla sampler on the same weights.
  # Infilling: a text whose `_` are to be written; what follows it, too, unless it
  # ends with `$`. With tokens that are pieces of words: `<mask>` or `<mask:12>`, and
  # `<end>`.
  prompt: str = ''
  # The class of every sample, where the data have classes; -1: each in turn.
  label: int = _at_least(-1, -1)
  trajectory: bool = False  # Also write the tokens after every step.


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
  """What is measured on a model."""

  num_examples: int = _above(1024, 0)  # Held-out examples for the likelihood.
  batch_size: int = _above(64, 0)
  repeats: int = _above(4, 0)  # Times and masks drawn per example for the NELBO.
  judge_length: int = _above(1024, 0)  # --mode=judge: most tokens it reads at once.
  # Above 0: MAUVE of samples of text with the judge's features, over so many starts of
  # k-means, against as many held-out rows.
  mauve_seeds: int = _at_least(0, 0)
  # Genomes: epochs of a network trained to tell every set of samples from real
  # stretches, as published 5; 0: none.
  discriminator_epochs: int = _at_least(5, 0)
  # Text: bits of samples under an n-gram model of this order, and the share of words
  # that are known, both by so many tokens of the training text; 0: neither.
  ngram_order: int = _at_least(0, 0)
  ngram_tokens: int = _above(6_000_000, 0)
  carried_steps: tuple = _each((32,), int, 'whole numbers above 0', lambda x: x > 0)


@dataclasses.dataclass(frozen=True)
class CompareSettings:
  """The paper's experiment: arms adapted from one base, equal in everything else."""

  rates: tuple = _each(
    (0.5, 1.0), float, 'rates above 0, up to 1', lambda x: 0 < x <= 1
  )
  seeds: tuple = _each((0, 1, 2), int, 'whole numbers from 0, below 2**32', _seed)
  step_counts: tuple = _each((32,), int, 'whole numbers above 0', lambda x: x > 0)
  temperatures: tuple = _each(
    (1.0,), float, 'numbers from 0 to 1e6', lambda x: 0 <= x <= 1e6
  )
  benchmark_pairs: int = _at_least(7, 0)  # Interleaved timings per ratio; 0: none.
  equal_steps: bool = True  # Also a control of as many steps as the rates have.
  # Further arms, at the FLOPs of the control: an estimate (`method.estimate`), with
  # rate and injection where they are not 1 and the run's, as in
  # unrolled:passes=3,rate=0.9 or same_t:injection=table.
  recipes: tuple = _option(
    (),
    'a tuple of different recipes, such as unrolled:passes=3,rate=0.9',
    lambda xs: len(xs) == len(set(xs)) and all(is_recipe(x) for x in xs),
  )


def _sizes(*default: int) -> Any:
  """A tuple of any number of different sizes."""
  return _option(
    default,
    'a tuple of different whole numbers above 0',
    lambda xs: len(xs) == len(set(xs)) and all(_is(x, int) and x > 0 for x in xs),
  )


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
  """What is timed: sample.batch_size, sample.num_steps, data.length are the sizes."""

  vocab_size: int = _above(50258, 1)  # Of the random model that no checkpoint gives.
  rounds: int = _above(7, 0)  # Times everything runs, in turn.
  train: bool = True  # Whether to time the training step.
  torch: bool = True  # Whether to time PyTorch, too, where it is installed.
  strategies: tuple = _option(
    (), 'a tuple of strategies', lambda xs: all(_is(x, str) for x in xs)
  )
  # Batch and length whose compiled samplers' temporaries are told, of a random model
  # that is none of images; (0, 0): none.
  memory_shape: tuple = _option(
    (8, 1024),
    'a batch size and a length',
    lambda xs: len(xs) == 2 and all(_is(x, int) and x >= 0 for x in xs),
  )
  # Sweeps along one size each, the others staying; fewer than two entries: none.
  batch_sizes: tuple = _sizes()
  step_counts: tuple = _sizes()
  lengths: tuple = _sizes()
  vocab_sizes: tuple = _sizes()


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What is compiled for which devices, and how its cost is reckoned."""

  job: str = _one_of('train', ('train', 'sample'))
  topology: str = ''  # A TPU slice, such as v5p:4x4x4; '': the devices of this machine.
  # The config.json of a safetensors checkpoint, without its weights; '': `checkpoint`,
  # or the new model of `model`.
  model: str = ''
  hbm_gib: float = _at_least(0.0, 0)  # Memory of a device; 0: that of its kind.
  tries: int = _at_least(3, 0)  # Compilations to find a change that fits.
  mfu: float = _within(0.4, 0.01, 1)  # Share of the chip's speed that is reached.
  tokens: float = _above(3.25e9, 0)  # Of the whole job; the paper's adaptation.
  price_per_hour: float = _at_least(0.0, 0)  # Of one device; 0: not told.


def _steps(text: str) -> tuple[int, int] | None:
  """First and last of FIRST:LAST; None if it is something else."""
  match = re.fullmatch(r'([1-9]\d*):([1-9]\d*)', text)
  if match is None or int(match[1]) > int(match[2]):
    return None
  return int(match[1]), int(match[2])


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
  """What is traced for xprof, into `profile/` in the workdir."""

  # Training steps, both included; '' traces none.
  steps: str = _option(
    '', "'' or FIRST:LAST, such as 5:8", lambda x: not x or _steps(x) is not None
  )

  @property
  def window(self) -> tuple[int, int] | None:
    """First and last step, if any."""
    return _steps(self.steps)


@dataclasses.dataclass(frozen=True)
class Settings:
  """The whole of a run, checked."""

  mode: str = _one_of('train', MODES)
  workdir: str = ''  # Where the run lives when --workdir is not given.
  seed: int = _option(0, 'a number from 0, below 2**32', _seed)
  checkpoint: str = ''  # The model to start from or to sample; '' trains a new one.
  judge: str = ''  # A causal model for generative perplexity; '' leaves that out.
  # Contents of checkpoints with fewer bytes are compared with their digests whenever
  # they are read; 0: never. --mode=verify compares any size.
  verify_below: int = _at_least(2 << 30, 0)
  # Where compiled programs are kept for later runs: a directory, 'off', or '' for
  # JAX_COMPILATION_CACHE_DIR or else ~/.cache/scmdm_jax/xla.
  compilation_cache: str = ''
  profile: ProfileSettings = ProfileSettings()
  mesh: MeshSettings = MeshSettings()
  data: DataSettings = DataSettings()
  model: ModelSettings = ModelSettings()
  method: MethodSettings = MethodSettings()
  train: TrainSettings = TrainSettings()
  sample: SampleSettings = SampleSettings()
  evaluate: EvaluateSettings = EvaluateSettings()
  compare: CompareSettings = CompareSettings()
  benchmark: BenchmarkSettings = BenchmarkSettings()
  plan: PlanSettings = PlanSettings()


def default_config() -> ConfigDict:
  """All options at their defaults; locked, so a misspelt name is an error."""
  return ConfigDict(dataclasses.asdict(Settings())).lock()


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
  """`value` of `field`, if it has the type and obeys the rule."""
  kind: Any = field.type
  if dataclasses.is_dataclass(field.type):
    return _build(kind, value, path)
  if kind is tuple and isinstance(value, list):
    value = tuple(value)
  if not _is(value, kind):
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
  train = settings.train
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
  objective = settings.method.objective
  fitting = _ARCHITECTURES_OF[objective]
  if not settings.checkpoint and settings.model.architecture not in fitting:
    raise BadInput(
      f'method.objective: found {objective!r} with model.architecture = '
      f'{settings.model.architecture!r}; wanted {" or ".join(fitting)} with it'
    )
  if objective == 'classify' and settings.mode in ('plan', 'benchmark'):
    raise BadInput(
      f'method.objective: found {objective!r} with --mode={settings.mode}, which is of '
      "diffusion models; wanted 'masked'"
    )
  _check_data(settings.data)
  _check_mauve(settings)
  _check_sample(settings)
  for name in settings.benchmark.strategies:
    sample = dataclasses.replace(settings.sample, strategy=name)
    _check_sample(dataclasses.replace(settings, sample=sample))
  window = settings.profile.window
  if window and (settings.mode != 'train' or window[1] > train.num_steps):
    raise BadInput(
      f'profile.steps: found {settings.profile.steps!r}; wanted steps up to '
      f'train.num_steps = {train.num_steps}, with --mode=train'
    )
  if settings.mode == 'compare':
    _check_compare(settings)
  if settings.method.class_shown and DATASETS[settings.data.name] in _WITHOUT_CLASSES:
    raise BadInput(
      f'method.class_shown: found {settings.method.class_shown:g} with data.name = '
      f'{settings.data.name!r}; wanted 0, or data with classes'
    )
  unsignalled = settings.method.injection == 'none' and settings.method.rate > 0
  if unsignalled and objective == 'masked':
    raise BadInput(
      f"method.rate: found {settings.method.rate} with method.injection = 'none'; "
      'wanted rate 0, or an injection'
    )
  return settings


def grid_of_rows(data: DataSettings) -> tuple[int, ...]:
  """Channels, height and width of the image in a row; () where there is none."""
  return grid_of(data.name, data.side) if data.name in SHAPES else ()


def _check_data(data: DataSettings) -> None:
  """Refuses a tokenizer that is not one for the data, and rows of another length."""
  choice = data.tokenizer
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
  molecules = data.name == 'qm9'
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


def _check_sample(settings: Settings) -> None:
  """Refuses a sampler that cannot run."""
  sample, length = settings.sample, settings.data.length
  strategy = strategy_of(sample)
  block = sample.block_length or length
  if length % block or sample.num_steps % (length // block):
    raise BadInput(
      f'sample.block_length: found {block} with data.length = {length} and '
      f'sample.num_steps = {sample.num_steps}; wanted a divisor of the length whose '
      'number of blocks divides the steps'
    )
  steps = sample.num_steps // (length // block)
  if isinstance(strategy, strategies.FirstHitting) and steps < block:
    raise BadInput(
      f'sample.num_steps: found {sample.num_steps}; first_hitting writes one token per '
      f'step, wanted at least {length}'
    )
  if isinstance(strategy, strategies.Joint) and sample.temperature == 0:
    raise BadInput(
      "sample.noise: found 'low' at sample.temperature = 0; the joint draw wants a "
      'temperature above 0'
    )


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
