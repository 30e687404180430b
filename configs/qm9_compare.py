r"""The paper's QM9 experiment on a small base: arms, seeds, step counts, temperatures.

  launch/local.sh python -m scmdm_jax.main --config=configs/qm9_compare.py --workdir=DIR

Samples follow the published protocol: 1024 molecules in 32 steps (64 batches of 16
there; the batch size does not change our samples).
"""

import importlib.resources

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'compare'
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.checkpoint = str(assets / 'qm9_base')
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 1500
  config.train.warmup_steps = 100
  config.train.batch_size = 64
  config.train.learning_rate = 1e-3
  config.sample.num_samples = 1024
  config.sample.batch_size = 128
  config.evaluate.num_examples = 1024
  config.evaluate.repeats = 4
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.rates = (0.5, 1.0)
  config.compare.seeds = (0, 1, 2, 3)
  config.compare.step_counts = (8, 32, 128)
  config.compare.temperatures = (0.8, 0.9, 1.0, 1.1)
  config.compare.benchmark_pairs = 15
  return config
