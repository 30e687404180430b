"""Options of the method: its objective, how it is trained, how it draws samples."""

import dataclasses

from scmdm_jax.diffusion.estimates import is_estimate
from scmdm_jax.models.execution import REMATS
from scmdm_jax.models.family import OBJECTIVES
from scmdm_jax.models.injection import INJECTIONS
from scmdm_jax.models.lora import BLOCKS
from scmdm_jax.settings.rules import (
  above,
  at_least,
  one_of,
  option,
  plain,
  within,
)

DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class MethodSettings:
  """The objective, its masking schedule and self-conditioning."""

  objective: str = one_of(
    'masked',
    OBJECTIVES,
    (
      "'causal' and 'classify' make judges, of the architectures 'llama' and "
      "'conv'; a classifier learns which class token began a row."
    ),
  )
  schedule: str = one_of(
    'log_linear',
    ('log_linear', 'cosine', 'polynomial'),
    'How the share of masked tokens grows with time; see diffusion/schedules.',
  )
  eps: float = plain(1e-3, 'Share of tokens still visible at time 1.')
  power: float = plain(2.0, 'Exponent of the polynomial schedule.')
  injection: str = one_of(
    'embedding',
    INJECTIONS,
    'How a prediction enters the next evaluation; see models/injection.',
  )
  rate: float = within(
    1.0, 0, 1, 'lambda: share of training examples that are conditioned.'
  )
  estimate: str = option(
    'same_t',
    'same_t, unrolled:passes=3, or earlier_t:low=0.01,high=0.2,passes=1',
    is_estimate,
    'How the prediction that conditions them is made; see diffusion/estimates.',
  )
  first_pass: str = one_of(
    'adapted',
    ('adapted', 'base'),
    (
      'Of the model that makes it, where train.lora_rank is above 0: with its adapter, '
      'or without (the frozen reference of RCD, arXiv 2601.22954).'
    ),
  )
  class_shown: float = within(
    0.0,
    0,
    0.99,
    (
      'Share of examples whose first token, a class, is shown at every time, '
      'as samplers show it; it is masked like any other in the rest, which '
      'guidance needs. For data with classes; 0.9 leaves out the class as '
      'often as published recipes drop it.'
    ),
  )


