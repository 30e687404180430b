"""Tasks of lm-eval from local files: answers and likelihoods are the model's."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.data import tokenizers
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.strategies import Confidence
from scmdm_jax.domains import registry
from scmdm_jax.models import denoiser
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import answering, drawing
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import Settings
from tests.compiling import quick_jit
from tests.data.tokenizers import tiny
from tests.domains.text import chats
from tests.models.parameters import random_params
from tests.runs import answering_test
from tests.runs.answering_test import DESCRIPTION, MASK, PARAMS, TOKENIZER
from tests.tiny_run import Program

pytest.importorskip('lm_eval', reason='the extra lm_eval is not installed')
from scmdm_jax.runs import harness

# Of the libraries that lm-eval brings.
# Importing it takes seconds.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.long]

QUESTIONS = ('low new', 'wide', 'newest lower')
CHOICES = ('low', 'new', 'w', 'er')
NEW = 6
GENERATED = """\
task: sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["w"], max_gen_toks: {new}}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
CHOSEN = """\
task: facts
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


@pytest.fixture(autouse=True)
def quick_compilation(monkeypatch):
  monkeypatch.setattr(jax, 'jit', quick_jit)
  drawing.compiled_sampler.cache_clear()
  yield
  drawing.compiled_sampler.cache_clear()


def answers():
  """What the sampler answers up to the first `w`, and the cost: tokens, evaluations."""
  prompts = []
  for text in QUESTIONS:
    ids = TOKENIZER.encode_text(text)
    row = np.concatenate([ids, np.full(NEW, MASK)]).astype(np.int32)
    prompts.append(answering.Prompt('', text, row, len(ids)))
  found = answering_test.answer(prompts, Sampler(num_steps=3, strategy=Confidence()))
  texts, count = [], 0
  for i, prompt in enumerate(prompts):
    tokens = found[i].tokens[prompt.start :].tolist()
    end = tokens.index(TOKENIZER.eos_id) if TOKENIZER.eos_id in tokens else NEW
    texts.append(TOKENIZER.decode(tokens[:end]).split('w')[0])
    count += end
  return texts, (count, sum(answer.evaluations for answer in found.values()))


def best_choices():
  """The choice whose tokens, all masked at once, are the most probable, in NumPy."""

  @quick_jit
  def log_probs(ids):
    model = denoiser.bind(PARAMS, DESCRIPTION)
    hidden = model.encode(ids, np.zeros((*ids.shape, 16)), np.zeros(1, np.float32))
    return model.logits(hidden)[0]

  best = []
  for question in QUESTIONS:
    sums = []
    for choice in CHOICES:
      whole = TOKENIZER.encode_text(question + choice)
      start = len(TOKENIZER.encode_text(question))
      ids = np.where(np.arange(len(whole)) < start, whole, MASK).astype(np.int32)
      logits = np.asarray(log_probs(ids[None]), np.float64)
      logits[:, MASK] = -np.inf
      logits -= np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))[
        :, None
      ] + logits.max(-1, keepdims=True)
      sums.append(sum(logits[i, whole[i]] for i in range(start, len(whole))))
    best.append(int(np.argmax(sums)))
  return best


def lines(path, records):
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))
  return path


def test_tasks_of_both_kinds(tmp_path, capsys):
  (told, cost), chosen = answers(), best_choices()
  assert all(told) and len(set(told)) > 1
  golds = [told[0], 'something else', told[2]]
  sums = lines(
    tmp_path / 'sums.jsonl',
    [{'question': q, 'answer': a} for q, a in zip(QUESTIONS, golds, strict=True)],
  )
  wanted = [chosen[0], chosen[1], (chosen[2] + 1) % 4]
  facts = lines(
    tmp_path / 'facts.jsonl',
    [
      {'question': q, 'choices': CHOICES, 'gold': g}
      for q, g in zip(QUESTIONS, wanted, strict=True)
    ],
  )
  for name, text, data in (('sums', GENERATED, sums), ('facts', CHOSEN, facts)):
    filled = text.format(data=data, cache=tmp_path / 'cache', new=NEW)
    (tmp_path / f'{name}.yaml').write_text(filled)
  checkpoint = tmp_path / 'model'
  store.save_model(checkpoint, DESCRIPTION, PARAMS, {}, TOKENIZER.files)
  config = tmp_path / 'config.py'
  config.write_text(
    'from scmdm_jax.settings import default_config\n\n\n'
    'def get_config():\n'
    '  config = default_config()\n'
    "  config.data.name = 'text'\n"
    "  config.data.tokenizer = 'checkpoint'\n"
    '  config.data.length = 60\n'
    "  config.compilation_cache = 'off'\n"
    f'  config.checkpoint = {str(checkpoint)!r}\n'
    f"  config.evaluate.lm_eval = '{tmp_path}/sums.yaml,{tmp_path}/facts.yaml'\n"
    "  config.evaluate.lm_eval_bound = 'carried'\n"
    '  config.evaluate.repeats = 2\n'
    '  config.sample.batch_size = 2\n'
    '  config.sample.num_steps = 3\n'
    '  config.sample.temperature = 0.0\n'
    "  config.sample.strategy = 'confidence'\n"
    '  return config\n'
  )
  program = Program(capsys)
  command = (f'--config={config}', f'--workdir={tmp_path}/run', '--mode=evaluate')
  figures = program.figures(*command)
  assert figures['results']['sums']['exact_match,none'] == pytest.approx(2 / 3)
  stated = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
  assert stated == figures
  assert (figures['generated'], figures['evaluations']) == cost
  assert figures['tokens_per_evaluation'] == pytest.approx(cost[0] / cost[1], abs=1e-4)
  for name, value in {
    'steps': 3,
    'draws': 2,
    'bound': 'carried',
    'strategy': 'confidence',
    'temperature': 0.0,
    'noise': 'high',
    'block_length': 0,
    'template': '',
    'limit': 0,
    'seed': 0,
  }.items():
    assert stated[name] == value
  # In one step the carried bound is what the prediction of all at once says, exactly.
  one = program.figures(
    f'--config={config}',
    f'--workdir={tmp_path}/one',
    '--mode=evaluate',
    f'--config.evaluate.lm_eval={tmp_path}/facts.yaml',
    '--config.sample.num_steps=1',
  )
  assert one['results']['facts']['acc,none'] == pytest.approx(2 / 3)
  found = program.refusal(*command[::2], f'--workdir={tmp_path}/x',
                          '--config.evaluate.lm_eval=/nowhere.yaml')  # fmt: skip
  assert 'evaluate.lm_eval: no file /nowhere.yaml' in found


def test_bounds_lie_below_and_continuations_share_their_draws():
  from lm_eval.api.instance import Instance

  from scmdm_jax.diffusion.schedules import LogLinear
  from scmdm_jax.runs.harness import DiffusionLM

  settings = Settings()
  settings = dataclasses.replace(
    settings,
    evaluate=dataclasses.replace(
      settings.evaluate, repeats=4096, batch_size=512, lm_eval_bound='null'
    ),
  )
  model = Model(DESCRIPTION, PARAMS, TOKENIZER)
  judged = DiffusionLM(settings, model, LogLinear(), one_device())

  def asked(context, continuation, number=0):
    args = (context, continuation)
    return Instance('loglikelihood', {}, args, 0, ('x', number, 1))

  numbers = (0, 0, 1)
  found = judged.loglikelihood([asked('low', 'w', number) for number in numbers])
  assert found[0] == found[1] != found[2] and found[0][1] is False
  # A single token is masked or not: the mean over times is its own -log p. Of one draw
  # the weight times whether it is masked has the variance log(1 / T_MIN) = 6.9.
  whole = TOKENIZER.encode_text('loww')
  ids = np.where(np.arange(len(whole)) < len(whole) - 1, whole, MASK).astype(np.int32)
  network = denoiser.bind(PARAMS, DESCRIPTION)
  hidden = network.encode(ids[None], np.zeros((1, len(ids), 16)), np.zeros(1))
  logits = np.asarray(network.logits(hidden)[0, -1], np.float64)
  logits[MASK] = -np.inf
  exact = logits[whole[-1]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
  assert found[0][0] == pytest.approx(exact, rel=4 * (6.9 / 4096) ** 0.5)


def test_bounds_of_models_with_blocks():
  """Their rows are padded to whole blocks; in one step the bound is exact."""
  from lm_eval.api.instance import Instance

  settings = Settings()
  settings = dataclasses.replace(
    settings,
    evaluate=dataclasses.replace(settings.evaluate, repeats=1, lm_eval_bound='carried'),
    sample=dataclasses.replace(settings.sample, num_steps=1),
  )
  model = Model(DESCRIPTION.in_blocks(12), PARAMS, TOKENIZER)
  request = Instance('loglikelihood', {}, ('low low low low', 'w'), 0, ('x', 0, 1))
  ((found, _),) = judge(settings, model).loglikelihood([request])
  ids = TOKENIZER.encode_text('low low low loww').astype(np.int32)
  assert answering.padded_length(len(ids), 60) % 12
  network = denoiser.bind(PARAMS, model.description)
  row = np.where(np.arange(len(ids)) < len(ids) - 1, ids, MASK)[None]
  hidden = network.encode(row, np.zeros((*row.shape, 16)), np.zeros(1))
  logits = np.asarray(network.logits(hidden)[0, -1], np.float64)
  logits[MASK] = -np.inf
  wanted = logits[ids[-1]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
  assert found == pytest.approx(wanted, rel=1e-4)  # Of float32 logits.


def judge(settings, model, speech=None):
  from scmdm_jax.diffusion.schedules import LogLinear
  from scmdm_jax.runs.harness import DiffusionLM

  return DiffusionLM(settings, model, LogLinear(), one_device(), speech)


def written_one_by_one(model, given, count):
  """The surest token of a step alone, all others masked again, as LLaDA's code does."""
  network = denoiser.bind(model.params, model.description)

  @quick_jit
  def log_probs(ids):
    zeros = np.zeros((*ids.shape, 16))
    logits = network.logits(network.encode(ids, zeros, np.zeros(1)))[0]
    return jax.nn.log_softmax(logits.at[:, MASK].set(-np.inf))

  ids = np.concatenate([given, np.full(count, MASK)]).astype(np.int32)
  for _ in range(count):
    found = np.asarray(log_probs(ids[None]))
    sure = np.where(ids == MASK, found.max(-1), -np.inf)
    ids[sure.argmax()] = found[sure.argmax()].argmax()
  return ids[len(given) :].tolist()


