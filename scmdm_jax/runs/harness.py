"""Tasks of `lm-eval`, answered and scored by a masked diffusion model.

https://github.com/EleutherAI/lm-evaluation-harness, an optional package. Answers are
drawn by the sampler of the run. The likelihood of a continuation is bounded, as in
LLaDA (arXiv 2502.09992): by the mean of so many draws of times and masks of the
continuation alone, or by the bound of the chain that the sampler runs. All
continuations of one question see the same draws, so that their differences vary less.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from lm_eval import evaluator  # pyright: ignore[reportMissingImports]
from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

from scmdm_jax.data.tokenizers import Tokenizer
from scmdm_jax.diffusion.likelihood import carried_nelbo, nelbo
from scmdm_jax.diffusion.schedules import Schedule
from scmdm_jax.diffusion.strategies import Threshold
from scmdm_jax.domains import registry
from scmdm_jax.domains.protocol import Conversing
from scmdm_jax.errors import BadInput
from scmdm_jax.models import denoiser
from scmdm_jax.models.attention import AttentionMask
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.execution import Execution
from scmdm_jax.parallel import mesh as meshes
from scmdm_jax.parallel.placement import Placement
from scmdm_jax.processes import multihost
from scmdm_jax.runs import answering, answers, drawing
from scmdm_jax.runs.answering import Prompt
from scmdm_jax.runs.opening import Model, place
from scmdm_jax.settings.building import sampler_of
from scmdm_jax.settings.options import SampleSettings, Settings

_NEW_TOKENS = 256  # Of an answer, where neither the run nor the task says how many.


@functools.cache
def _compiled_bound(
  description: ModelDescription,
  schedule: Schedule,
  bound: str,
  steps: int,
  self_conditioning: bool,
  mesh: Mesh,
):
  """Compiles `(params, key, x_0 [B, L], target [B, L], lengths [B]) -> nats [B]`."""
  assert description.mask_id is not None
  mask_id = description.mask_id

  def compute(params, key, x_0, target, lengths):
    network = denoiser.bind(params, description, execution=Execution(Placement(mesh)))
    real = AttentionMask(lengths=lengths)
    how: dict[str, Any] = {'schedule': schedule, 'mask_id': mask_id}
    how |= {'target': target, 'mask': real}
    if bound == 'carried':
      conditioned = self_conditioning and description.injection != 'none'
      return carried_nelbo(
        key, network, x_0, num_steps=steps, self_conditioning=conditioned, **how
      )
    two = bound == 'two_pass' and self_conditioning
    return nelbo(key, network, x_0, passes=1 + two, **how)

  return jax.jit(compute, out_shardings=meshes.replicated(mesh))


def _arguments(request: Instance) -> tuple[str, Any]:
  arguments: Any = request.args
  return arguments


class DiffusionLM(LM):
  """A masked diffusion model as `lm-eval` knows models.

  A continuation is greedy if it is what the model writes in its place, all of it masked
  and of that length, when each step writes the surest token alone: LLaDA's definition,
  with the carried signal. Without `evaluate.lm_eval_greedy` none is.
  """

  def __init__(
    self,
    settings: Settings,
    model: Model,
    schedule: Schedule,
    mesh: Mesh,
    speech: Conversing | None = None,
  ):
    super().__init__()
    self._speech = speech
    self._settings, self._model = settings, model
    self._schedule, self._mesh = schedule, mesh
    self._length = model.description.architecture.length
    self._params = place(model.params, mesh, settings.sample.dtype)
    self._key = jax.random.key(settings.seed)
    self._generated = self._evaluations = 0

  @property
  def _tokenizer(self) -> Tokenizer:
    return self._model.tokenizer

  @property
  def tokenizer_name(self) -> str:
    """What names the tokenizer where `lm-eval` keeps requests."""
    return f'{self._tokenizer.name}-{self._tokenizer.fingerprint[:16]}'

  def chat_template(self, chat_template: bool | str = False) -> str:
    """Returns the template of conversations, or '' where there are none."""
    del chat_template
    return self._speech.template if self._speech else ''

  def apply_chat_template(
    self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
  ) -> str:
    """Returns a conversation up to the next turn, or to where its last one has got.

    Raises:
      BadInput: the template refuses it.
    """
    assert self._speech is not None
    if add_generation_prompt:
      return self._speech.render(chat_history)
    *before, last = chat_history
    return self._speech.render(before, last['content'])

  def _plain(self, text: str) -> np.ndarray:
    """The start token, where rows have one, and a text, int32 [N]."""
    start = self._tokenizer.encode_prompt('', 1)
    start = start[start != self._tokenizer.mask_id]
    return np.concatenate([start, self._tokenizer.encode_text(text)])

  def _context(self, text: str) -> np.ndarray:
    """What is given, int32 [N]: a text, or a conversation as it was rendered."""
    return self._plain(text) if self._speech is None else self._speech.read(text)

  def _continued(self, context: str, continuation: str) -> tuple[np.ndarray, int]:
    """Tokens, at most as many as the model takes, and where the continuation begins."""
    if self._speech is not None:  # As an answer is written: behind the tokens given.
      given = self._context(context)
      ids = np.concatenate([given, self._tokenizer.encode_text(continuation)])
      start = len(given)
    else:  # A space between them belongs to the word behind it.
      ids = self._plain(context + continuation)
      start = min(len(self._plain(context.rstrip())), len(ids) - 1)
    cut = max(len(ids) - self._length, 0)
    if start < cut:
      raise BadInput(
        f'evaluate.lm_eval: a continuation has {len(ids) - start} tokens; wanted at '
        f'most {self._length}, the longest sequence of the model'
      )
    return ids[cut:].astype(np.int32), start - cut

  def generate_until(
    self, requests: list[Instance], disable_tqdm: bool = False
  ) -> list[str]:
    """Returns answers, each cut at the first of its texts to stop at.

    Steps, strategy and temperature are the run's, whatever the task says; a context
    that is too long loses its beginning.
    """
    del disable_tqdm
    options, prompts = self._settings.sample, []
    for i, request in enumerate(requests):
      context, how = _arguments(request)
      asked = how.get('max_gen_toks') or how.get('max_new_tokens') or _NEW_TOKENS
      new = min(options.max_new_tokens or asked, self._length - 1)
      given = self._context(context)[-(self._length - new) :]
      masks = np.full(new, self._tokenizer.mask_id, np.int32)
      ids = np.concatenate([given, masks]).astype(np.int32)
      ends = self._speech.ends if self._speech else ()
      prompts.append(Prompt(f'request {i}', i, ids, len(given), ends))
    sampler = sampler_of(options, self._schedule)
    found = [''] * len(prompts)
    model = dataclasses.replace(self._model, params=self._params)
    for batch in answering.answer(
      model, sampler, options, self._key, prompts, self._mesh
    ):
      for answer in batch:
        number = answer.number
        record = answers.record_of(prompts[number], answer, self._tokenizer)
        self._generated += record['generated']
        self._evaluations += record['evaluations']
        stops = _arguments(requests[number])[1].get('until') or []
        stops = [stops] if isinstance(stops, str) else stops
        text = record['text']
        for stop in filter(None, stops):
          text = text.split(stop)[0]
        found[number] = text
        self.cache_hook.add_partial('generate_until', requests[number].args, text)
    return found

  @property
  def cost(self) -> dict[str, float]:
    """Of all answers so far, beside what they are worth; {} where none was drawn."""
    if not self._evaluations:
      return {}
    return {
      'generated': self._generated,
      'evaluations': self._evaluations,
      'tokens_per_evaluation': round(self._generated / self._evaluations, 4),
    }

  def loglikelihood(
    self, requests: list[Instance], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    """Returns lower bounds of log p(continuation | context), in nats, and if greedy."""
    del disable_tqdm
    rows = [self._continued(*_arguments(request)) for request in requests]
    greedy = self._greedy(rows)
    return [
      (self._bound(ids, start, request.doc_id or 0), same)
      for (ids, start), same, request in zip(rows, greedy, requests, strict=True)
    ]

  def _greedy(self, rows: list[tuple[np.ndarray, int]]) -> list[bool]:
    """Whether each row is what is written from its start on, one token a step."""
    if not self._settings.evaluate.lm_eval_greedy:
      return [False] * len(rows)
    prompts = []
    for i, (ids, start) in enumerate(rows):
      asked = ids.copy()
      asked[start:] = self._tokenizer.mask_id
      prompts.append(Prompt(f'request {i}', i, asked, start))
    # Whatever else samples are drawn with has no part in it.
    options = SampleSettings(
      temperature=0.0,
      batch_size=self._settings.sample.batch_size,
      dtype=self._settings.sample.dtype,
    )
    model = dataclasses.replace(self._model, params=self._params)
    # Each by its own length, so that an answer does not depend on the others.
    steps = [1 << (len(ids) - start - 1).bit_length() for ids, start in rows]
    found: dict[int, np.ndarray] = {}
    for number in sorted({*steps}):
      # No probability is as large as tau: one token a step.
      sampler = dataclasses.replace(
        sampler_of(options, self._schedule),
        strategy=Threshold(tau=2.0),
        num_steps=number,
      )
      others = {i for i, own in enumerate(steps) if own != number}
      for batch in answering.answer(
        model, sampler, options, self._key, prompts, self._mesh, others
      ):
        found |= {answer.number: answer.tokens for answer in batch}
    return [bool((found[i] == ids).all()) for i, (ids, _) in enumerate(rows)]

  def loglikelihood_rolling(
    self, requests: list[Instance], disable_tqdm: bool = False
  ) -> list[float]:
    """Returns lower bounds of log p(text), in nats; long ones stretch by stretch."""
    del disable_tqdm
    found = []
    for request in requests:
      ids, total = self._plain(request.args[0]), 0.0
      for first in range(0, len(ids), self._length):
        piece = ids[first : first + self._length]
        total += self._bound(piece, 0, request.doc_id or 0)
      found.append(total)
    return found

  def _bound(self, ids: np.ndarray, start: int, number: int) -> float:
    """The bound of what stands from `start` on, given the rest; mean over all draws."""
    options, mesh = self._settings.evaluate, self._mesh
    block = self._model.description.block_length
    length = answering.padded_length(len(ids), self._length, block)
    meshes.check_length(length, mesh)
    shards = meshes.batch_shards(mesh)
    rows = -(-min(options.repeats, options.batch_size) // shards) * shards
    row = np.full(length, self._tokenizer.pad_id, np.int32)
    row[: len(ids)] = ids
    target = (np.arange(length) >= start) & (np.arange(length) < len(ids))
    placed = meshes.place_rows(mesh, np.tile(row, (rows, 1)))
    targets = meshes.place_rows(mesh, np.tile(target, (rows, 1)))
    lengths = meshes.place_rows(mesh, np.full(rows, len(ids), np.int32))
    compute = _compiled_bound(
      self._model.description,
      self._schedule,
      options.lm_eval_bound,
      self._settings.sample.num_steps,
      self._settings.sample.self_conditioning,
      mesh,
    )
    values, key = [], jax.random.fold_in(self._key, number)
    for i in range(-(-options.repeats // rows)):
      multihost.leave_if_asked('evaluation')
      key_i = jax.random.fold_in(key, i)
      nats = compute(self._params, key_i, placed, targets, lengths)
      values.append(np.asarray(multihost.gathered(nats), np.float64))
    return -float(np.concatenate(values)[: options.repeats].mean())


def _tasks(settings: Settings) -> tuple[list[str], TaskManager]:
  """Names or files of the tasks, and who finds them.

  Raises:
    BadInput: there is no such task.
  """
  asked = [name.strip() for name in settings.evaluate.lm_eval.split(',')]
  paths = [name for name in asked if name.endswith(('.yaml', '.yml'))]
  names = [name for name in asked if name not in paths]
  if missing := [name for name in paths if not pathlib.Path(name).is_file()]:
    raise BadInput(f'evaluate.lm_eval: no file {missing[0]}; wanted that of a task')
  manager = TaskManager(include_defaults=bool(names))
  if unknown := sorted({*names} - {*manager.all_tasks}):
    raise BadInput(
      f'evaluate.lm_eval: found {unknown[0]!r}, which lm-eval has no task of; wanted '
      'names of tasks, or their .yaml files, with commas between them'
    )
  return asked, manager


def _check_greedy(settings: Settings, model: Model) -> None:
  if settings.evaluate.lm_eval_greedy and model.description.block_length:
    raise BadInput(
      'evaluate.lm_eval_greedy: found True, and a model with blocks, which writes them '
      'in turn; wanted False'
    )


def _speech(settings: Settings, model: Model) -> Conversing:
  converse = registry.of(settings.data).converse
  if converse is None:
    raise BadInput(
      f'evaluate.lm_eval_chat: found data.name = {settings.data.name!r}, which has '
      'no conversations; wanted data that have them'
    )
  return converse(settings.data, model.tokenizer)


def evaluate(
  settings: Settings, model: Model, schedule: Schedule, mesh: Mesh
) -> dict[str, Any]:
  """Returns the results of the tasks, and all that is wanted to repeat them.

  Raises:
    BadInput: no such task, or one that the model is too short for.
  """
  options, sample = settings.evaluate, settings.sample
  _check_greedy(settings, model)
  sampler = drawing.sampler_on(model.description, sampler_of(sample, schedule), mesh)
  names, manager = _tasks(settings)
  tasks: Any = names
  speech = _speech(settings, model) if options.lm_eval_chat else None
  judged = DiffusionLM(settings, model, schedule, mesh, speech)
  found: Any = evaluator.simple_evaluate(
    model=judged,
    tasks=tasks,
    task_manager=manager,
    num_fewshot=None if options.lm_eval_fewshot < 0 else options.lm_eval_fewshot,
    limit=options.lm_eval_limit or None,
    bootstrap_iters=0,
    log_samples=False,
    apply_chat_template=options.lm_eval_chat,
    fewshot_as_multiturn=options.lm_eval_chat,
    random_seed=settings.seed,
    numpy_random_seed=settings.seed,
    torch_random_seed=settings.seed,
    fewshot_random_seed=settings.seed,
  )
  return {
    'tasks': names,
    'results': found['results'],
    'versions': found['versions'],
    'fewshot': found['n-shot'],
    'limit': options.lm_eval_limit,
    **judged.cost,
    'template': speech.template if speech else '',
    'steps': sample.num_steps,
    'block_length': sampler.block_length,
    'cache': sampler.cache,
    'max_new_tokens': sample.max_new_tokens,
    'strategy': sample.strategy,
    'temperature': sample.temperature,
    'top_p': sample.top_p,
    'noise': sample.noise,
    'guidance': sample.guidance,
    'self_conditioning': sample.self_conditioning
    and model.description.injection != 'none',
    'bound': options.lm_eval_bound,
    'draws': options.repeats,
    'greedy': 'one token a step, the surest first'
    if options.lm_eval_greedy
    else 'not worked out',
    'seed': settings.seed,
    'lm_eval': importlib.metadata.version('lm_eval'),
  }
