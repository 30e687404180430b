r"""The paper's QM9 experiment on a small base: arms, seeds, step counts, temperatures.

  launch/local.sh python -m scmdm_jax.main --config=configs/qm9_compare.py --workdir=DIR

Samples follow the published protocol (32 steps; their batch size does not change
ours), but 2048 instead of 1024 a run, to halve the noise of the differences.
"""

import importlib.resources

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'compare'
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.checkpoint = str(assets / 'qm9_base')
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 800
  config.train.warmup_steps = 100
  config.train.batch_size = 64
  config.train.learning_rate = 3e-4
  config.train.injection_rate_factor = 10.0
  config.sample.num_samples = 2048
  config.sample.batch_size = 128
  config.evaluate.num_examples = 512
  config.evaluate.repeats = 4
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.rates = (0.5, 1.0)
  config.compare.seeds = (0, 1, 2, 3, 4)
  config.compare.step_counts = (8, 32)
  config.compare.temperatures = (0.95, 1.0, 1.05)
  config.compare.benchmark_pairs = 15
  return config
