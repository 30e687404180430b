"""Conversations token by token; rows, lengths and answers; files that are none."""

import gzip
import json
import pathlib

import numpy as np
import pytest

from scmdm_jax.data import chat_template, journal, pipeline, tokenizers
from scmdm_jax.data.chat_template import ChatTemplate
from scmdm_jax.data.tokenizers import training
from scmdm_jax.domains import registry
from scmdm_jax.domains.text import chat, conversations, rows
from scmdm_jax.errors import BadInput, DamagedData
from tests.domains.text import chats

TURNS = [
  {'role': 'user', 'content': 'low newer'},
  {'role': 'assistant', 'content': 'lowest'},
  {'role': 'user', 'content': 'new'},
  {'role': 'assistant', 'content': 'widest é'},
]


def tokenizer_of(tmp_path, kind):
  files = tokenizers.files_at(chats.write(tmp_path / kind, kind))
  return tokenizers.from_files_for_new_model(files, causal=False, where=kind)


def settings(source, folder, **options):
  data = registry.data_settings()
  own = {'name': 'chat', 'length': 96, 'tokenizer': 'x', **options}
  return data(source=str(source), directory=str(folder), **own)


def written(path, records):
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))
  return path


def spelled(tokenizer, ids):
  return tokenizer.encoder.join([tokenizer.tokens[i] for i in ids])


@pytest.mark.parametrize(
  ('kind', 'answers'),
  [
    ('llada', ['lowest<|eot_id|>', 'widest é<|eot_id|>']),
    ('dream', ['lowest<|im_end|>\n', 'widest é<|im_end|>\n']),
    ('marked', ['lowest<|im_end|>', 'widest é<|im_end|>']),
  ],
)
def test_what_the_assistant_writes_is_learnt(tmp_path, kind, answers):
  tokenizer = tokenizer_of(tmp_path, kind)
  template = chat.template_of(settings('', ''), tokenizer)
  ids, target = chat.encode(TURNS, template, tokenizer)
  edges = np.flatnonzero(np.diff(np.concatenate([[0], target, [0]])))
  runs = [ids[a:b] for a, b in edges.reshape(-1, 2)]
  assert [spelled(tokenizer, run) for run in runs] == answers
  # What comes before an answer is what a sampler is asked with.
  asked = chat.encode_prompt(TURNS[:1], template, tokenizer)
  assert ids[: edges[0]].tolist() == asked.tolist()


@pytest.mark.parametrize('kind', ['llada', 'dream', 'marked'])
def test_a_special_token_in_a_turn_stays_text(tmp_path, kind):
  tokenizer = tokenizer_of(tmp_path, kind)
  template = chat.template_of(settings('', ''), tokenizer)
  specials = list(tokenizer.specials.values())
  plain, _ = chat.encode(TURNS, template, tokenizer)
  said = ' '.join(['é', *tokenizer.specials, '{% generation %}'])
  turns = [{**turn, 'content': turn['content'] + said} for turn in TURNS]
  ids, target = chat.encode(turns, template, tokenizer)
  count = np.isin(ids, specials).sum()
  assert count == np.isin(plain, specials).sum() > 0
  assert tokenizer.mask_id not in ids
  text = spelled(tokenizer, ids)
  assert text.count(said) == 4
  assert spelled(tokenizer, ids[target]).count(said) == 2


def test_answers_in_pieces_of_sentencepiece_are_learnt(tmp_path):
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(training.train_sentencepiece(['low newer lowest. ' * 99], 280))
  files = tokenizers.files_at(path)
  tokenizer = tokenizers.from_files_for_new_model(files, causal=False, where='x')
  source = (
    '{% for m in messages %}{% if m.role == "user" %}{{ m.content }}\n{% else %}'
    '{% generation %}{{ m.content + eos_token }}{% endgeneration %}{% endif %}'
    '{% endfor %}'
  )
  template = ChatTemplate(source, 'x', {'eos_token': '</s>'})
  turns = [
    {'role': 'user', 'content': 'é low </s>'},
    {'role': 'assistant', 'content': 'newer 日本 🙂 lowest'},
  ]
  ids, target = chat.encode(turns, template, tokenizer)
  first = len(tokenizer.encode_text('é low </s>\n'))
  assert target.tolist() == [False] * first + [True] * (len(ids) - first)
  assert tokenizer.decode(ids[first:]) == 'newer 日本 🙂 lowest'
  assert ids[-1] == tokenizer.eos_id and tokenizer.eos_id not in ids[:-1]


