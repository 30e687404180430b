"""Commands of the README and of two pages run as printed, on smaller sizes.

Its comparisons are run by tests/heads_test.py.
"""

import json
import pathlib
import shlex

import jax
import pytest

from tests.checkpoints import manifests
from tests.compiling import quick_jit
from tests.data.tokenizers import tiny
from tests.domains.text import chats
from tests.tiny_run import Program

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
ROOT = pathlib.Path(__file__).parents[1]
TOKENS = len(tiny.bpe_vocabulary()) + len(chats.SPECIAL['dream']) + 1
LLAMA = manifests.LLAMA_CONFIG | {'vocab_size': TOKENS, 'max_position_embeddings': 256}
SMALLER = (
  '--config.train.num_steps=2',
  '--config.train.warmup_steps=1',
  '--config.train.batch_size=4',
  '--config.train.evaluate_every=2',
  '--config.sample.num_samples=4',
  '--config.sample.batch_size=4',
  '--config.sample.num_steps=4',
  '--config.evaluate.num_examples=8',
  '--config.evaluate.batch_size=8',
  '--config.evaluate.repeats=1',
  '--config.evaluate.carried_steps=(4,)',
)
CONFIG = """\
from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.data.name = 'chat'
  config.data.tokenizer = 'checkpoint'
  config.data.length = 128
  config.sample.strategy = 'confidence'
  return config
"""
TASK = """\
task: sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def commands(page):
  """The arguments of every `run` of a page."""
  lines = (ROOT / page).read_text().replace('\\\n', ' ').splitlines()
  return [shlex.split(line)[1:] for line in lines if line.startswith('run -')]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A directory like a checkout, with what stands for the user's own files in it."""
  for name in ('configs', 'scmdm_jax'):
    (tmp_path / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(jax, 'jit', quick_jit)
  tensors = manifests.random_tensors(manifests.llama(TOKENS, 16, 2, 24, 8))
  manifests.write_directory(tmp_path / 'DIRECTORY', LLAMA, tensors)
  chats.write(tmp_path / 'DIRECTORY', 'dream')
  (tmp_path / 'config.py').write_text(CONFIG)
  asked = [{'prompt': text} for text in ('low new', 'wide', 'newest lower')]
  write_lines(tmp_path / 'FILE.jsonl', asked)
  task = [{'question': 'low new', 'choices': ['er', 'est'], 'gold': 1}]
  write_lines(tmp_path / 'task.jsonl', task)
  (tmp_path / 'task.yaml').write_text(
    TASK.format(data=tmp_path / 'task.jsonl', cache=tmp_path / 'cache')
  )
  return tmp_path


def write_lines(path, records):
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


@pytest.mark.parametrize(
  ('page', 'count'),
  [('README.md', 5), ('docs/your_model.md', 9), ('docs/caches.md', 3)],
)
def test_every_command_runs(checkout, capsys, page, count):
  program, modes = Program(capsys), []
  for arguments in commands(page):
    if 'lm_eval' in ''.join(arguments):
      pytest.importorskip('lm_eval', reason='the extra lm_eval is not installed')
    arguments = [
      a.replace('=CONFIG', '=config.py').replace('gsm8k,mmlu', 'task.yaml')
      for a in arguments
    ]
    if any(a.startswith('--config=') for a in arguments):
      arguments += SMALLER
    figures = program.figures(*arguments)
    assert f'--mode={figures["mode"]}' in arguments
    modes.append(figures['mode'])
  assert len(modes) >= count
