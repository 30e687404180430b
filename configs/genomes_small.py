r"""Self-conditioning on genomes of nine species, on two cores: base, judge, comparison.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/genomes_small.py:base --workdir=runs/genomes_base
  run --config=configs/genomes_small.py:classifier --workdir=runs/genomes_classifier
  run --config=configs/genomes_small.py --workdir=runs/genomes_compare

The genomes are laid out in runs/genomes as docs/genome_data.md says.
"""

from scmdm_jax.settings import default_config


def get_config(stage='compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'genomes'
  config.data.source = 'runs/genomes'
  config.data.tokenizer = 'species:9'
  config.data.length = 129
  config.data.chunk_limit = 7000
  config.model.hidden_dim = 64
  config.model.num_blocks = 3
  config.model.num_heads = 2
  config.model.cond_dim = 16
  config.train.batch_size = 32
  config.train.learning_rate = 2e-3
  config.train.num_steps = 4000
  config.train.warmup_steps = 200
  config.train.save_every = 500
  config.evaluate.batch_size = 64
  if stage == 'base':
    config.method.rate = 0.0
    config.data.reverse_complement = True
  elif stage == 'classifier':
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.data.reverse_complement = True
  return config