def test_turns_that_change_need_marks(tmp_path):
  tokenizer = tokenizer_of(tmp_path, 'dream')
  source = (
    '{% for m in messages %}{{ m.role }}:'
    '{{ m.content if loop.last else m.content[:2] }}\n{% endfor %}'
  )
  template = ChatTemplate(source, 'here', {})
  with pytest.raises(BadInput, match=r'turn 2 is rendered otherwise .* generation'):
    chat.encode(TURNS, template, tokenizer)


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('{{ messages', 'line 1 of the chat template: unexpected end'),
    ('\n{% for m in x %}', 'line 2 of the chat template'),
    ("{% include '/etc/passwd' %}", 'does not render'),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 'unsafe'),
    ('{{ messages.append(1) }}', 'unsafe'),
    ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", 'unsafe'),
    ('{% for i in range(1000000000) %}{% endfor %}', 'Range too big'),
    ("{{ raise_exception('no system turn') }}", r'\(no system turn\)'),
    ('{{ 1 / 0 }}', 'division by zero'),
  ],
)
def test_a_template_that_does_wrong_is_one_line(source, message):
  with pytest.raises(BadInput, match=message) as caught:
    ChatTemplate(source, 'chat.jinja', {}).render(TURNS)
  assert str(caught.value).startswith('chat.jinja: ')
  assert '\n' not in str(caught.value)


def test_the_template_is_the_tokenizers_or_a_file(tmp_path):
  tokenizer = tokenizer_of(tmp_path, 'llada')
  assert chat.template_of(settings('', ''), tokenizer).source == chats.LLADA
  (tmp_path / 'llada' / 'chat_template.jinja').write_text('{{ eos_token }}')
  files = tokenizers.files_at(tmp_path / 'llada')
  own = tokenizers.from_files_for_new_model(files, causal=False, where='x')
  assert own.fingerprint == tokenizer.fingerprint
  template = chat.template_of(settings('', ''), own)
  assert template.render(TURNS) == '<|endoftext|>'
  path = tmp_path / 'mine.jinja'
  path.write_text('{{ messages[0].content | tojson }}')
  chosen = chat.template_of(settings('', '', chat_template=str(path)), own)
  assert chosen.render([{'role': 'user', 'content': 'é<'}]) == '"é<"'
  (tmp_path / 'llada' / 'chat_template.jinja').unlink()
  named = [{'name': 'rag', 'template': ''}, {'name': 'default', 'template': 'x'}]
  for found, wanted in [(named, 'x'), (named[:1], 'wanted one named default')]:
    config = {'eos_token': '<|endoftext|>', 'chat_template': found}
    files = {'tokenizer_config.json': json.dumps(config).encode()}
    if len(found) == 2:
      template = chat_template.of_files(files, 'x', {})
      assert template is not None and template.source == wanted
    else:
      with pytest.raises(BadInput, match=wanted):
        chat_template.of_files(files, 'x', {})


@pytest.fixture
def talk(tmp_path):
  """Twenty conversations of one to twenty words, and their tokenizer."""
  records = [
    {'prompt': 'low', 'response': ' '.join(['newer'] * (n + 1))} for n in range(20)
  ]
  return written(tmp_path / 'talk.jsonl', records), tokenizer_of(tmp_path, 'marked')


def test_rows_are_padded_to_few_lengths(tmp_path, talk):
  source, tokenizer = talk
  data = settings(source, tmp_path / 'data', length=90, buckets=3)
  found = rows.read_rows(data, tokenizer, 'train')
  assert isinstance(found, pipeline.Answers)
  template = chat.template_of(data, tokenizer)
  texts = [*rows.documents(data, 'train').texts()]
  for i, text in enumerate(texts):
    ids, target = chat.encode(conversations.parse(text), template, tokenizer)
    assert found.lengths[i] == len(ids)
    assert found.sizes[i] == next(s for s in (30, 60, 90) if s >= len(ids))
    wanted = [*ids, *[tokenizer.pad_id] * (90 - len(ids))]
    assert found[i].tolist() == wanted
    assert found.target(i).tolist() == [*target, *[False] * (90 - len(ids))]
  batches = pipeline.training_batches(found, batch_size=4, seed=3)
  seen, sizes = [], set()
  for _ in range(8):
    batch = next(batches)
    sizes.add(batch.tokens.shape)
    seen += batch.number.tolist()
    for row, number, mask in zip(batch.tokens, batch.number, batch.target, strict=True):
      size = batch.tokens.shape[1]
      assert row.tolist() == found[number][:size].tolist()
      assert mask.tolist() == found.target(number)[:size].tolist()
    lengths = found.lengths[batch.number]
    assert batch.mask.lengths.tolist() == lengths.tolist()
    assert batch.padding.tolist() == (batch.tokens.shape[1] - lengths).tolist()
  assert len(sizes) > 1 and {shape[0] for shape in sizes} == {4}
  assert len(set(seen)) > 12


