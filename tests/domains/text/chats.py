"""A tokenizer with LLaDA's or Dream's special tokens and template, as its files."""

import json

from tests.data.tokenizers import tiny

# How LLaDA-8B-Instruct and Dream-v0-Instruct-7B write a conversation: Llama 3's and
# ChatML with Qwen2.5's default system turn (without its tools).
LLADA = (
  '{% set loop_messages = messages %}{% for message in loop_messages %}'
  "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
  "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
  '{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}'
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n'"
  ' }}{% endif %}'
)
DREAM = (
  "{%- if messages[0]['role'] == 'system' %}\n"
  "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
  '{%- else %}\n'
  "    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\n"
  '{%- endif %}\n'
  '{%- for message in messages %}\n'
  '    {%- if (message.role == "user") or (message.role == "system" and not loop.first)'
  ' or (message.role == "assistant" and not message.tool_calls) %}\n'
  "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' +"
  " '\\n' }}\n"
  '    {%- endif %}\n'
  '{%- endfor %}\n'
  '{%- if add_generation_prompt %}\n'
  "    {{- '<|im_start|>assistant\\n' }}\n"
  '{%- endif %}\n'
)
# The same with marks: ChatML whose end of turn is part of the answer.
MARKED = (
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
  "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
  '{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>{% endif %}{{ "\n" }}'
  '{% endfor %}{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}'
)
SPECIAL = {
  'llada': (
    '<|startoftext|>',
    '<|endoftext|>',
    '<|mdm_mask|>',
    '<|start_header_id|>',
    '<|end_header_id|>',
    '<|eot_id|>',
  ),
  'dream': (
    '<|beginoftext|>',
    '<|endoftext|>',
    '<|mask|>',
    '<|im_start|>',
    '<|im_end|>',
  ),
}
SPECIAL['marked'] = SPECIAL['dream']
TEMPLATES = {'llada': LLADA, 'dream': DREAM, 'marked': MARKED}


def write(folder, kind):
  """Writes the files of a tokenizer to a folder."""
  definition = tiny.bpe()
  first = len(definition['model']['vocab'])
  definition['added_tokens'] = tiny.added(first, SPECIAL[kind])
  definition['truncation'] = None
  bos, eos, mask, *_ = SPECIAL[kind]
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'bos_token': bos,
    'eos_token': eos,
    'pad_token': eos,
    'mask_token': mask,
    'chat_template': TEMPLATES[kind],
    'clean_up_tokenization_spaces': False,
  }
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'tokenizer.json').write_text(json.dumps(definition))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return folder
