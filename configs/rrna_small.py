r"""Self-conditioning on regions of the gene of 16S RNA, on one core: base, comparison.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/rrna_small.py:base --workdir=runs/rrna_base
  run --config=configs/rrna_small.py --workdir=runs/rrna_compare

The regions are laid out in runs/rrna as docs/genome_data.md says. The comparison starts
from the bundled copy of what the first command makes; for your own add
--config.checkpoint=runs/rrna_base. Rows of 256 have a base of their own, of longer
regions, which docs/genome_data.md lays out in runs/rrna_256:

  run --config=configs/rrna_small.py:base_256 --workdir=runs/rrna_base_256
  run --config=configs/rrna_small.py:compare_256 --workdir=runs/rrna_compare_256

Result in docs/evidence.md, "Genes of ribosomal RNA".
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(
  stage: Literal['compare', 'base', 'compare_256', 'base_256'] = 'compare',
):
  config = default_config()
  stage, _, length = stage.partition('_')
  config.mode = 'train' if stage == 'base' else 'compare'
  config.data.name = 'genomes'
  config.data.source = 'runs/rrna'
  config.data.tokenizer = 'species:3'
  config.data.length = 64
  config.method.class_shown = 0.9
  config.train.batch_size = 64
  config.train.save_every = 1000
  config.evaluate.batch_size = 128
  if length:
    config.data.source = f'runs/rrna_{length}'
    config.data.length = int(length)
    config.train.batch_size = 16
    config.sample.batch_size = 32
    config.evaluate.batch_size = 32
  if stage == 'base':
    config.method.rate = 0.0
    config.model.architecture = 'dream'
    config.model.hidden_dim = 64
    config.model.num_blocks = 3
    config.model.num_heads = 2 if length else 4
    config.model.mlp_ratio = 3
    config.train.learning_rate = 3e-3
    config.train.num_steps = 8000 if length else 9000
    config.train.warmup_steps = 200
    config.train.ema_decay = 0.999
  else:
    assets = importlib.resources.files('scmdm_jax') / 'assets'
    config.checkpoint = str(assets / 'rrna_base')
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 1000
    config.train.warmup_steps = 100
    config.sample.num_samples = 1024
    config.sample.batch_size = 128
    config.sample.num_steps = 128
    config.evaluate.num_examples = 512
    config.evaluate.repeats = 2
    config.evaluate.carried_steps = (16, 64, 128)
    config.evaluate.discriminator_epochs = 0
    config.evaluate.context_stretches = 100_000
    config.compare.rates = (1.0,)
    config.compare.equal_steps = False
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.compare.step_counts = (16, 64, 128)
    config.compare.temperatures = (0.7, 0.8, 0.9, 1.0)
    config.compare.sweep_all = True
    config.compare.benchmark_pairs = 0
    if length:
      config.checkpoint = str(assets / f'rrna_base_{length}')
      config.sample.num_samples = 256
      config.sample.num_steps = 256
      config.evaluate.num_examples = 128
      config.evaluate.repeats = 1
      config.evaluate.carried_steps = (64, 256)
      config.compare.seeds = (0, 1)
      config.compare.step_counts = (64, 256)
      config.compare.temperatures = (0.65, 0.7, 0.85, 1.0)
      config.compare.sweep_all = False
  return config
