r"""What the carried prediction is worth to molecules' bases of other widths.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/width_small.py:48_base --workdir=runs/width/48_base
  run --config=configs/width_small.py:48 --workdir=runs/width/48

and likewise 192. All have the three layers of the bundled base, which is 96 wide
(qm9_compare.py). Result in docs/evidence.md, "Other widths".
"""

import importlib.resources

from scmdm_jax.settings import default_config


def get_config(stage='48'):
  width, _, role = stage.partition('_')
  config = default_config()
  config.train.save_every = 1000
  config.train.warmup_steps = 100
  if role:
    config.mode = 'train'
    config.method.rate = 0.0
    config.model.hidden_dim = int(width)
    config.model.num_blocks = 3
    config.model.num_heads = 4
    config.model.cond_dim = 32
    config.train.batch_size = 128
    config.train.num_steps = {48: 14000, 192: 6000}[int(width)]
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 500
    config.train.ema_decay = 0.999
    return config
  config.mode = 'compare'
  config.checkpoint = f'runs/width/{width}_base'
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.judge = str(assets / 'qm9_judge')
  config.train.num_steps = 800
  config.train.batch_size = 64
  config.train.learning_rate = 3e-4
  config.train.injection_rate_factor = 10.0
  config.sample.num_samples = 2048
  config.sample.batch_size = 128
  config.evaluate.num_examples = 512
  config.evaluate.repeats = 4
  config.evaluate.batch_size = 128
  config.evaluate.carried_steps = (8, 32)
  config.compare.rates = (1.0,)
  config.compare.equal_steps = False
  config.compare.seeds = (0, 1, 2, 3, 4)
  config.compare.step_counts = (8, 32)
  config.compare.temperatures = (0.95, 1.0, 1.05)
  config.compare.benchmark_pairs = 0
  return config
