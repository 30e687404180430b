"""Every option of the package: its default, what it means, what it may be.

`default_config` gives these as a locked `ConfigDict` for config files and flags;
`resolve.resolve` checks a `ConfigDict` and freezes it. Below the verbs nobody sees a
`ConfigDict`.
"""

import dataclasses

from ml_collections import ConfigDict

from scmdm_jax.diffusion.draws import NOISES
from scmdm_jax.domains.images.rows import SHAPES
from scmdm_jax.models.description import INJECTIONS
from scmdm_jax.models.execution import REMATS
from scmdm_jax.settings.rules import (
  above,
  at_least,
  axis,
  each,
  is_kind,
  is_seed,
  one_of,
  option,
  sizes,
  steps_of,
  within,
)

# As data.tokenizer: the checkpoint's own, or one made of the training texts.
CHECKPOINT_TOKENIZER = 'checkpoint'
TRAINED_TOKENIZER = 'sentencepiece:'

# Data set -> the domain that reads and judges it (domains).
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


# What the products of a network are computed in; parameters are kept, and losses,
# softmaxes, norms and averages computed, in float32.
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Sizes of the device mesh; their product is the number of devices."""

  data: int = axis(-1)  # Splits the examples; -1 is what the others leave.
  fsdp: int = axis(1)  # Splits the examples and the parameters.
  tensor: int = axis(1)  # Splits widths and vocabulary.
  sequence: int = axis(1)  # Splits the positions of every example.


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which data set, and where it lies."""

  # 'text': documents of one's own; behind it published sets, from files downloaded
  # elsewhere (domains/text/builder says which).
  name: str = one_of('qm9', tuple(DATASETS))
  directory: str = ''  # Prepared data; '' is ~/.cache/scmdm_jax.
  # QM9: a CSV or parquet file instead of the qm9pack package. Text: a file or a folder
  # (.txt .md .rst .html .jsonl .parquet); a document is a file, a line or a row.
  # Images: the folder of the published files (domains/images/builder says which).
  # Genomes: a folder with a folder or a FASTA file per species, or parquet files.
  source: str = ''
  # smiles_qm9, dna or text8; for images pixels:16, that many levels of a value, of 2 to
  # 256 (as published), and 10 classes, or pixels:16:9 (emoji); for genomes species:9,
  # that many classes; the path of a tokenizer, a file or a directory;
  # 'checkpoint': the one that the checkpoint brings along; or 'sentencepiece:1024':
  # that many pieces, learnt from the training texts.
  tokenizer: str = option('smiles_qm9', 'a name or a path', lambda x: x != '')
  length: int = at_least(32, 1)  # Tokens per example, padding included.
  frame: bool = True  # Packed text: rows begin with bos and end with eos, as MDLM's.
  # Images: height and width, averaged down to; 0: as they are.
  side: int = at_least(0, 0)
  flip: bool = False  # Images: every epoch has each training image mirrored, too.
  # Genomes: most stretches of a species, drawn once, of both splits; 0: all.
  chunk_limit: int = at_least(0, 0)
  # Genomes: every epoch has each training stretch on its other strand, too.
  reverse_complement: bool = False


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """A new model's sizes; unused when `checkpoint` names a model to start from."""

  # 'dream' is the masked kin of 'llama': it reads position i off i - 1, and so knows
  # the token before without having to learn where to look.
  architecture: str = one_of('mdlm', ('mdlm', 'dream', 'llama', 'conv'))
  hidden_dim: int = above(96, 0)
  num_blocks: int = above(3, 0)
  num_heads: int = above(4, 0)
  mlp_ratio: int = above(4, 0)  # Width of the MLP over hidden_dim.
  cond_dim: int = above(32, 0)  # mdlm: width of the adaLN conditioning.
  time_conditioning: bool = False  # mdlm: the noise level is an input (UDLM).
  # mdlm: above 0: a position attends to so many on either side and to the first one.
  window: int = at_least(0, 0)
  embedding_dim: int = above(16, 0)  # conv: width of what is read of a token.
  kernel_size: int = above(5, 0)  # conv: positions that a convolution sees.


# Objective -> architectures of a new model.
ARCHITECTURES_OF = {
  'masked': ('mdlm', 'dream'),
  'causal': ('llama',),
  'classify': ('conv',),
}


