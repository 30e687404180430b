r"""The paper's QM9 row at its own scale: 594.2 -> 618.0 valid of 1024, in 32 steps.

  python -m scmdm_jax.main --config=configs/qm9_paper.py:pretrain --workdir=BASE
  python -m scmdm_jax.main --config=configs/qm9_paper.py --workdir=DIR \
      --config.checkpoint=BASE

Sizes, optimizer and schedule are those of the published unconditional QM9 recipe that
the paper's baseline matches (DiT small, 92 M parameters, 25k steps of 2048 molecules);
steps and learning rate of the adaptation are ours, since the paper's are not published.
Not run at this scale by us.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'pretrain'] = 'compare'):
  config = default_config()
  config.mode = 'train' if stage == 'pretrain' else 'compare'
  config.method.rate = 0.0 if stage == 'pretrain' else 1.0
  config.model.hidden_dim = 768
  config.model.num_blocks = 12
  config.model.num_heads = 12
  config.model.cond_dim = 128
  config.train.batch_size = 2048
  config.train.learning_rate = 3e-4
  config.train.final_learning_rate = 3e-6
  config.train.warmup_steps = 1000
  config.train.num_steps = 25000 if stage == 'pretrain' else 2500
  config.train.injection_rate_factor = 10.0  # As in qm9_compare.py.
  config.train.ema_decay = 0.9999
  config.train.save_every = 1000
  config.sample.num_samples = 1024
  config.sample.batch_size = 16
  config.sample.num_steps = 32
  config.compare.seeds = (0, 1, 2, 3, 4)
  config.compare.step_counts = (32,)
  config.compare.temperatures = (0.9, 0.95, 1.0, 1.05)
  config.judge = str(importlib.resources.files('scmdm_jax') / 'assets' / 'qm9_judge')
  return config
