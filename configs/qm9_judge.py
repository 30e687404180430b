r"""Trains the causal judge of generated molecules, on the training split of QM9.

launch/local.sh python -m scmdm_jax.main --config=configs/qm9_judge.py --workdir=DIR
"""

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'train'
  config.method.objective = 'causal'
  config.method.rate = 0.0
  config.model.architecture = 'llama'
  config.model.hidden_dim = 96
  config.model.num_blocks = 2
  config.model.num_heads = 4
  config.model.mlp_ratio = 3
  config.train.batch_size = 128
  config.train.num_steps = 3000
  config.train.learning_rate = 2e-3
  config.train.warmup_steps = 200
  config.train.save_every = 1000
  return config
