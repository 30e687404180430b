r"""Self-conditioning on small images, on one core: bases, judges, comparisons.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/fashion_few_greys.py:base --workdir=runs/seven/base
  run --config=configs/fashion_few_greys.py:classifier --workdir=runs/seven/classifier
  run --config=configs/fashion_few_greys.py --workdir=runs/seven/compare

Fashion-MNIST at 7 x 7 in 8 greys: so small that a base of three layers settles within
an hour and sampling for as many steps as positions, and twice as many, is affordable.
At 14 x 14 in 4 greys a seed of the comparison takes about an hour, added up over arms:

  run --config=configs/fashion_few_greys.py:base_14 --workdir=runs/fourteen/base
  run --config=configs/fashion_few_greys.py:classifier_14 \
      --workdir=runs/fourteen/classifier
  run --config=configs/fashion_few_greys.py:compare_14 --workdir=runs/fourteen/compare

The comparisons start from the bases and classifiers in scmdm_jax/assets, which the
other commands made. docs/image_data.md says where the images come from. Result in
docs/evidence.md, "Images of 7 x 7" and "Images of 14 x 14".
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(
  stage: Literal[
    'compare', 'base', 'classifier', 'compare_14', 'base_14', 'classifier_14'
  ] = 'compare',
):
  config = default_config()
  stage, _, side = stage.partition('_')
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'fashion_mnist'
  config.data.side = 14 if side else 7
  config.data.length = 197 if side else 50
  config.data.tokenizer = 'pixels:4' if side else 'pixels:8'
  config.method.class_shown = 0.9
  config.train.save_every = 1000
  if stage == 'base':
    config.method.rate = 0.0
    config.model.hidden_dim = 64
    config.model.num_blocks = 3
    config.model.num_heads = 2
    config.model.cond_dim = 32
    config.train.batch_size = 16 if side else 64
    config.train.learning_rate = 2e-3
    config.train.num_steps = 12000
    config.train.warmup_steps = 200
    config.train.ema_decay = 0.999
  elif stage == 'classifier':
    config.method.rate = 0.0
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
  else:
    assets = importlib.resources.files('scmdm_jax') / 'assets'
    name = 'fourteen' if side else 'seven'
    config.checkpoint = str(assets / f'fashion_{name}_base')
    config.judge = str(assets / f'fashion_{name}_classifier')
    config.train.batch_size = 64
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0  # As in qm9_compare.py.
    config.train.num_steps = 1500
    config.train.warmup_steps = 100
    config.sample.num_samples = 2048
    config.sample.batch_size = 128
    config.sample.num_steps = 100
    config.evaluate.batch_size = 128
    config.evaluate.num_examples = 512
    config.evaluate.repeats = 2
    config.evaluate.carried_steps = (50, 100)
    config.evaluate.neighbour_images = 60_000
    config.compare.rates = (1.0,)
    config.compare.equal_steps = False
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.compare.step_counts = (100,)
    config.compare.temperatures = (0.95, 1.0, 1.05)
    config.compare.benchmark_pairs = 0
    if side:
      config.train.batch_size = 16
      config.train.num_steps = 1000
      config.sample.num_samples = 512
      config.sample.num_steps = 197
      config.evaluate.num_examples = 128
      config.evaluate.repeats = 1
      config.evaluate.carried_steps = (49, 197)
      config.compare.step_counts = (49, 197)
  return config
