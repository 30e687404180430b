r"""Self-conditioning on images, on two cores: Fashion-MNIST at 14 x 14 in 16 greys.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/fashion_small.py:base --workdir=runs/fashion_base
  run --config=configs/fashion_small.py:classifier --workdir=runs/fashion_classifier
  run --config=configs/fashion_small.py --workdir=runs/fashion_compare

The images come from a Debian package (MIT): apt-get install dataset-fashion-mnist. The
comparison starts from the base and the classifier in scmdm_jax/assets, which the first
two commands made (the base in two runs: its card). Result, a null one, in
docs/image_data.md.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'base', 'classifier'] = 'compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'fashion_mnist'
  config.data.side = 14
  config.data.length = 197
  config.data.tokenizer = 'pixels:16'
  config.method.class_shown = 0.9
  config.model.hidden_dim = 96
  config.model.num_blocks = 4
  config.model.num_heads = 3
  config.model.cond_dim = 32
  config.train.batch_size = 32
  config.train.learning_rate = 2e-3
  config.train.num_steps = 2000
  config.train.warmup_steps = 150
  config.train.save_every = 250
  if stage == 'base':
    config.method.rate = 0.0
  elif stage == 'classifier':
    config.method.rate = 0.0
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.model.hidden_dim = 48
    config.model.kernel_size = 3
    config.model.num_blocks = 3
    config.train.batch_size = 128
    config.train.num_steps = 1500
    config.train.warmup_steps = 150
    config.train.ema_decay = 0.99
  else:
    assets = importlib.resources.files('scmdm_jax') / 'assets'
    config.checkpoint = str(assets / 'fashion_base')
    config.judge = str(assets / 'fashion_classifier')
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0  # As in qm9_compare.py.
    config.train.batch_size = 16
    config.train.num_steps = 150
    config.train.warmup_steps = 15
    config.train.log_every = 10
    config.sample.num_samples = 128
    config.sample.batch_size = 64
    config.sample.num_steps = 32
    config.evaluate.num_examples = 32
    config.evaluate.batch_size = 32
    config.evaluate.repeats = 2
    config.evaluate.carried_steps = (32,)
    config.compare.rates = (0.5, 1.0)
    config.compare.seeds = (0, 1, 2)
    config.compare.step_counts = (8, 32)
    config.compare.benchmark_pairs = 0
  return config
