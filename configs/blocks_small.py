r"""Blocks on molecules: a model that sees both ways learns to finish blocks in turn.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/blocks_small.py:4 --workdir=runs/blocks/4

and likewise with 8, 16 and 32, the length of a molecule, which is the model as it was.
Each is adapted with self-conditioning and, for the same FLOPs, without. It has not been
run to its end yet.
"""

import importlib.resources

from scmdm_jax.settings import default_config


def get_config(block_length='8'):
  config = default_config()
  config.mode = 'compare'
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.checkpoint = str(assets / 'qm9_base')
  config.judge = str(assets / 'qm9_judge')
  length = int(block_length)
  config.model.block_length = 0 if length == config.data.length else length
  config.train.num_steps = 150
  config.train.warmup_steps = 20
  config.train.batch_size = 32
  config.train.save_every = 50
  config.train.learning_rate = 1e-3
  config.train.injection_rate_factor = 3.0
  config.sample.num_samples = 256
  config.sample.batch_size = 128
  config.sample.strategy = 'confidence'
  config.evaluate.num_examples = 128
  config.evaluate.repeats = 1
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8,)
  config.compare.rates = (1.0,)
  config.compare.seeds = (0, 1, 2)
  config.compare.step_counts = (8, 16, 32)
  config.compare.equal_steps = False
  config.compare.benchmark_pairs = 0
  return config