@dataclasses.dataclass(frozen=True)
class MethodSettings:
  """The objective, its masking schedule and self-conditioning."""

  # 'causal' and 'classify' make judges, of the architectures 'llama' and 'conv'; a
  # classifier learns which class token began a row.
  objective: str = one_of('masked', tuple(ARCHITECTURES_OF))
  schedule: str = one_of('log_linear', ('log_linear', 'cosine', 'polynomial'))
  eps: float = option(1e-3, 'a number from 0, below 1', lambda x: 0 <= x < 1)
  power: float = above(2.0, 0)  # Of the polynomial schedule.
  injection: str = one_of('embedding', INJECTIONS)
  rate: float = within(1.0, 0, 1)  # lambda: share of conditioned examples (train).
  # Share of examples whose first token, a class, is shown at every time, as samplers
  # show it; it is masked like any other in the rest, which guidance needs. For data
  # with classes; 0.9 leaves out the class as often as published recipes drop it.
  class_shown: float = within(0.0, 0, 0.99)


CHANGES = ('data', 'tokenizer', 'code', 'options')


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """One training run: AdamW, warm-up, cosine decay, parameter average."""

  num_steps: int = above(1000, 0)
  batch_size: int = above(64, 0)  # Examples per step.
  accumulate: int = above(1, 0)  # Micro-batches per step; divides batch_size.
  learning_rate: float = above(1e-3, 0)  # At the end of the warm-up.
  # Times learning_rate for the self-conditioning parameters, which start from zero
  # while the backbone is already good. Ours; the paper's optimizer is not published.
  injection_rate_factor: float = above(1.0, 0)
  final_learning_rate: float = at_least(0.0, 0)  # Where the cosine ends.
  warmup_steps: int = at_least(100, 0)
  weight_decay: float = at_least(0.0, 0)
  clip: float = above(1.0, 0)  # Largest gradient norm.
  ema_decay: float = option(0.999, 'a number from 0, below 1', lambda x: 0 <= x < 1)
  save_every: int = above(500, 0)  # Steps between checkpoints.
  keep: int = above(2, 0)  # Checkpoints kept.
  log_every: int = above(50, 0)  # Steps between lines of metrics.jsonl.
  # Where the newest checkpoint is damaged and an earlier one is sound, go on from that.
  fall_back: bool = True
  # What may differ from what the workdir was made with: data, tokenizer, code, options.
  accept_changes: tuple = option(
    (), f'a tuple of some of {", ".join(CHANGES)}', lambda xs: set(xs) <= set(CHANGES)
  )
  # A step whose loss or gradient is not finite changes nothing; so many in a row may
  # pass, one more ends the run.
  skip_limit: int = at_least(10, 0)
  # Above 0: a step is skipped, too, whose loss or gradient norm is spike_sigma standard
  # deviations above the mean of so many sound steps before it.
  spike_window: int = at_least(0, 0)
  spike_sigma: float = above(6.0, 0)
  # Seconds without a step until the stacks of all threads are dumped; 0: never.
  step_timeout: int = at_least(1800, 0)
  dtype: str = one_of('float32', DTYPES)  # See DTYPES.
  # What backward computes anew instead of keeping it: nothing, all but the products
  # with weights, everything inside a block.
  remat: str = one_of('none', REMATS)


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """How samples are drawn."""

  num_samples: int = above(1024, 0)
  batch_size: int = above(64, 0)
  num_steps: int = above(32, 0)  # T: denoiser evaluations per batch, at most.
  # NAME or NAME:field=value,... as in remdm:rule=conf,eta=0.1. Names are the keys of
  # STRATEGIES below; their fields and sources are in diffusion/strategies.py.
  strategy: str = 'ancestral'
  # At 1e6 all tokens are equally likely; far above, even those that are banned.
  temperature: float = within(1.0, 0, 1e6)
  top_p: float = option(1.0, 'a number above 0, at most 1', lambda x: 0 < x <= 1)
  # 'low' draws token and mask jointly in plain float32, as MDLM and MD4 do, which loses
  # rare tokens; 'float64' is slow. Published figures depend on it; see diffusion/draws.
  noise: str = one_of('high', NOISES)
  # Above 0: blocks of so many positions, finished from left to right in equal steps.
  block_length: int = at_least(0, 0)
  # Above 0: how much more the prompt or class counts; a second evaluation per step.
  guidance: float = within(0.0, 0, 1e6)
  shared_signal: bool = False  # Guidance: both evaluations see the guided prediction.
  keep_signal: bool = True  # A position that is masked again keeps its prediction.
  dtype: str = one_of('float32', DTYPES)  # Also of the parameters; see DTYPES.
  self_conditioning: bool = True  # False: the vanilla sampler on the same weights.
  # Infilling: a text whose `_` are to be written; what follows it, too, unless it
  # ends with `$`. With tokens that are pieces of words: `<mask>` or `<mask:12>`, and
  # `<end>`.
  prompt: str = ''
  # The class of every sample, where the data have classes; -1: each in turn.
  label: int = at_least(-1, -1)
  trajectory: bool = False  # Also write the tokens after every step.


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
  """What is measured on a model."""

  num_examples: int = above(1024, 0)  # Held-out examples for the likelihood.
  batch_size: int = above(64, 0)
  repeats: int = above(4, 0)  # Times and masks drawn per example for the NELBO.
  judge_length: int = above(1024, 0)  # --mode=judge: most tokens it reads at once.
  # Above 0: MAUVE of samples of text with the judge's features, over so many starts of
  # k-means, against as many held-out rows.
  mauve_seeds: int = at_least(0, 0)
  # Genomes: epochs of a network trained to tell every set of samples from real
  # stretches, as published 5; 0: none.
  discriminator_epochs: int = at_least(5, 0)
  carried_steps: tuple = each((32,), int, 'whole numbers above 0', lambda x: x > 0)


