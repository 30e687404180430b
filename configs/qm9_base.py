r"""Pretrains the masked diffusion model that the quick start adapts, on real QM9.

launch/local.sh python -m scmdm_jax.main --config=configs/qm9_base.py --workdir=DIR
"""

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'train'
  config.method.rate = 0.0
  config.model.hidden_dim = 96
  config.model.num_blocks = 3
  config.model.num_heads = 4
  config.model.cond_dim = 32
  config.train.batch_size = 128
  config.train.num_steps = 14000
  config.train.learning_rate = 2e-3
  config.train.warmup_steps = 500
  config.train.ema_decay = 0.999
  config.train.save_every = 1000
  return config
