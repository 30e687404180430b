r"""Questions answered, on two cores: a small model of prose learns to answer.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/chat_small.py --workdir=runs/chat_small
  run --mode=sample --config=configs/chat_small.py --workdir=runs/chat_answers \
      --config.checkpoint=runs/chat_small --config.sample.max_new_tokens=8 \
      --config.sample.prompts=runs/prose/asked.jsonl
  run --mode=evaluate --config=configs/chat_small.py --workdir=runs/chat_measured \
      --config.checkpoint=runs/chat_small

adapts scmdm_jax/assets/text_base by low-rank factors (train.lora_rank=0: all of it).
The questions are made of WordNet's definitions; docs/text_data.md says how.
docs/chat_small.py measures it, the result is in docs/text_data.md.
"""

import importlib.resources
import pathlib

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'train'
  config.checkpoint = str(
    importlib.resources.files('scmdm_jax') / 'assets' / 'text_base'
  )
  config.data.name = 'chat'
  config.data.source = 'runs/prose/questions'
  config.data.chat_template = str(pathlib.Path(__file__).parent / 'chat_small.jinja')
  config.data.tokenizer = 'checkpoint'
  config.data.length = 64
  config.data.buckets = 2
  config.data.pad_target = True
  config.method.rate = 1.0
  config.train.lora_rank = 8
  config.train.lora_alpha = 16.0
  config.train.batch_size = 32
  config.train.learning_rate = 5e-3
  config.train.injection_rate_factor = 2.0
  config.train.num_steps = 400
  config.train.warmup_steps = 20
  config.train.ema_decay = 0.97
  config.train.save_every = 100
  config.train.log_every = 50
  config.train.evaluate_every = 400
  config.evaluate.num_examples = 256
  config.evaluate.batch_size = 64
  config.evaluate.repeats = 1
  config.evaluate.carried_steps = (8,)
  config.sample.num_samples = 64
  config.sample.batch_size = 128
  config.sample.num_steps = 8
  config.sample.block_length = 8
  config.sample.strategy = 'confidence'
  config.sample.temperature = 0.0
  return config
