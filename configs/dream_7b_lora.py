r"""Dream-7B, adapted by low-rank factors beside a frozen bfloat16 base.

  python -m scmdm_jax.main --config=configs/dream_7b_lora.py:h100 --workdir=DIR
  python -m scmdm_jax.main --config=configs/dream_7b_lora.py:v5e --workdir=DIR
  python -m scmdm_jax.main --config=configs/dream_7b_lora.py:v6e --workdir=DIR

Plans for one H100 of 80 GB, a slice v5e-8 and a slice v6e-4; trained with --mode=train
--config.checkpoint=hf://Dream-org/Dream-v0-Base-7B and data of one's own.
By the plan, on one H100: 30.0 of 74.5 GiB, and at MFU 0.4 3.2 device-hours per 100M
tokens. The slices' plans have not been compiled.
The numbers of the recipe are NeMo AutoModel's for this family (rank 16, alpha 32).
"""

import pathlib
from typing import Literal

from scmdm_jax.settings import default_config

_SLICES = {'h100': ('h100:1x1', 1), 'v5e': ('v5e:2x4', 8), 'v6e': ('v6e:2x2', 4)}


def get_config(chip: Literal['h100', 'v5e', 'v6e'] = 'h100'):
  config = default_config()
  config.mode = 'plan'
  config.plan.model = str(pathlib.Path(__file__).parent / 'models' / 'dream_7b.json')
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
