"""Options of what measures: evaluation, comparison, benchmark, plan, profile."""

import dataclasses

from scmdm_jax.settings.recipes import is_recipe
from scmdm_jax.settings.rules import (
  above,
  at_least,
  each,
  is_kind,
  is_seed,
  one_of,
  option,
  plain,
  sizes,
  steps_of,
  within,
)


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
  """What is measured on a model; domains add what only they measure."""

  num_examples: int = above(1024, 0, 'Held-out examples for the likelihood.')
  batch_size: int = above(64, 0, 'Examples evaluated at a time.')
  repeats: int = above(4, 0, 'Times and masks drawn per example for the NELBO.')
  judge_length: int = above(1024, 0, '--mode=judge: most tokens it reads at once.')
  carried_steps: tuple = each(
    (32,),
    int,
    'whole numbers above 0',
    lambda x: x > 0,
    'Step counts at which the carried NELBO is computed.',
  )
  passes: tuple = each(
    (),
    int,
    'whole numbers from 3 to 64',
    lambda x: 3 <= x <= 64,
    (
      'Further numbers of passes at the same masks, each given the one before, whose '
      'NELBO is computed; those of one and of two always are.'
    ),
    least=0,
  )
  lm_eval: str = plain(
    '',
    (
      'Tasks of lm-eval (extra lm_eval), names or .yaml files with commas between '
      'them, that are done instead; sample.max_new_tokens goes before what they say.'
    ),
  )
  lm_eval_bound: str = one_of(
    'two_pass',
    ('null', 'two_pass', 'carried'),
    (
      'What stands for the likelihood of a continuation, a mean of `repeats` draws: '
      'the NELBO of one or two passes, or the carried one of sample.num_steps.'
    ),
  )
  lm_eval_fewshot: int = at_least(
    -1, -1, 'Examples before a question; -1: as the task says.'
  )
  lm_eval_limit: int = at_least(0, 0, 'Questions of each task; 0: all.')
  lm_eval_chat: bool = plain(
    False,
    (
      'Questions, and examples before them, are turns of a conversation, by '
      "data.chat_template or the tokenizer's own."
    ),
  )
  lm_eval_greedy: bool = plain(
    False,
    (
      'Whether each continuation is also compared with the one that is written from '
      'all masked, the surest token first, one a step (is_greedy, as LLaDA has it).'
    ),
  )


@dataclasses.dataclass(frozen=True)
class CompareSettings:
  """The paper's experiment: arms adapted from one base, equal in everything else."""

  rates: tuple = each(
    (0.5, 1.0),
    float,
    'rates above 0, up to 1',
    lambda x: 0 < x <= 1,
    (
      'Values of method.rate, an arm each; rate 0 is always among the arms. May be '
      'empty where there are recipes.'
    ),
    least=0,
  )
  seeds: tuple = each(
    (0, 1, 2),
    int,
    'whole numbers from 0, below 2**32',
    is_seed,
    'Every arm is trained once with each.',
  )
  step_counts: tuple = each(
    (32,),
    int,
    'whole numbers above 0',
    lambda x: x > 0,
    'Values of sample.num_steps to measure at.',
  )
  temperatures: tuple = each(
    (1.0,),
    float,
    'numbers from 0 to 1e6',
    lambda x: 0 <= x <= 1e6,
    'Values of sample.temperature to measure at, after every number of steps.',
  )
  sweep_all: bool = plain(
    False, 'Whether every arm is measured at them, not the control alone.'
  )
  sweep_samples: int = at_least(
    0,
    0,
    'Samples at each temperature but sample.temperature; what changes for the first so '
    'many is then added to the measures of all. 0: sample.num_samples.',
  )
  benchmark_pairs: int = at_least(7, 0, 'Interleaved timings per ratio; 0: none.')
  equal_steps: bool = plain(True, 'Also a control of as many steps as the rates have.')
  recipes: tuple = option(
    (),
    'a tuple of different recipes, such as unrolled:passes=3,rate=0.9',
    lambda xs: len(xs) == len(set(xs)) and all(is_recipe(x) for x in xs),
    (
      "Further arms, at the control's FLOPs (without rates: those of the first): an "
      'estimate (method.estimate), with rate and injection where they are not 1 and '
      "the run's, as in same_t:injection=table."
    ),
  )


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
  """What is timed: sample.batch_size, sample.num_steps, data.length are the sizes."""

  vocab_size: int = above(
    50258, 1, 'Vocabulary of the random model that is timed without a checkpoint.'
  )
  rounds: int = above(7, 0, 'Times everything runs, in turn.')
  train: bool = plain(True, 'Whether to time the training step.')
  torch: bool = plain(True, 'Whether to time PyTorch, too, where it is installed.')
  strategies: tuple = option(
    (),
    'a tuple of strategies',
    lambda xs: all(is_kind(x, str) for x in xs),
    'Values of sample.strategy to time besides.',
  )
  memory_shape: tuple = option(
    (8, 1024),
    'a batch size and a length',
    lambda xs: len(xs) == 2 and all(is_kind(x, int) and x >= 0 for x in xs),
    (
      'Batch and length at which memory of compiled samplers is measured, of a '
      'random model that is none of images; (0, 0): none.'
    ),
  )
  batch_sizes: tuple = sizes(
    'Sweeps along one size each, the others staying; fewer than two entries: none.'
  )
  step_counts: tuple = sizes('As batch_sizes, of sample.num_steps.')
  lengths: tuple = sizes('As batch_sizes, of data.length.')
  vocab_sizes: tuple = sizes('As batch_sizes, of benchmark.vocab_size.')


@dataclasses.dataclass(frozen=True)
class PlanSettings:
  """What is compiled for which devices, and how its cost is reckoned."""

  job: str = one_of('train', ('train', 'sample'), 'What is planned.')
  topology: str = plain(
    '',
    'A TPU slice, such as v5p:4x4x4, or GPUs, such as h100:1x8 (hosts x GPUs of '
    "each); '': the devices of this machine.",
  )
  model: str = plain(
    '',
    (
      "The config.json of a safetensors checkpoint, without its weights; '': "
      '`checkpoint`, or the new model of `model`.'
    ),
  )
  hbm_gib: float = at_least(0.0, 0, 'Memory of a device; 0: that of its kind.')
  tries: int = at_least(3, 0, 'Compilations to find a change that fits.')
  mfu: float = within(0.4, 0.01, 1, "Share of the chip's speed that is reached.")
  tokens: float = above(
    3.25e9, 0, 'Training tokens of the whole job; the default is that of the paper.'
  )
  price_per_hour: float = at_least(0.0, 0, 'Of one device; 0: unknown.')


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
  """What is traced for xprof, into `profile/` in the workdir."""

  steps: str = option(
    '',
    "'' or FIRST:LAST, such as 5:8",
    lambda x: not x or steps_of(x) is not None,
    "Training steps, both included; '' traces none.",
  )

  @property
  def window(self) -> tuple[int, int] | None:
    """First and last step, if any."""
    return steps_of(self.steps)
