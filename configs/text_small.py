r"""Self-conditioning on real prose, on two cores: a base, a judge, the comparison.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/text_small.py:base --workdir=runs/text_base
  run --config=configs/text_small.py:judge --workdir=runs/text_judge
  run --config=configs/text_small.py --workdir=runs/text_compare

Any text will do: --config.data.source=PATH. The default is An Anarchist FAQ, 11 million
characters of modern expository English, from a Debian package:

  mkdir -p runs/prose && cd runs/prose && apt-get download anarchism
  dpkg -x anarchism_*.deb .

More sources, small and published, are in docs/text_data.md.
"""

from scmdm_jax.settings import default_config


def get_config(stage='compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'text'
  config.data.source = 'runs/prose/glosses.jsonl'
  config.data.length = 64
  config.data.tokenizer = 'sentencepiece:512'
  config.model.hidden_dim = 96
  config.model.num_blocks = 3
  config.model.num_heads = 4
  config.model.cond_dim = 32
  config.train.batch_size = 32
  config.train.learning_rate = 3e-3
  config.train.num_steps = 3500
  config.train.warmup_steps = 200
  config.train.save_every = 500
  config.sample.batch_size = 64
  config.evaluate.batch_size = 64
  if stage == 'base':
    config.method.rate = 0.0
  elif stage == 'judge':
    config.method.rate = 0.0
    config.method.objective = 'causal'
    config.model.architecture = 'llama'
    config.model.num_blocks = 2
    config.train.num_steps = 2500
  else:
    config.checkpoint = 'runs/text_base'
    config.judge = 'runs/text_judge'
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 800
    config.train.warmup_steps = 100
    config.sample.num_samples = 512
    config.evaluate.num_examples = 512
    config.evaluate.carried_steps = (8, 32)
    config.compare.rates = (0.5, 1.0)
    config.compare.seeds = (0, 1, 2)
    config.compare.step_counts = (8, 32, 64)
    config.compare.temperatures = (0.9, 0.95, 1.0, 1.05)
  return config
