r"""MDLM on OpenWebText, 170 M parameters: the adaptation by 3.25B tokens, planned.

  python -m scmdm_jax.main --config=configs/mdlm_owt.py --workdir=DIR       (v5e:2x2)
  python -m scmdm_jax.main --config=configs/mdlm_owt.py:v6e --workdir=DIR   (v6e:4x4)
  python -m scmdm_jax.main --config=configs/mdlm_owt.py:h100 --workdir=DIR  (h100:1x8)

By the plan, at MFU 0.4: 11.8 device-hours and 7.06 of 14.9 GiB on v5e, 2.5 and 7.49 of
29.8 on v6e; sampling (--config.plan.job=sample) 0.93 and 1.06 GiB.
The paper's figure is a generative perplexity of 42.89 -> 23.72 at 1000 steps. Sizes and
batch are MDLM's. configs/owt_paper.py is the experiment itself.
"""

import pathlib
from typing import Literal

from scmdm_jax.settings import default_config

# Devices, and the micro-batches of a step.
_SLICES = {'v5e': ('v5e:2x2', 16), 'v6e': ('v6e:4x4', 4), 'h100': ('h100:1x8', 4)}


def get_config(slice_: Literal['v5e', 'v6e', 'h100'] = 'v5e'):
  config = default_config()
  config.mode = 'plan'
  config.plan.model = str(pathlib.Path(__file__).parent / 'models' / 'mdlm_owt.json')
  config.plan.topology = _SLICES[slice_][0]
  config.data.length = 1024
  config.train.batch_size = 512
  config.train.accumulate = _SLICES[slice_][1]
  config.train.num_steps = 6200
  config.train.learning_rate = 3e-4
  config.train.warmup_steps = 250
  config.train.injection_rate_factor = 10.0
  config.train.ema_decay = 0.9999
  config.train.dtype = 'bfloat16'
  config.sample.num_steps = 1024
  config.sample.batch_size = 32
  config.sample.dtype = 'bfloat16'
  return config