def test_greedy_is_what_is_written_one_token_a_step():
  from lm_eval.api.instance import Instance

  description = dataclasses.replace(DESCRIPTION, injection='none')
  model = Model(description, random_params(description), TOKENIZER)
  asked, wanted = [], []
  for context in ('low', 'newest', 'wide lower', 'er'):
    given = TOKENIZER.encode_text(context)
    for count in (1, 2, 3):
      tokens = written_one_by_one(model, given, count)
      for text in (TOKENIZER.decode(tokens), 'low', ' new low'):
        whole = TOKENIZER.encode_text(context + text)
        same = whole[: len(given)].tolist() == given.tolist()
        if same and len(whole) == len(given) + count:
          asked.append(Instance('loglikelihood', {}, (context, text), len(asked)))
          wanted.append(whole[len(given) :].tolist() == tokens)
  assert 2 < sum(wanted) < len(wanted) - 2
  # What samples are drawn with has no part in it.
  drawing = dataclasses.replace(Settings().sample, noise='low', cache='prefix',
                                block_length=4)  # fmt: skip
  settings = dataclasses.replace(Settings(), sample=drawing)
  options = dataclasses.replace(settings.evaluate, repeats=1, lm_eval_greedy=True)
  found = judge(dataclasses.replace(settings, evaluate=options), model).loglikelihood(
    asked
  )
  assert [greedy for _, greedy in found] == wanted


