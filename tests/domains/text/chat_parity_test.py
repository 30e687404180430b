"""LLaDA's and Dream's renderings, token by token as `transformers` makes them."""

import pytest

from scmdm_jax.data import tokenizers
from scmdm_jax.domains.text import chat
from scmdm_jax.settings import default_config
from scmdm_jax.settings.resolve import resolve
from tests.domains.text import chats

transformers = pytest.importorskip('transformers', reason='the reference')

SYSTEM = {'role': 'system', 'content': 'Answer  briefly.\n'}
TURNS = [
  {'role': 'user', 'content': ' what is the lowest? '},
  {'role': 'assistant', 'content': '\nnewer than "low"\t1.5'},
  {'role': 'user', 'content': 'é 日本 🙂 <tool> wider\n\n'},
  {'role': 'assistant', 'content': 'widest'},
]


@pytest.mark.parametrize('kind', ['llada', 'dream', 'marked'])
@pytest.mark.parametrize('messages', [TURNS[:2], TURNS, [SYSTEM, *TURNS]])
def test_ids_and_answers_are_those_of_transformers(tmp_path, kind, messages):
  folder = chats.write(tmp_path / kind, kind)
  reference = transformers.AutoTokenizer.from_pretrained(folder)
  found = tokenizers.files_at(folder)
  tokenizer = tokenizers.from_files_for_new_model(found, causal=False, where=kind)
  template = chat.template_of(resolve(default_config()).data, tokenizer)
  ids, target = chat.encode(messages, template, tokenizer)
  wanted = reference.apply_chat_template(
    messages, return_dict=True, return_assistant_tokens_mask=kind == 'marked'
  )
  assert ids.tolist() == wanted['input_ids']
  if kind == 'marked':
    assert target.astype(int).tolist() == wanted['assistant_masks']
  asked = reference.apply_chat_template(
    messages[:-1], add_generation_prompt=True, return_dict=True
  )
  prompt = chat.encode_prompt(messages[:-1], template, tokenizer)
  assert prompt.tolist() == asked['input_ids']
  speech = chat.converse(resolve(default_config()).data, tokenizer)
  assert speech.encode(messages[:-1]).tolist() == asked['input_ids']
  assert speech.render(messages[:-1]) == reference.apply_chat_template(
    messages[:-1], add_generation_prompt=True, tokenize=False
  )
