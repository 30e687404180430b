r"""Self-conditioning on images, on two cores: Fashion-MNIST at 14 x 14 in 16 greys.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/fashion_small.py:base --workdir=runs/fashion_base

The images come from a Debian package (MIT): apt-get install dataset-fashion-mnist.
"""

from scmdm_jax.settings import default_config


def get_config(stage='compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'fashion_mnist'
  config.data.side = 14
  config.data.length = 197
  config.data.tokenizer = 'pixels:16'
  config.model.hidden_dim = 96
  config.model.num_blocks = 4
  config.model.num_heads = 3
  config.model.cond_dim = 32
  config.train.batch_size = 32
  config.train.learning_rate = 2e-3
  config.train.num_steps = 2000
  config.train.warmup_steps = 150
  config.train.save_every = 250
  if stage == 'base':
    config.method.rate = 0.0
  elif stage == 'classifier':
    config.method.rate = 0.0
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.model.hidden_dim = 48
    config.model.kernel_size = 3
    config.model.num_blocks = 3
    config.train.batch_size = 128
    config.train.num_steps = 1500
    config.train.ema_decay = 0.99
  return config
