r"""The whole job on real molecules: adapt a pretrained model and compare it.

  launch/local.sh python -m scmdm_jax.main --config=configs/quickstart.py

Imports the masked diffusion model in scmdm_jax/assets/qm9_base, adapts it with and
without self-conditioning on QM9, judges 1024 samples of each, and ends in a table and
runs/quickstart/report/index.html. One seed, so no spread: configs/qm9_compare.py has
more of everything.
"""

import importlib.resources

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'compare'
  config.workdir = 'runs/quickstart'
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.checkpoint = str(assets / 'qm9_base')
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 300
  config.train.warmup_steps = 30
  config.train.batch_size = 64
  config.train.learning_rate = 3e-4
  config.train.injection_rate_factor = 10.0
  config.train.log_every = 10
  config.sample.num_samples = 1024
  config.sample.batch_size = 128
  config.evaluate.num_examples = 512
  config.evaluate.repeats = 4
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.rates = (0.5, 1.0)
  config.compare.seeds = (0,)
  config.compare.step_counts = (8, 32)
  config.compare.temperatures = (0.9, 1.0)
  config.compare.benchmark_pairs = 7
  return config