def test_batches_of_few_lengths_resume_and_are_shared_by_processes(tmp_path, talk):
  source, tokenizer = talk
  data = settings(source, tmp_path / 'data', length=90, buckets=3)
  found = rows.read_rows(data, tokenizer, 'train')

  def batches(**process):
    return pipeline.training_batches(found, batch_size=4, seed=3, **process)

  whole = batches()
  expected = [next(whole) for _ in range(12)]
  parts = [batches(process_index=p, process_count=2) for p in range(2)]
  for batch in expected:
    halves = [next(part) for part in parts]
    for field in ('tokens', 'number', 'epoch', 'place', 'target', 'padding'):
      joined = np.concatenate([getattr(half, field) for half in halves])
      np.testing.assert_array_equal(joined, getattr(batch, field))
  epochs = np.concatenate([batch.epoch for batch in expected])
  places = np.concatenate([batch.place for batch in expected])
  per_epoch = int(places.max()) + 1
  assert (epochs * per_epoch + places).tolist() == list(range(48))
  resumed = batches()
  for _ in range(5):
    next(resumed)
  fresh = batches()
  fresh.set_state(json.loads(json.dumps(resumed.get_state())))
  assert next(fresh).number.tolist() == expected[5].number.tolist()


def test_padding_may_be_learnt_as_end_tokens(tmp_path, talk):
  source, tokenizer = talk
  data = settings(source, tmp_path / 'data', length=90, pad_target=True)
  found = rows.read_rows(data, tokenizer, 'train')
  row, target = found[0], found.target(0)
  behind = found.lengths[0]
  assert behind < 90
  assert set(row[behind:]) == {tokenizer.eos_id} and target[behind:].all()
  batch = next(pipeline.training_batches(found, batch_size=4, seed=0))
  assert batch.mask is None
  assert batch.padding.tolist() == (90 - found.lengths[batch.number]).tolist()


@pytest.mark.parametrize(('too_long', 'kept'), [('cut', True), ('leave_out', False)])
def test_what_is_too_long_is_counted(tmp_path, talk, too_long, kept):
  source, tokenizer = talk
  whole = rows.read_rows(settings(source, tmp_path / 'data'), tokenizer, 'train')
  journal.begin()
  data = settings(source, tmp_path / 'data', length=50, too_long=too_long)
  found = rows.read_rows(data, tokenizer, 'train')
  long = int((whole.lengths > 50).sum())
  assert len(found) == (len(whole) if kept else len(whole) - long)
  assert found.lengths.max() <= 50
  (facts,) = (v for k, v in journal.entries().items() if k.startswith('length'))
  assert facts['longer'] == long > 0
  assert facts['cut'] == (long if kept else 0)
  assert facts['left_out'] == len(whole) - len(found)
  assert all(found.target(i).any() for i in range(len(found)))
  with pytest.raises(BadInput, match=r'no conversation .* has an answer within it'):
    rows.read_rows(settings(source, tmp_path / 'data', length=8), tokenizer, 'train')


GOOD = {'messages': TURNS[:2]}


def turns(*messages):
  return json.dumps({'messages': [*messages]})


