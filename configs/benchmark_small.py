r"""What sampling and training cost at the shapes of MDLM-small, with random weights.

launch/local.sh python -m scmdm_jax.main --config=configs/benchmark_small.py \
    --workdir=DIR

The PyTorch sampler is measured beside ours where PyTorch is installed.
"""

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'benchmark'
  config.data.length = 128
  config.model.hidden_dim = 768
  config.model.num_blocks = 12
  config.model.num_heads = 12
  config.model.cond_dim = 128
  config.sample.batch_size = 4
  config.sample.num_steps = 8
  config.train.batch_size = 8
  config.benchmark.vocab_size = 50258
  config.benchmark.batch_sizes = (1, 2, 4, 8)
  config.benchmark.step_counts = (2, 4, 8)
  config.benchmark.lengths = (64, 128, 256)
  config.benchmark.vocab_sizes = (12_500, 25_000, 50_258)
  return config