CHANGES = ('data', 'tokenizer', 'code', 'options', 'base')


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """One training run: AdamW, warm-up, cosine decay, parameter average."""

  num_steps: int = plain(1000, 'Training steps.')
  batch_size: int = above(64, 0, 'Examples per step.')
  accumulate: int = plain(1, 'Micro-batches per step; divides batch_size.')
  learning_rate: float = plain(
    3e-4,
    'Learning rate at the end of the warm-up; the default adapts all weights of a '
    'pretrained model (docs/evidence.md), and is low for other trainings.',
  )
  injection_rate_factor: float = above(
    10.0,
    0,
    (
      'Times learning_rate for the self-conditioning parameters, which start '
      "from zero while the backbone is already good. Ours; the paper's "
      'optimizer is not published.'
    ),
  )
  final_learning_rate: float = plain(
    0.0, 'Learning rate at the end, where the cosine stops.'
  )
  warmup_steps: int = plain(100, 'Steps over which the learning rate rises from 0.')
  weight_decay: float = plain(0.0, 'Of AdamW.')
  clip: float = plain(1.0, 'Largest gradient norm.')
  ema_decay: float = plain(
    0.999,
    'Share of the old average of parameters that a step keeps.',
  )
  lora_rank: int = at_least(
    0,
    0,
    (
      'Above 0: the base stays as it is, in train.dtype, and only low-rank factors of '
      'so many columns beside its linear layers are trained, and the self-conditioning '
      'parameters.'
    ),
  )
  lora_alpha: float = above(32.0, 0, 'Their product counts alpha / rank times.')
  lora_targets: str = plain(
    BLOCKS,
    (
      'A regular expression: the whole path of a linear layer that has them, as in '
      "layers_3/self_attn/q_proj; all linear layers of the blocks. '': none, so that "
      'the self-conditioning parameters alone are trained, whatever the rank.'
    ),
  )
  save_every: int = plain(500, 'Steps between checkpoints.')
  keep: int = above(2, 0, 'Newest checkpoints that are kept.')
  log_every: int = plain(50, 'Steps between lines of metrics.jsonl.')
  evaluate_every: int = at_least(
    0,
    0,
    (
      'Steps between held-out losses (null pass, two passes) of the average, always on '
      'the same rows, times and masks, as evaluate.num_examples, .batch_size and '
      '.repeats have them; 0: none.'
    ),
  )
  fall_back: bool = plain(
    True, 'Go on from an earlier checkpoint where the newest one is damaged.'
  )
  accept_changes: tuple = option(
    (),
    f'a tuple of some of {", ".join(CHANGES)}',
    lambda xs: set(xs) <= set(CHANGES),
    'What may differ from what the workdir was made with.',
  )
  skip_limit: int = plain(
    10,
    (
      'Steps in a row that may be skipped since loss or gradient was not finite '
      'or a spike; one more ends the run.'
    ),
  )
  spike_window: int = plain(0, 'Sound steps that a spike is judged by; 0: none is.')
  spike_sigma: float = plain(
    6.0, 'A spike is so many standard deviations above their mean.'
  )
  step_timeout: int = plain(
    1800, 'Seconds without a step until all stacks are dumped; 0: never.'
  )
  dtype: str = one_of(
    'float32',
    DTYPES,
    (
      'What products are computed in; parameters are kept, and losses, '
      'softmaxes, norms and averages computed, in float32.'
    ),
  )
  remat: str = one_of(
    'none',
    REMATS,
    (
      'What the backward pass computes again instead of keeping it: '
      'nothing, all but the products with weights, everything inside a '
      'block.'
    ),
  )


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """How samples are drawn."""

  num_samples: int = above(1024, 0, 'Samples to draw; `prompts` has its own number.')
  batch_size: int = above(64, 0, 'Samples drawn at a time.')
  num_steps: int = plain(32, 'T: denoiser evaluations per batch, at most.')
  strategy: str = plain(
    'ancestral',
    (
      'Which positions a step reveals: NAME or NAME:field=value,... as in '
      'remdm:rule=conf,eta=0.1; see diffusion/strategies.'
    ),
  )
  temperature: float = within(
    1.0,
    0,
    1e6,
    ('Scores are divided by it before a token is drawn; 0 is greedy.'),
  )
  top_p: float = plain(
    1.0, 'Tokens are drawn from the most probable ones that together reach it.'
  )
  noise: str = plain(
    'high',
    (
      "'low' draws token and mask jointly in plain float32, as MDLM and MD4 "
      "do, which loses rare tokens; 'float64' is slow. Published figures "
      'depend on it; see diffusion/draws.'
    ),
  )
  block_length: int = plain(
    0,
    (
      'Above 0: blocks of so many positions, finished from left to right; '
      'steps are dealt by what the prompt leaves to write in each. An answer to '
      '`prompts` is over with the block in which it ends. A model with blocks has its '
      'own, and 0 stands for it.'
    ),
  )
  cache: str = plain(
    'auto',
    (
      "Which keys and values are kept while a block is written: 'none'; 'exact', of "
      'models with blocks, which changes no token; of other models, approximately, '
      "those left of the block ('prefix') or on both sides ('dual'), as in Fast-dLLM; "
      "'auto': 'exact' where the model has blocks, else 'none'."
    ),
  )
  refresh: int = plain(
    0,
    (
      "Above 0: 'prefix' and 'dual' make what is kept again after so many steps, and "
      'not only where a block begins.'
    ),
  )
  compact: int = at_least(
    0,
    0,
    (
      'Above 0: a batch is halved as its examples end, down to so many, where the '
      'strategy may end early or keys and values are kept, there within a block; each '
      'size is one more loop to compile.'
    ),
  )
  guidance: float = within(
    0.0,
    0,
    1e6,
    (
      'Above 0: how much more the prompt or class counts; a second evaluation per step.'
    ),
  )
  keep_signal: bool = plain(
    True, 'Whether a position that is masked again keeps its prediction.'
  )
  dtype: str = one_of(
    'float32', DTYPES, 'What products are computed in, and parameters are rounded to.'
  )
  self_conditioning: bool = plain(
    True, 'False: the vanilla sampler on the same weights.'
  )
  prompt: str = plain(
    '',
    (
      'Infilling: a text whose `_` are to be written; what follows it, too, '
      'unless it ends with `$`. With tokens that are pieces of words: '
      '`<mask>` or `<mask:12>`, and `<end>`.'
    ),
  )
  prompts: str = plain(
    '',
    (
      '--mode=sample: a file of JSON lines, each with an `id` and a `prompt` (to be '
      'continued), a `text` (as sample.prompt) or `messages`, instead of one prompt '
      'for all samples. Each is answered once, at its own length; a stopped run '
      'goes on behind the last answer. Blocks begin where prompts end, or where a '
      'model with blocks has them.'
    ),
  )
  max_new_tokens: int = at_least(
    0, 0, 'Most tokens of an answer to one of them; 0: up to data.length.'
  )
  label: int = at_least(
    -1,
    -1,
    ('The class of every sample, where the data have classes; -1: each in turn.'),
  )
  trajectory: bool = plain(False, 'Also write the tokens after every step.')