@dataclasses.dataclass(frozen=True)
class CompareSettings:
  """The paper's experiment: arms adapted from one base, equal in everything else."""

  rates: tuple = each((0.5, 1.0), float, 'rates above 0, up to 1', lambda x: 0 < x <= 1)
  seeds: tuple = each((0, 1, 2), int, 'whole numbers from 0, below 2**32', is_seed)
  step_counts: tuple = each((32,), int, 'whole numbers above 0', lambda x: x > 0)
  temperatures: tuple = each(
    (1.0,), float, 'numbers from 0 to 1e6', lambda x: 0 <= x <= 1e6
  )
  benchmark_pairs: int = at_least(7, 0)  # Interleaved timings per ratio; 0: none.


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
  """What is timed: sample.batch_size, sample.num_steps, data.length are the sizes."""

  vocab_size: int = above(50258, 1)  # Of the random model that no checkpoint gives.
  rounds: int = above(7, 0)  # Times everything runs, in turn.
  train: bool = True  # Whether to time the training step.
  torch: bool = True  # Whether to time PyTorch, too, where it is installed.
  strategies: tuple = option(
    (), 'a tuple of strategies', lambda xs: all(is_kind(x, str) for x in xs)
  )
  # Batch and length whose compiled samplers' temporaries are told, of a random model
  # that is none of images; (0, 0): none.
  memory_shape: tuple = option(
    (8, 1024),
    'a batch size and a length',
    lambda xs: len(xs) == 2 and all(is_kind(x, int) and x >= 0 for x in xs),
  )
  # Sweeps along one size each, the others staying; fewer than two entries: none.
  batch_sizes: tuple = sizes()
  step_counts: tuple = sizes()
  lengths: tuple = sizes()
  vocab_sizes: tuple = sizes()


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What is compiled for which devices, and how its cost is reckoned."""

  job: str = one_of('train', ('train', 'sample'))
  topology: str = ''  # A TPU slice, such as v5p:4x4x4; '': the devices of this machine.
  # The config.json of a safetensors checkpoint, without its weights; '': `checkpoint`,
  # or the new model of `model`.
  model: str = ''
  hbm_gib: float = at_least(0.0, 0)  # Memory of a device; 0: that of its kind.
  tries: int = at_least(3, 0)  # Compilations to find a change that fits.
  mfu: float = within(0.4, 0.01, 1)  # Share of the chip's speed that is reached.
  tokens: float = above(3.25e9, 0)  # Of the whole job; the paper's adaptation.
  price_per_hour: float = at_least(0.0, 0)  # Of one device; 0: not told.


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
  """What is traced for xprof, into `profile/` in the workdir."""

  # Training steps, both included; '' traces none.
  steps: str = option(
    '', "'' or FIRST:LAST, such as 5:8", lambda x: not x or steps_of(x) is not None
  )

  @property
  def window(self) -> tuple[int, int] | None:
    """First and last step, if any."""
    return steps_of(self.steps)


@dataclasses.dataclass(frozen=True)
class Settings:
  """The whole of a run, checked."""

  mode: str = one_of('train', MODES)
  workdir: str = ''  # Where the run lives when --workdir is not given.
  seed: int = option(0, 'a number from 0, below 2**32', is_seed)
  checkpoint: str = ''  # The model to start from or to sample; '' trains a new one.
  judge: str = ''  # A causal model for generative perplexity; '' leaves that out.
  # Contents of checkpoints with fewer bytes are compared with their digests whenever
  # they are read; 0: never. --mode=verify compares any size.
  verify_below: int = at_least(2 << 30, 0)
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