def test_questions_are_turns_of_a_conversation(tmp_path, capsys):
  folder = chats.write(tmp_path / 'dream', 'dream')
  files = tokenizers.files_at(folder)
  size = len(tiny.bpe_vocabulary()) + len(chats.SPECIAL['dream']) + 1
  spoken = tokenizers.from_files(files, mask_id=size - 4, vocab_size=size, where='here')
  architecture = dataclasses.replace(DESCRIPTION.architecture, vocab_size=size)
  description = dataclasses.replace(
    DESCRIPTION,
    architecture=architecture,
    mask_id=size - 4,
    tokenizer=spoken.name,
    fingerprint=spoken.fingerprint,
    undefined_ids=spoken.undefined_ids,
  )
  model = Model(description, random_params(description), spoken)
  data = registry.data_settings()(name='text')
  converse = registry.of(data).converse
  assert converse is not None
  speech = converse(data, spoken)
  judged = judge(Settings(), model, speech)
  # As the library asks, with the library's own words for what is wanted.
  turns = [{'role': 'user', 'content': 'low <|im_end|>'}]
  whole = judged.apply_chat_template(turns)
  assert whole.endswith('<|im_start|>assistant\n') and judged.chat_template(True)
  ids = speech.read(whole).tolist()
  # What a turn spells is text, and of the template's own there are five.
  special = {*spoken.specials.values()}
  assert sum(i in special for i in ids) == 5
  begun = [*turns, {'role': 'assistant', 'content': 'new <|im_end|>'}]
  rest = speech.read(judged.apply_chat_template(begun, add_generation_prompt=False))
  assert rest.tolist() == [*ids, *spoken.encode_text('new <|im_end|>')]
  store.save_model(tmp_path / 'model', description, model.params, {}, spoken.files)
  questions = lines(tmp_path / 'sums.jsonl', [{'question': 'low', 'answer': 'x'}])
  task = GENERATED.format(data=questions, cache=tmp_path / 'cache', new=NEW)
  (tmp_path / 'sums.yaml').write_text(task)
  (tmp_path / 'config.py').write_text(
    'from scmdm_jax.settings import default_config\n\n\n'
    'def get_config():\n'
    '  config = default_config()\n'
    "  config.data.name = 'text'\n"
    "  config.data.tokenizer = 'checkpoint'\n"
    '  config.data.length = 60\n'
    "  config.compilation_cache = 'off'\n"
    f"  config.checkpoint = '{tmp_path}/model'\n"
    f"  config.evaluate.lm_eval = '{tmp_path}/sums.yaml'\n"
    '  config.evaluate.lm_eval_chat = True\n'
    '  config.sample.num_steps = 8\n'
    '  return config\n'
  )
  asked = []
  draw = harness.answering.answer

  def watched(model, sampler, options, key, prompts, *more):
    asked.extend(prompts)
    return draw(model, sampler, options, key, prompts, *more)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(harness.answering, 'answer', watched)
    figures = Program(capsys).figures(
      f'--config={tmp_path}/config.py', f'--workdir={tmp_path}/run', '--mode=evaluate'
    )
  (prompt,) = asked
  given = speech.encode([{'role': 'user', 'content': 'low'}])
  assert prompt.ids[: prompt.start].tolist() == given.tolist()
  assert prompt.ends == speech.ends == (spoken.specials['<|im_end|>'],)
  assert figures['template'] == chats.DREAM
