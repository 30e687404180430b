import json

import pytest

from scmdm_jax.data import prompts
from scmdm_jax.errors import BadInput

USER = {'role': 'user', 'content': 'Why?'}


def test_lines_are_read_in_order_with_their_places(tmp_path):
  path = tmp_path / 'asked.jsonl'
  lines = [
    {'prompt': 'low <mask>', 'id': 'a'},
    {'text': 'low<mask:2>'},
    {'messages': [{'role': 'system', 'content': 'Be brief.'}, USER], 'id': 7},
  ]
  path.write_text(f'{json.dumps(lines[0])}\n\n{json.dumps(lines[1])}\n')
  with path.open('a') as file:
    file.write(json.dumps(lines[2]))  # Without a line end.
  found = prompts.read(path)
  assert [asked.id for asked in found] == ['a', 3, 7]
  assert [asked.kind for asked in found] == ['prompt', 'text', 'messages']
  assert found[0].value == 'low <mask>'
  assert found[2].value == lines[2]['messages']
  assert [asked.place for asked in found] == [f'{path}: line {n}' for n in (1, 3, 4)]


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{"prompt": "low"', 'no JSON'),
    ('[' * 100_000, 'no JSON'),
    ('["low"]', 'wanted an object with one of'),
    ('{}', 'wanted an object with one of'),
    ('{"prompt": "a", "text": "b"}', 'found prompt and text; wanted'),
    ('{"prompt": 3}', 'prompt is 3; wanted a text'),
    ('{"prompt": ""}', 'prompt is empty'),
    ('{"text": ["a"]}', 'text is'),
    ('{"prompt": "a", "id": [1]}', r'id is \[1\]; wanted'),
    ('{"prompt": "a", "id": true}', 'id is True; wanted'),
    ('{"prompt": "a", "id": 1}', "id is '1', as in .*line 1"),
    ('{"prompt": "a", "id": "1"}', "id is '1', as in .*line 1"),
    ('{"messages": []}', r'messages is \[\]'),
    ('{"messages": "Why?"}', "messages is 'Why"),
    ('{"messages": [["user", "Why?"]]}', r'messages\[0\] is'),
    ('{"messages": [{"role": "user"}]}', r'messages\[0\] is'),
    ('{"messages": [{"role": "user", "content": null}]}', r'messages\[0\] is'),
    ('{"messages": [{"role": "system", "content": "x"}]}', 'only a system turn'),
    (json.dumps({'messages': [USER, USER | {'role': 'assistant'}]}), "'assistant'; wa"),
  ],
)
def test_what_is_no_prompt_is_refused_with_its_line(tmp_path, line, message):
  path = tmp_path / 'asked.jsonl'
  path.write_text(f'{{"prompt": "low"}}\n{line}\n')
  with pytest.raises(BadInput, match=f'^{path}: line 2: .*{message}') as caught:
    prompts.read(path)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_without_a_prompt(tmp_path):
  path = tmp_path / 'asked.jsonl'
  path.write_text('\n \n')
  with pytest.raises(BadInput, match='no prompt in it'):
    prompts.read(path)
  path.write_bytes(b'{"prompt": "caf\xe9"}\n')
  with pytest.raises(BadInput, match='not UTF-8 at byte 15'):
    prompts.read(path)
