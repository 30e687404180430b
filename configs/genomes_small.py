r"""Self-conditioning on genomes of nine species, on two cores: base, judge, comparison.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/genomes_small.py:base --workdir=runs/genomes_base
  run --config=configs/genomes_small.py:classifier --workdir=runs/genomes_classifier
  run --config=configs/genomes_small.py --workdir=runs/genomes_compare

The genomes are laid out in runs/genomes as docs/genome_data.md says. The comparison
starts from the base and the classifier in scmdm_jax/assets, which the first two
commands made. Result in docs/genomes_compare.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'base', 'classifier'] = 'compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'genomes'
  config.data.source = 'runs/genomes'
  config.data.tokenizer = 'species:9'
  config.data.length = 65
  config.data.chunk_limit = 14000
  config.data.reverse_complement = True
  config.method.class_shown = 0.9
  config.train.batch_size = 64
  config.train.save_every = 250
  config.evaluate.batch_size = 64
  if stage == 'base':
    config.method.rate = 0.0
    # The diffusion transformer knew nothing but the composition of the species after
    # 4000 steps; this one knows what follows a base after 600.
    config.model.architecture = 'dream'
    config.model.hidden_dim = 64
    config.model.num_blocks = 3
    config.model.num_heads = 4
    config.model.mlp_ratio = 3
    config.train.learning_rate = 6e-3
    config.train.num_steps = 3000
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.99
  elif stage == 'classifier':
    config.method.rate = 0.0
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.model.hidden_dim = 64
    config.model.num_blocks = 4
    config.model.embedding_dim = 8
    config.model.kernel_size = 7
    config.train.learning_rate = 2e-3
    config.train.num_steps = 2000
    config.train.warmup_steps = 200
    config.train.ema_decay = 0.99
  else:
    assets = importlib.resources.files('scmdm_jax') / 'assets'
    config.checkpoint = str(assets / 'genomes_base')
    config.judge = str(assets / 'genomes_classifier')
    config.train.batch_size = 32
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 600
    config.train.warmup_steps = 60
    config.sample.num_samples = 576
    config.sample.batch_size = 64
    config.sample.num_steps = 32
    config.evaluate.num_examples = 512
    config.evaluate.repeats = 4
    config.evaluate.carried_steps = (8, 32)
    config.evaluate.discriminator_epochs = 0
    config.compare.rates = (0.5, 1.0)
    config.compare.seeds = (0, 1, 2)
    config.compare.step_counts = (8, 32)
    config.compare.temperatures = (1.0,)
    config.compare.benchmark_pairs = 0
  return config
