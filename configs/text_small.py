r"""Self-conditioning on English prose, on two cores: a base, a judge, the comparison.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/text_small.py --workdir=runs/text_compare

compares from the models in scmdm_jax/assets/text_base and text_judge, which

  run --config=configs/text_small.py:base --workdir=runs/text_base
  run --config=configs/text_small.py:judge --workdir=runs/text_judge

trained. The text is that of WordNet's glosses; docs/text_data.md says how to make the
file, and where else there is small and published text: --config.data.source=PATH.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'base', 'judge'] = 'compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'text'
  config.data.source = 'runs/prose/glosses.jsonl'
  config.data.length = 64
  config.data.tokenizer = 'sentencepiece:512'
  config.model.hidden_dim = 96
  config.train.batch_size = 32
  config.train.learning_rate = 3e-3
  config.train.warmup_steps = 200
  config.sample.batch_size = 64
  config.evaluate.batch_size = 64
  if stage == 'base':
    config.method.rate = 0.0
    # The diffusion transformer stays for thousands of such small steps where it knows
    # the frequencies of tokens only.
    config.model.architecture = 'dream'
    config.model.mlp_ratio = 3
    config.train.num_steps = 3000
  elif stage == 'judge':
    config.method.rate = 0.0
    config.method.objective = 'causal'
    config.model.architecture = 'llama'
    config.model.num_blocks = 2
    config.train.num_steps = 2500
  else:
    assets = importlib.resources.files('scmdm_jax') / 'assets'
    config.checkpoint = str(assets / 'text_base')
    config.judge = str(assets / 'text_judge')
    config.data.tokenizer = 'checkpoint'
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 300
    config.train.warmup_steps = 40
    config.sample.num_samples = 256
    config.evaluate.num_examples = 256
    config.evaluate.repeats = 1
    config.evaluate.carried_steps = (8, 32)
    config.compare.rates = (0.5, 1.0)
    config.compare.seeds = (0, 1, 2)
    config.compare.step_counts = (8, 32)
    config.compare.temperatures = (0.9, 0.95, 1.0, 1.05)
    config.compare.benchmark_pairs = 0
  return config
