r"""Dream-7B: the adaptation by 3.25B tokens, and sampling, planned.

  python -m scmdm_jax.main --config=configs/dream_7b.py --workdir=DIR
  python -m scmdm_jax.main --config=configs/dream_7b.py:sample --workdir=DIR

7.6 billion parameters, bfloat16 products on float32 masters; by the plan, at MFU 0.4,
303 device-hours and 8.73 of 88.5 GiB of v5p; sampling takes 3.92 of 14.9 GiB of v5e.
The paper has no figure for a model of this size. Training wants data of your own, as
--config.data.name=chat and --config.data.source; dream_7b_lora.py is what one GPU can
do. The first is for a slice v5p:4x4x4, the second for v5e:4x4.
"""

import pathlib
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(job: Literal['train', 'sample'] = 'train'):
  config = default_config()
  config.mode = 'plan'
  config.plan.job = job
  config.plan.model = str(pathlib.Path(__file__).parent / 'models' / 'dream_7b.json')
  config.plan.topology = {'train': 'v5p:4x4x4', 'sample': 'v5e:4x4'}[job]
  config.mesh.fsdp = {'train': 16, 'sample': 1}[job]
  config.mesh.tensor = 4
  config.data.length = {'train': 4096, 'sample': 1024}[job]
  config.train.batch_size = 64
  config.train.num_steps = 12_400
  config.train.learning_rate = 2e-5
  config.train.warmup_steps = 500
  config.train.injection_rate_factor = 10.0
  config.train.dtype = 'bfloat16'
  config.train.remat = 'full'
  config.sample.num_steps = 256
  config.sample.batch_size = 8
  config.sample.dtype = 'bfloat16'
  config.sample.strategy = 'confidence'
  return config
