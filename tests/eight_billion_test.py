"""The commands of docs/eight_billion.md, one after another, on a tiny LLaDA."""

import json
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.checkpoints import manifests
from tests.compiling import quick_jit
from tests.domains.text import chats
from tests.tiny_run import Program

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'eight_billion.md').read_text()
LENGTH, WIDTH = 64, 16
# What a tiny model on a host is given beside the options of the page.
SMALLER = {
  'train': (
    *('data.length=64', 'train.batch_size=4', 'train.accumulate=2'),
    *('train.num_steps=2', 'train.warmup_steps=1', 'train.evaluate_every=2'),
    *('evaluate.num_examples=4', 'evaluate.batch_size=4', 'train.lora_rank=2'),
  ),
  'sample': ('data.length=64', 'sample.max_new_tokens=8', 'sample.num_steps=4'),
  'evaluate': ('data.length=64', 'sample.num_steps=4', 'evaluate.repeats=2'),
  'plan': ('data.length=64', 'train.batch_size=2', 'train.accumulate=1'),
}
TASKS = {
  'gsm8k': (
    'output_type: generate_until\ndoc_to_target: "{{answer}}"\n'
    'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 8}\n'
    'metric_list: [{metric: exact_match}]\n'
  ),
  'mmlu': (
    'output_type: multiple_choice\ndoc_to_choice: ["low", "new"]\n'
    'doc_to_target: "{{gold}}"\nmetric_list: [{metric: acc}]\n'
  ),
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def commands():
  """The words of each command of the page, in its order."""
  blocks = re.findall(r'```bash\n(.*?)```', PAGE, re.S)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [shlex.split(line)[1:] for line in lines if line.startswith('run --')]


def write_model(folder):
  """LLaDA's layout: names, `config.json`, tokenizer with its special tokens."""
  chats.write(folder, 'llada')
  definition = json.loads((folder / 'tokenizer.json').read_text())
  ids = {token['content']: token['id'] for token in definition['added_tokens']}
  size = max(ids.values()) + 1
  shapes = manifests.llada(V=size, d=WIDTH, L=2, ff=24)
  changes = {
    'vocab_size': size,
    'embedding_size': size,
    'max_sequence_length': LENGTH,
    'mask_token_id': ids['<|mdm_mask|>'],
    'eos_token_id': ids['<|endoftext|>'],
    'pad_token_id': ids['<|endoftext|>'],
  }
  (folder / 'config.json').write_text(json.dumps(manifests.LLADA_CONFIG | changes))
  tensors = manifests.random_tensors(shapes, scale=0.2)
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  return tensors


def write_lines(path, records):
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def write_task(folder, name):
  write_lines(folder / f'{name}.jsonl', [{'question': 'low', 'answer': 'x', 'gold': 1}])
  (folder / f'{name}.yaml').write_text(
    f'task: tiny_{name}\ndataset_path: json\ntest_split: test\n'
    f'dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}, '
    f'cache_dir: {folder}/cache}}\n'
    f'doc_to_text: "{{{{question}}}}"\ntarget_delimiter: ""\n{TASKS[name]}'
  )


def smaller(words, folder):
  """A command of the page for the tiny model."""
  mode = next(w.partition('=')[2] for w in words if w.startswith('--mode='))
  changed = []
  for word in words:
    name, _, value = word.partition('=')
    if value.startswith('hf://'):
      word = f'{name}={folder}/published'
    elif name == '--config':
      word = f'{name}={ROOT}/{value}'
    elif name == '--config.evaluate.lm_eval':
      assert value.split(',') == [*TASKS]
      word = f'{name}={",".join(f"{folder}/{task}.yaml" for task in TASKS)}'
    changed.append(word)
  more = [f'--config.{option}' for option in SMALLER.get(mode, ())]
  if more:
    more.append('--config.compilation_cache=off')
  if mode == 'plan':
    tiny = f'{folder}/published/config.json'
    more += ['--config.plan.topology=', f'--config.plan.model={tiny}']
  if mode == 'train':
    more.append(f'--config.data.directory={folder}/data')
  return mode, [*changed, *more]


@pytest.mark.filterwarnings('ignore')  # Of the libraries that lm-eval brings.
def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
  pytest.importorskip('lm_eval', reason='the extra lm_eval is not installed')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(jax, 'jit', quick_jit)
  published = write_model(tmp_path / 'published')

  def turn(role, content):
    return {'role': role, 'content': content}

  told = [
    {'messages': [turn('user', f'what is {i}?'), turn('assistant', 'lower')]}
    for i in range(100, 220)
  ]
  write_lines(tmp_path / 'conversations.jsonl', told)
  asked = [{'id': word, 'messages': [turn('user', word)]} for word in 'ab']
  write_lines(tmp_path / 'prompts.jsonl', asked)
  for task in TASKS:
    write_task(tmp_path, task)
  program, found, modes = Program(capsys), {}, []
  for words in commands():
    mode, words = smaller(words, tmp_path)
    figures = program.figures(*words)
    assert figures['mode'] == mode or mode in ('import', 'export', 'verify')
    modes.append(mode)
    found[mode] = figures
  assert modes == [
    *('plan', 'import', 'verify', 'train', 'sample', 'evaluate', 'export', 'export')
  ]
  runs = tmp_path / 'runs'
  last = json.loads((runs / 'adapted' / 'metrics.jsonl').read_text().splitlines()[-1])
  assert last['heldout_nelbo'] > 0 and last['heldout_nelbo_two_pass'] > 0
  answers = (runs / 'answers' / 'samples.jsonl').read_text().splitlines()
  assert {json.loads(line)['id'] for line in answers} == {'a', 'b'}
  assert {*found['evaluate']['results']} == {'tiny_gsm8k', 'tiny_mmlu'}
  assert found['evaluate']['template'] == chats.LLADA
  merged = safetensors.numpy.load_file(runs / 'merged' / 'model.safetensors')
  assert published.keys() <= merged.keys()
  # What is merged is what the adapter for `peft` holds.
  adapter = safetensors.numpy.load_file(runs / 'peft' / 'adapter_model.safetensors')
  config = json.loads((runs / 'peft' / 'adapter_config.json').read_text())
  scale = config['lora_alpha'] / config['r']
  changed = 0
  for name, a in adapter.items():
    if 'lora_A' in name:
      b = adapter[name.replace('lora_A', 'lora_B')]
      layer = name.split('base_model.model.')[1].replace('.lora_A', '')
      wanted = published[layer] + scale * b @ a
      np.testing.assert_allclose(merged[layer], wanted, atol=1e-5)
      changed += np.any(b != 0)
  assert changed == 2 * 7  # Every linear layer of both blocks.
