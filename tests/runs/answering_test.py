"""Prompts of many lengths: their tokens, their answers, the file of answers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.checkpoints import store
from scmdm_jax.data import tokenizers
from scmdm_jax.diffusion.guidance import Guidance
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.strategies import (
  Confidence,
  EntropyBound,
  FirstHitting,
  ReMDM,
)
from scmdm_jax.domains import registry
from scmdm_jax.errors import BadInput, DamagedData
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import answering, answers, drawing
from scmdm_jax.runs.opening import Model
from scmdm_jax.settings.options import SampleSettings
from tests.compiling import quick_jit
from tests.data.tokenizers import subword_test, tiny
from tests.domains.text import chats
from tests.models.parameters import random_params
from tests.tiny_run import Program

TOKENIZER, LENGTH = subword_test.TOKENIZER, 60
EOS, MASK, LOW = subword_test.EOS, subword_test.MASK, subword_test.LOW
DESCRIPTION = ModelDescription(
  DecoderConfig(
    vocab_size=TOKENIZER.vocab_size,
    length=LENGTH,
    hidden_dim=16,
    num_blocks=1,
    num_heads=2,
    num_kv_heads=1,
    mlp_dim=16,
    causal=False,
    qkv_bias=True,
    shifted=True,
  ),
  mask_id=MASK,
  tokenizer=TOKENIZER.name,
  fingerprint=TOKENIZER.fingerprint,
  injection='embedding',
  family='dream',
  undefined_ids=TOKENIZER.undefined_ids,
)
PARAMS = random_params(DESCRIPTION)
# Greedy: nothing is drawn, so that lengths can be compared.
SAMPLER = Sampler(num_steps=4, strategy=Confidence(), block_length=8)
OPTIONS = SampleSettings(batch_size=2, temperature=0.0)
ASKED = [
  {'prompt': 'low', 'id': 'short'},
  {'prompt': 'low lower lowest ' * 5, 'id': 'long'},
  {'text': 'low<mask:3> lower', 'id': 'open'},
  {'text': 'low<mask:3> lower<end>', 'id': 'closed'},
  {'prompt': 'newest <mask>', 'id': 'plain'},
]


@pytest.fixture(autouse=True)
def quick_compilation(monkeypatch):
  monkeypatch.setattr(jax, 'jit', quick_jit)
  drawing.compiled_sampler.cache_clear()
  yield
  drawing.compiled_sampler.cache_clear()


def written(path, asked):
  path.write_text(''.join(json.dumps(line) + '\n' for line in asked))
  return path


@pytest.fixture
def asked(tmp_path):
  return answering.read(written(tmp_path / 'asked.jsonl', ASKED), TOKENIZER, 12, LENGTH)


def test_prompts_are_continued_and_templates_filled(asked):
  short, long, opened, closed, plain = asked
  assert short.ids.tolist() == [*LOW, *[MASK] * 12] and short.start == len(LOW)
  assert long.start == len(TOKENIZER.encode_text('low lower lowest ' * 5))
  lower = TOKENIZER.encode_text(' lower').tolist()
  assert opened.ids.tolist() == [*LOW, *[MASK] * 3, *lower, *[MASK] * 12]
  assert closed.ids.tolist() == [*LOW, *[MASK] * 3, *lower, EOS]
  assert opened.start == closed.start == 0
  # Markup in a plain prompt stays text.
  assert plain.ids[: plain.start].tolist() == [*TOKENIZER.encode_text('newest <mask>')]
  assert {p.ids.dtype for p in asked} == {np.dtype('int32')}


def test_without_a_number_answers_reach_to_the_end(tmp_path):
  path = written(tmp_path / 'asked.jsonl', ASKED[:4:3])
  short, closed = answering.read(path, TOKENIZER, 0, 20)
  assert short.ids.tolist() == [*LOW, *[MASK] * (20 - len(LOW))]
  assert closed.ids.tolist() == TOKENIZER.encode_prompt(ASKED[3]['text'], 20).tolist()


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ({'prompt': 'low ' * 60}, r'line 2: \d+ tokens of the prompt, \d+ with its answer'),
    ({'text': 'low<end>'}, 'line 2: leaves nothing to write'),
    ({'text': 'low <mask'}, 'line 2: prompt .*neither text nor markup'),
    ({'text': '<mask:99>'}, 'line 2: .*wanted at most the length, 60'),
    ({'prompt': 'low \ud800'}, 'line 2: .*not Unicode'),
  ],
)
def test_prompts_that_cannot_be_answered(tmp_path, line, message):
  path = written(tmp_path / 'asked.jsonl', [ASKED[0], line])
  with pytest.raises(BadInput, match=message):
    answering.read(path, TOKENIZER, 12, LENGTH)


def test_too_few_steps_are_refused(asked):
  few = Sampler(num_steps=1, strategy=Confidence(), block_length=8)
  with pytest.raises(BadInput, match=r'num_steps: found 1; .*line 1 wants at least 2'):
    answering.check_steps(asked, few, TOKENIZER)
  with pytest.raises(BadInput, match=r'found 11; .*line 1 wants at least 12'):
    answering.check_steps(asked, Sampler(11, FirstHitting()), TOKENIZER)
  answering.check_steps(asked, SAMPLER, TOKENIZER)


def test_few_lengths():
  found = [answering.padded_length(n, 4096) for n in range(1, 4097)]
  assert sorted({*found}) == [32, 48, 64, 96, 128, 192, *[256, 384, 512, 768, 1024],
                              *[1536, 2048, 3072, 4096]]  # fmt: skip
  assert all(n <= m and (m == 32 or m < 1.5 * n) for n, m in enumerate(found, 1))
  assert answering.padded_length(50, 60) == 60
  # Whole blocks of a model.
  assert [answering.padded_length(n, 60, 12) for n in (1, 32, 33, 50)] == [
    36,
    36,
    48,
    60,
  ]


MODEL = Model(DESCRIPTION, PARAMS, TOKENIZER)


def answer(prompts, sampler=SAMPLER, options=OPTIONS, done=(), model=MODEL):
  key = jax.random.key(1)
  found = answering.answer(model, sampler, options, key, prompts, one_device(), done)
  return {a.number: a for batch in found for a in batch}


@pytest.mark.slow
def test_padding_and_neighbours_change_nothing(asked):
  found = answer(asked)
  assert sorted(found) == [0, 1, 2, 3, 4]
  sampler = SAMPLER.of_model(0, True)
  run = drawing.compiled_sampler(DESCRIPTION, sampler, False, one_device())
  assert run._cache_size() == 2  # Of 32 and of 48 tokens.
  for i, prompt in enumerate(asked):
    given = prompt.ids != MASK
    np.testing.assert_array_equal(found[i].tokens[given], prompt.ids[given])
    assert not (found[i].tokens == MASK).any() and 0 < found[i].evaluations <= 4
  # Alone, without any padding.
  spans = drawing.Spans(np.int32([asked[0].start]), np.int32([len(asked[0].ids)]))
  stops = {'stops': np.int32([[EOS]]), 'behind': spans.starts}
  key = jax.random.fold_in(jax.random.key(1), 0)[None]
  spans = spans._replace(**stops)
  alone = run(PARAMS, key, asked[0].ids[None], jnp.float32(0), spans)
  np.testing.assert_array_equal(found[0].tokens, alone.tokens[0])
  assert found[0].evaluations == alone.written[0]
  # Drawn at random, too: what a prompt becomes depends on its number alone.
  warm = dataclasses.replace(OPTIONS, temperature=1.0)
  some, whole = answer(asked, options=warm, done=[0, 1, 2]), answer(asked, options=warm)
  assert sorted(some) == [3, 4]
  for i in some:
    np.testing.assert_array_equal(some[i].tokens, whole[i].tokens)
  assert any((whole[i].tokens != found[i].tokens).any() for i in found)
  assert run._cache_size() == 3


def record(ids, start, tokens, evaluations=4):
  prompt = answering.Prompt('here', 'x', np.int32(ids), start)
  found = answering.Answer(0, np.int32(tokens), evaluations)
  return answers.record_of(prompt, found, TOKENIZER)


@pytest.mark.slow
def test_answers_of_batches_that_shrink_are_the_same(asked):
  """With padding and guidance, whose networks know their examples."""
  sampler = Sampler(
    12, EntropyBound(0.5), block_length=8, guidance=Guidance(0.5), compact=1
  )
  options = SampleSettings(batch_size=4, temperature=0.0)
  shrunk = answer(asked, sampler, options)
  whole = answer(asked, dataclasses.replace(sampler, compact=0), options)
  for i in whole:
    np.testing.assert_array_equal(shrunk[i].tokens, whole[i].tokens)
    assert shrunk[i].evaluations == whole[i].evaluations


@pytest.mark.slow
@pytest.mark.parametrize(
  ('block_length', 'options'),
  [
    (0, {'cache': 'dual', 'refresh': 1, 'compact': 1}),
    pytest.param(
      0,
      {'cache': 'prefix', 'refresh': 1, 'guidance': Guidance(0.5)},
      marks=pytest.mark.long,
    ),
    (12, {'cache': 'exact', 'compact': 1}),
  ],
)
def test_answers_by_kept_keys_are_the_same(asked, block_length, options):
  """With blocks of the model exactly; without, where all is made anew every time."""
  model = Model(DESCRIPTION.in_blocks(block_length), PARAMS, TOKENIZER)
  sampler = Sampler(12, EntropyBound(0.5), block_length=block_length or 8, **options)
  plain = dataclasses.replace(sampler, cache='none', refresh=0, compact=0)
  within, without = (answer(asked, s, model=model) for s in (sampler, plain))
  for i in without:
    np.testing.assert_array_equal(within[i].tokens, without[i].tokens)
    given = asked[i].ids != MASK
    np.testing.assert_array_equal(within[i].tokens[given], asked[i].ids[given])
    assert not (within[i].tokens == MASK).any()


@pytest.mark.parametrize(
  ('block_length', 'options', 'words'),
  [
    (0, {'cache': 'exact'}, "sample.cache: found 'exact'; wanted one of auto, none, p"),
    (12, {'cache': 'dual', 'block_length': 12}, "sample.cache: found 'dual'; wanted"),
    (12, {'block_length': 8}, 'sample.block_length: found 8; wanted 0 or 12 with a'),
    (  # What is masked again must not lie in a block that others have seen finished.
      12,
      {'block_length': 24, 'strategy': ReMDM('cap')},
      r'found 24; wanted 0 or 12 .*, whose finished blocks stay as they are',
    ),
    # Blocks of the model lie where it has them, wherever an answer begins.
    (12, {'num_steps': 1}, r'num_steps: found 1; .*line 1 wants at least 2'),
  ],
)
def test_samplers_that_a_model_cannot_have(asked, block_length, options, words):
  model = Model(DESCRIPTION.in_blocks(block_length), PARAMS, TOKENIZER)
  sampler = Sampler(**{'num_steps': 4, 'strategy': Confidence()} | options)
  with pytest.raises(BadInput, match=words):
    answer(asked, sampler, model=model)


def test_an_answer_ends_at_its_first_end_token():
  low, n = LOW, len(LOW)
  ended = record([*low, *[MASK] * (n + 3)], n, [*low, *low, EOS, low[0], EOS])
  assert (ended['text'], ended['ended'], ended['tokens']) == ('low', 'end', low)
  assert (ended['generated'], ended['evaluations']) == (n, 4)
  assert ended['tokens_per_evaluation'] == n / 4
  cut = record([*low, *[MASK] * n], n, [*low, *low])
  assert (cut['text'], cut['ended'], cut['generated']) == ('low', 'length', n)
  empty = record([*low, MASK, MASK], n, [*low, EOS, low[0]])
  assert (empty['text'], empty['ended'], empty['generated']) == ('', 'end', 0)
  # An end token inside of what was to be filled is no end: text follows.
  filled = record([MASK, *low, EOS], 0, [low[0], *low, EOS])
  assert (filled['ended'], filled['generated']) == ('filled', 1)
  assert filled['tokens'] == [low[0], *low, EOS]


def test_agreement_is_of_what_was_written(tmp_path):
  low, n = LOW, len(LOW)
  other = next(i for i in range(TOKENIZER.vocab_size) if i not in (*low, EOS, MASK))
  ids = np.int32([*low, *[MASK] * (n + 2)])
  asked = [answering.Prompt('here', i, ids, n) for i in 'ab']
  asked.append(answering.Prompt('here', 'c', np.int32([MASK, *low, MASK]), 0))
  found = [[*low, *low, EOS, 0], [*low, *low, other, other], [other, *low, other]]
  plain = [[*low, *low, EOS, 9], [*low, *low, other, EOS], [other, *low, low[0]]]
  path = tmp_path / 'samples.jsonl'
  path.touch()

  def numbered(rows):
    return [answering.Answer(i, np.int32(row), 1) for i, row in enumerate(rows)]

  answers.write(path, iter([numbered(found)]), asked, TOKENIZER)
  same = answers.agreement(path, numbered(plain), asked, TOKENIZER)
  # All of the first; all but the last of the second; one of the third's two.
  wanted = (n + n + 1 + 1) / (n + n + 2 + 2)
  assert same == {'agreement': pytest.approx(wanted), 'agreement_samples': 3}


def test_conversations_are_asked_as_their_template_says(tmp_path):
  folder = chats.write(tmp_path / 'llada', 'llada')
  files = tokenizers.files_at(folder)
  size = len(tiny.bpe_vocabulary()) + len(chats.SPECIAL['llada']) + 1
  mask = size - 5
  spoken = tokenizers.from_files(files, mask_id=mask, vocab_size=size, where='here')
  line = {'messages': [{'role': 'user', 'content': 'low <|eot_id|>'}]}
  path = written(tmp_path / 'asked.jsonl', [line])
  data = registry.data_settings()(name='text')
  domain = registry.of(data)
  assert domain.converse is not None
  speak = functools.partial(domain.converse, data, spoken)
  (prompt,) = answering.read(path, spoken, 3, LENGTH, speak)
  special = {name: i for i, name in enumerate(chats.SPECIAL['llada'], mask - 2)}
  text = lambda x: spoken.encode_text(x).tolist()  # noqa: E731
  begin, close = special['<|start_header_id|>'], special['<|end_header_id|>']
  eot = special['<|eot_id|>']
  given = [special['<|startoftext|>'], begin, *text('user'), close]
  # What the user spells is text.
  given += [*text('\n\nlow <|eot_id|>'), eot, begin, *text('assistant'), close]
  given += text('\n\n')
  assert prompt.ids.tolist() == [*given, mask, mask, mask]
  assert (prompt.start, prompt.ends) == (len(given), (eot,))
  tokens = np.array([*given, *text('low')[:1], eot, eot], np.int32)
  found = answers.record_of(prompt, answering.Answer(0, tokens, 2), spoken)
  assert (found['ended'], found['generated']) == ('end', 1)
  with pytest.raises(BadInput, match='line 1: found messages; wanted'):
    answering.read(path, spoken, 3, LENGTH)


@pytest.mark.long
def test_answers_are_written_as_they_come_and_gone_on_with(tmp_path, capsys):
  checkpoint, path = tmp_path / 'model', written(tmp_path / 'asked.jsonl', ASKED)
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
    f'  config.sample.prompts = {str(path)!r}\n'
    '  config.sample.max_new_tokens = 12\n'
    '  config.sample.batch_size = 2\n'
    '  config.sample.num_steps = 3\n'
    '  return config\n'
  )
  program, workdir = Program(capsys), tmp_path / 'run'
  command = (f'--config={config}', f'--workdir={workdir}', '--mode=sample')
  figures = program.figures(*command)
  assert (figures['count'], figures['answered_before']) == (5, 0)
  lines = (workdir / 'samples.jsonl').read_bytes().splitlines(keepends=True)
  records = [json.loads(line) for line in lines]
  assert sorted(r['id'] for r in records) == sorted(a['id'] for a in ASKED)
  assert figures['generated'] == sum(r['generated'] for r in records)
  assert all(r['evaluations'] <= 3 for r in records)
  # Killed in the middle of the fourth line.
  (workdir / 'samples.jsonl').write_bytes(b''.join(lines[:3]) + lines[3][:20])
  again = program.figures(*command)
  assert (again['count'], again['answered_before']) == (5, 3)
  assert (workdir / 'samples.jsonl').read_bytes() == b''.join(lines)
  # What an approximate cache changed is measured beside it.
  for refresh, words in ((1, 'exactly'), (0, 'perhaps')):
    by_cache = program.figures(
      *(f'--config={config}', f'--workdir={tmp_path / words}', '--mode=sample'),
      *('--config.sample.cache=dual', '--config.sample.block_length=4'),
      *('--config.sample.num_steps=16', f'--config.sample.refresh={refresh}'),
      '--config.sample.strategy=confidence',
    )
    assert (by_cache['cache'], by_cache['agreement_samples']) == ('dual', 2)
    assert 0 <= by_cache['agreement'] <= 1
    assert by_cache['agreement'] == 1 or not refresh
  # Other prompts under the same names are not taken for answered.
  written(path, [{**ASKED[0], 'prompt': 'lower'}, *ASKED[1:]])
  assert "answers a prompt 'short'" in program.refusal(*command)
  written(path, ASKED)
  (workdir / 'samples.jsonl').write_bytes(lines[0] + b'{}\n')
  assert 'line 2: no answer to a prompt' in program.refusal(*command, code=3)
  assert 'wanted one of the two' in program.refusal(
    *command, '--config.sample.prompt=low'
  )


def test_answers_of_another_kind_of_file(tmp_path):
  path = tmp_path / 'samples.jsonl'
  path.write_text('{"index": 0, "text": "C"}\n')
  with pytest.raises(DamagedData, match='line 1: no answer'):
    answers.answered(path, [])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('block_length', 'sampler'),
  [
    (0, Sampler(12, Confidence(), block_length=4)),
    (12, Sampler(12, EntropyBound(0.5), cache='exact', compact=1)),
  ],
  ids=str,
)
def test_an_answer_that_has_ended_is_written_no_further(
  asked, block_length, sampler, monkeypatch
):
  """The same records as of answers that are written to their lengths, for less."""
  model = Model(DESCRIPTION.in_blocks(block_length), PARAMS, TOKENIZER)
  # What is often written is made the end of an answer.
  plain = [prompt._replace(ends=()) for prompt in asked]
  with monkeypatch.context() as patch:
    patch.setattr(answering, '_stops', lambda prompts, _: (None, None))
    whole = answer(plain, sampler, model=model)
  written = [whole[i].tokens[plain[i].ids == MASK] for i in range(len(plain))]
  values, counts = np.unique(np.concatenate(written), return_counts=True)
  ends = (int(values[counts.argmax()]),)
  spoken = [prompt._replace(ends=ends) for prompt in asked]
  found = answer(spoken, sampler, model=model)
  left = 0
  for i, prompt in enumerate(spoken):
    one, other = (answers.record_of(prompt, x[i], TOKENIZER) for x in (found, whole))
    left += other['evaluations'] - one['evaluations']
    for name in ('text', 'tokens', 'generated', 'ended'):
      assert one[name] == other[name]
    assert not (found[i].tokens == MASK).any()
  assert left > 0