# Line 2 of a file whose first and last lines are sound.
BAD_LINES = {
  'broken': ('{"messages": [', 'no JSON object'),
  'cut off': (json.dumps(GOOD)[:-1], 'no JSON object'),
  'no object': ('[1, 2]', 'no JSON object'),
  'a text': ('"hello"', 'no JSON object'),
  'null': ('null', 'no JSON object'),
  'two values': ('{} {}', 'no JSON object'),
  'deep': ('[' * 100_000, 'no JSON object'),
  'no messages': ('{"text": "x"}', r"found \['text'\]; wanted \"messages\""),
  'an empty object': ('{}', r'found \[\]; wanted'),
  'only a prompt': ('{"prompt": "x"}', r"found \['prompt'\]"),
  'empty messages': ('{"messages": []}', r'messages is \[\]; wanted a list'),
  'messages null': ('{"messages": null}', 'messages is None'),
  'messages a text': ('{"messages": "hi"}', "messages is 'hi'"),
  'messages an object': ('{"messages": {"role": "user"}}', 'messages is {'),
  'nested lists': ('{"messages": [[{"role": "user"}]]}', r'turn 1 is \['),
  'a turn that is a text': (turns('hi'), "turn 1 is 'hi'"),
  'a turn that is null': (turns(None), 'turn 1 is None'),
  'no role': (turns({'content': 'x'}), 'role of turn 1 is missing'),
  'no content': (turns({'role': 'user'}), 'content of turn 1 is missing'),
  'role a number': (turns({'role': 1, 'content': 'x'}), 'role of turn 1 is 1'),
  'content a list': (
    turns(TURNS[0], {'role': 'assistant', 'content': [{'text': 'x'}]}),
    r'content of turn 2 is \[',
  ),
  'content a number': (turns({'role': 'user', 'content': 7}), 'content of turn 1 is 7'),
  'unknown role': (
    turns({'role': 'human', 'content': 'x'}),
    "role of turn 1 is 'human'; wanted one of system, user",
  ),
  'no answer': (turns(TURNS[0]), 'the assistant says nothing'),
  'an empty answer': (
    turns(TURNS[0], {'role': 'assistant', 'content': ' \n'}),
    'the assistant says nothing',
  ),
  'response null': (
    '{"prompt": "x", "response": null}',
    'content of turn 2 is missing',
  ),
  'half a surrogate': (
    '{"prompt": "\\ud800", "response": "x"}',
    'half of a surrogate pair',
  ),
  'a private character': (
    json.dumps({'prompt': '\U0010f800', 'response': 'x'}),
    r'private character U\+10F800',
  ),
  'a megabyte without end': ('{"prompt": "' + 'x' * 2**20, 'no JSON object'),
  'a megabyte of a role': (
    turns({'role': 'x' * 2**20, 'content': 'x'}),
    "role of turn 1 is 'x+'?; wanted",
  ),
  'not UTF-8': (b'{"prompt": "caf\xe9", "response": "x"}', 'not UTF-8 at byte .* in'),
}


@pytest.mark.parametrize('kind', BAD_LINES)
def test_a_bad_line_is_named_and_nothing_is_left(tmp_path, kind):
  line, message = BAD_LINES[kind]
  line = line if isinstance(line, bytes) else line.encode()
  good = json.dumps(GOOD).encode()
  source = tmp_path / 'talk.jsonl'
  source.write_bytes(b'\n'.join([good, line, good]))
  folder = tmp_path / 'data'
  tokenizer = tokenizer_of(tmp_path, 'marked')
  with pytest.raises(BadInput, match=message) as caught:
    rows.read_rows(settings(source, folder), tokenizer, 'train')
  said = str(caught.value)
  assert 'talk.jsonl' in said and 'line 2' in said
  assert '\n' not in said and len(said) < 500
  left = [path for path in folder.rglob('*') if path.is_file()]
  assert all(path.suffix == '.lock' for path in left), left


@pytest.mark.parametrize(
  ('name', 'content', 'error', 'message'),
  [
    ('a.jsonl', b'', BadInput, 'its files are empty'),
    ('a.json', b'[{"prompt": "x"}]', BadInput, 'a.json: entry 1: found'),
    ('a.json', b'{"a":\n', BadInput, 'no JSON object'),
    ('a.parquet', b'PAR1 and no more', DamagedData, 'cannot be parsed as parquet'),
    ('a.jsonl.gz', gzip.compress(b'{}', mtime=0)[:-3], DamagedData, 'cannot be read'),
    ('a.pdf', b'x', BadInput, 'of no format that is known'),
    ('a.jsonl', b'{}\0', BadInput, 'a character 0'),
  ],
)
def test_a_bad_file_is_named(tmp_path, name, content, error, message):
  source = tmp_path / name
  source.write_bytes(content)
  tokenizer = tokenizer_of(tmp_path, 'marked')
  with pytest.raises(error, match=message) as caught:
    rows.read_rows(settings(source, tmp_path / 'data'), tokenizer, 'train')
  assert name in str(caught.value)


def test_parquet_and_jsonl_are_the_same(tmp_path):
  import pyarrow as pa
  from pyarrow import parquet

  records = [{'messages': TURNS[: 2 * n]} for n in (1, 2)]
  lines = written(tmp_path / 'a.jsonl', records)
  tables = [pa.Table.from_pylist(records)]
  pairs = [{'prompt': 'low newer', 'response': 'lowest'}]
  tables.append(pa.Table.from_pylist(pairs))
  wanted = [text for _, text in conversations.read([lines])]
  assert [conversations.parse(text) for text in wanted] == [TURNS[:2], TURNS]
  for table, texts in zip(tables, (wanted, wanted[:1]), strict=True):
    path = pathlib.Path(tmp_path / 'b.parquet')
    parquet.write_table(table, path)
    assert [text for _, text in conversations.read([path])] == texts
