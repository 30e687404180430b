r"""LLaDA-8B: the adaptation by 3.25B tokens, and sampling, planned.

  python -m scmdm_jax.main --config=configs/llada_8b.py --workdir=DIR
  python -m scmdm_jax.main --config=configs/llada_8b.py:h100 --workdir=DIR
  python -m scmdm_jax.main --config=configs/llada_8b.py:sample --workdir=DIR

8.0 billion parameters, bfloat16 products on float32 masters; by the plan, at MFU 0.4,
330 device-hours and 10.0 of 88.5 GiB of v5p, 16.1 of 74.5 GiB of an H100; sampling
takes 4.66 of 14.9 GiB of v5e.
The paper has no figure for a model of this size. Training wants data of your own, as
--config.data.name=chat and --config.data.source; llada_8b_lora.py is what one GPU can
do. The first is for a slice v5p:4x4x4, the second for 32 H100, the last for v5e:4x4.
"""

import pathlib
from typing import Literal

from scmdm_jax.settings import default_config

# Devices, and the mesh.
_SLICES = {
  'train': ('v5p:4x4x4', {'fsdp': 16, 'tensor': 4}),
  'h100': ('h100:4x8', {'fsdp': 8, 'tensor': 4}),
  'sample': ('v5e:4x4', {'tensor': 4}),
}


def get_config(job: Literal['train', 'h100', 'sample'] = 'train'):
  config = default_config()
  config.mode = 'plan'
  config.plan.job = 'sample' if job == 'sample' else 'train'
  config.plan.model = str(pathlib.Path(__file__).parent / 'models' / 'llada_8b.json')
  config.plan.topology, mesh = _SLICES[job]
  config.mesh.update(mesh)
  config.data.length = 1024 if job == 'sample' else 4096
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
