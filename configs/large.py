r"""LLaDA-8B and Dream-7B: the adaptation by 3.25B tokens, and sampling, planned.

  python -m scmdm_jax.main --config=configs/large.py:llada_8b --workdir=DIR
  python -m scmdm_jax.main --config=configs/large.py:llada_8b,sample --workdir=DIR

and likewise dream_7b. 8.0 and 7.6 billion parameters, bfloat16 products on float32
masters. The paper has no figure for models of this size. Instruction data are not a
data set of this package yet, so that of these options only --mode=plan can be run as
they are. Training is for a slice v5p:4x4x4, sampling for v5e:4x4.
"""

import pathlib

from scmdm_jax.settings import default_config

_MODELS = pathlib.Path(__file__).parent / 'models'


def get_config(what='llada_8b'):
  model, _, job = what.partition(',')
  config = default_config()
  config.mode = 'plan'
  config.plan.model = str(_MODELS / f'{model}.json')
  config.plan.job = job or 'train'
  sampling = config.plan.job == 'sample'
  config.plan.topology = 'v5e:4x4' if sampling else 'v5p:4x4x4'
  config.mesh.fsdp = 1 if sampling else 16
  config.mesh.tensor = 4
  config.data.length = 1024 if sampling else 4096
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
