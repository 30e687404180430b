r"""LLaDA-8B, adapted by low-rank factors beside a frozen bfloat16 base.

  python -m scmdm_jax.main --config=configs/llada_8b_lora.py:h100 --workdir=DIR
  python -m scmdm_jax.main --config=configs/llada_8b_lora.py:v5e --workdir=DIR
  python -m scmdm_jax.main --config=configs/llada_8b_lora.py:v6e --workdir=DIR

Plans for one H100 of 80 GB, a slice v5e-8 and a slice v6e-4; trained with --mode=train
--config.checkpoint=hf://GSAI-ML/LLaDA-8B-Base and data of one's own.
By the plan 31.7 of 74.5 GiB on the H100, 8.7 of 14.9 on v5e, 13.9 of 29.8 on v6e; at
MFU 0.4 3.4, 17.2 and 3.7 device-hours per 100M tokens.
The numbers of the recipe are NeMo AutoModel's for this family (rank 16, alpha 32).
"""

import pathlib
from typing import Literal

from scmdm_jax.settings import default_config

_SLICES = {'h100': ('h100:1x1', 1), 'v5e': ('v5e:2x4', 8), 'v6e': ('v6e:2x2', 4)}


def get_config(chip: Literal['h100', 'v5e', 'v6e'] = 'h100'):
  config = default_config()
  config.mode = 'plan'
  config.plan.model = str(pathlib.Path(__file__).parent / 'models' / 'llada_8b.json')
  config.plan.topology, config.mesh.fsdp = _SLICES[chip]
  config.data.length = 2048
  config.train.lora_rank = 16
  config.train.lora_alpha = 32.0
  config.train.batch_size = 32
  config.train.accumulate = 32 // config.mesh.fsdp
  config.train.num_steps = 1_500
  config.train.learning_rate = 1e-4
  config.train.injection_rate_factor = 10.0  # As in qm9_compare.py: it starts at 0.
  config.train.warmup_steps = 100
  config.train.evaluate_every = 100
  config.train.dtype = 'bfloat16'
  config.train.remat = 'full'
  config.evaluate.num_examples = 64
  config.evaluate.batch_size = 8
  config.evaluate.repeats = 1
  return config
