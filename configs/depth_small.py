r"""What the carried prediction is worth to bases of one layer, on one core.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/depth_small.py:molecules_base --workdir=runs/depth/molecules_base
  run --config=configs/depth_small.py:molecules --workdir=runs/depth/molecules

and likewise with letters and images; before images, images_classifier. qm9_compare.py
and letters_small.py start from bases of three layers. Letters: docs/text_data.md says
how to make the file; images: docs/image_data.md, which package has them. Result in
docs/evidence.md, "Bases of one layer".
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(
  stage: Literal[
    'molecules',
    'molecules_base',
    'letters',
    'letters_base',
    'images',
    'images_base',
    'images_classifier',
  ] = 'molecules',
):
  domain, _, role = stage.partition('_')
  config = default_config()
  config.mode = 'train' if role else 'compare'
  config.train.save_every = 1000
  if role:
    config.method.rate = 0.0
  else:
    config.checkpoint = f'runs/depth/{domain}_base'
    config.train.learning_rate = 1e-3
    config.train.injection_rate_factor = 3.0
    config.train.warmup_steps = 50
    config.compare.rates = (1.0,)
    config.compare.recipes = ('unrolled:passes=3,rate=0.9',)
    config.compare.equal_steps = False
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.compare.benchmark_pairs = 0
  {'molecules': _molecules, 'letters': _letters, 'images': _images}[domain](
    config, role
  )
  return config


def _molecules(config, role):
  config.model.hidden_dim = 96
  config.model.num_blocks = 1
  config.model.num_heads = 4
  config.model.cond_dim = 32
  if role:
    config.train.batch_size = 128
    config.train.num_steps = 7000
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 500
    config.train.ema_decay = 0.999
    return
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 800
  config.train.batch_size = 64
  config.sample.num_samples = 2048
  config.sample.batch_size = 128
  config.evaluate.num_examples = 512
  config.evaluate.repeats = 4
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.step_counts = (8, 32, 64)
  config.compare.temperatures = (0.9, 1.0)


def _letters(config, role):
  config.data.name = 'text'
  config.data.source = 'runs/prose/letters.jsonl'
  config.data.tokenizer = 'text8'
  config.data.frame = False
  config.data.length = 32
  config.train.batch_size = 64
  if role:
    config.model.architecture = 'dream'
    config.model.hidden_dim = 96
    config.model.num_blocks = 1
    config.model.mlp_ratio = 3
    config.train.learning_rate = 3e-3
    config.train.warmup_steps = 200
    config.train.num_steps = 30000
    config.train.ema_decay = 0.999
    return
  config.train.batch_size = 32
  config.train.num_steps = 3000
  config.sample.num_samples = 1024
  config.sample.batch_size = 128
  config.sample.num_steps = 32
  config.evaluate.batch_size = 128
  config.evaluate.num_examples = 256
  config.evaluate.repeats = 2
  config.evaluate.carried_steps = (8, 32)
  config.evaluate.ngram_order = 8
  config.compare.step_counts = (8, 32, 64)
  config.compare.temperatures = (0.9, 1.0, 1.1)


def _images(config, role):
  config.data.name = 'fashion_mnist'
  config.data.side = 14
  config.data.length = 197
  config.data.tokenizer = 'pixels:4'
  config.method.class_shown = 0.9
  config.train.batch_size = 32
  if role == 'classifier':
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.model.hidden_dim = 48
    config.model.kernel_size = 3
    config.model.num_blocks = 3
    config.train.batch_size = 128
    config.train.learning_rate = 2e-3
    config.train.num_steps = 1500
    config.train.warmup_steps = 150
    config.train.ema_decay = 0.99
    return
  config.model.hidden_dim = 64
  config.model.num_blocks = 1
  config.model.num_heads = 2
  config.model.cond_dim = 32
  if role:
    config.train.learning_rate = 2e-3
    config.train.num_steps = 6000
    config.train.warmup_steps = 150
    config.train.ema_decay = 0.999
    return
  config.judge = 'runs/depth/images_classifier'
  config.train.num_steps = 1000
  config.sample.num_samples = 1024
  config.sample.batch_size = 128
  config.sample.num_steps = 197
  config.evaluate.batch_size = 64
  config.evaluate.num_examples = 128
  config.evaluate.repeats = 2
  config.evaluate.carried_steps = (24, 197)
  config.compare.step_counts = (24, 197)
  config.compare.temperatures = (1.0,)
