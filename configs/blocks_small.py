r"""Blocks on molecules: a model that sees both ways learns to finish blocks in turn.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/blocks_small.py:base_4 --workdir=runs/blocks/base_4
  run --config=configs/blocks_small.py:4 --workdir=runs/blocks/4

and likewise with 8 and 16. The first makes a block model of the bundled one; the second
adapts it with self-conditioning and, for the same FLOPs, without. 32, the length of a
molecule, is the model as it is, and has no first command. On a shared core of an AMD
EPYC a base took 5 to 7 minutes and a comparison, three seeds, 16 to 23. The figures are
in docs/evidence.md.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config

LENGTH = 32


def get_config(
  stage: Literal['4', '8', '16', '32', 'base_4', 'base_8', 'base_16'] = '8',
):
  config = default_config()
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.data.length = LENGTH
  config.train.batch_size = 32
  name, _, block_length = stage.rpartition('_')
  if name == 'base':
    config.mode = 'train'
    config.checkpoint = str(assets / 'qm9_base')
    config.model.block_length = int(block_length)
    config.method.rate = 0.0
    config.train.learning_rate = 1e-3
    config.train.num_steps = 1200
    config.train.warmup_steps = 50
    config.train.save_every = 300
    return config
  config.mode = 'compare'
  full = int(block_length) == LENGTH
  base = str(assets / 'qm9_base') if full else f'runs/blocks/base_{block_length}'
  config.checkpoint = base
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 300
  config.train.warmup_steps = 20
  config.train.save_every = 100
  config.train.learning_rate = 3e-4
  config.train.injection_rate_factor = 10.0
  config.sample.num_samples = 1024
  config.sample.batch_size = 128
  config.evaluate.num_examples = 512
  config.evaluate.repeats = 1
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.rates = (1.0,)
  config.compare.seeds = (0, 1, 2)
  config.compare.step_counts = (8, 16, 32)
  config.compare.equal_steps = False
  config.compare.benchmark_pairs = 0
  return config
