r"""Self-conditioning on prose by letters, on one core: base, judge, adaptations.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/letters_small.py:base --workdir=runs/letters_base
  run --config=configs/letters_small.py:judge --workdir=runs/letters_judge
  run --config=configs/letters_small.py --workdir=runs/letters_compare
  run --config=configs/letters_small.py:whole --workdir=runs/letters_whole

The last two compare from the model in scmdm_jax/assets/letters_base, by the judge in
scmdm_jax/assets/letters_judge: rows of half its length and of the whole. Rows of twice
its length have a base and a judge of their own, bundled as well:

  run --config=configs/letters_small.py:base_128 --workdir=runs/letters_base_128
  run --config=configs/letters_small.py:judge_128 --workdir=runs/letters_judge_128
  run --config=configs/letters_small.py:rows_128 --workdir=runs/letters_128

The text is 27 letters, as text8's; docs/text_data.md says how to make the file.
"""

import importlib.resources
from typing import Literal

from scmdm_jax.settings import default_config


def get_config(
  stage: Literal[
    'compare', 'whole', 'base', 'judge', 'rows_128', 'base_128', 'judge_128'
  ] = 'compare',
):
  config = default_config()
  assets = importlib.resources.files('scmdm_jax') / 'assets'
  config.mode = 'compare' if stage in ('compare', 'whole', 'rows_128') else 'train'
  config.data.name = 'text'
  config.data.source = 'runs/prose/letters.jsonl'
  config.data.length = 64
  config.data.tokenizer = 'text8'
  config.data.frame = False
  config.model.hidden_dim = 96
  config.train.batch_size = 32
  config.sample.batch_size = 128
  config.evaluate.batch_size = 128
  name, _, length = stage.partition('_')
  if length:
    config.data.length = int(length)
    config.train.batch_size = 16
  if name == 'base':
    config.method.rate = 0.0
    config.model.architecture = 'dream'
    config.model.mlp_ratio = 3
    config.train.learning_rate = 3e-3
    config.train.warmup_steps = 200
    config.train.num_steps = 7200 if length else 4800
    config.train.save_every = 1000
  elif name == 'judge':
    config.method.rate = 0.0
    config.method.objective = 'causal'
    config.model.architecture = 'llama'
    config.model.hidden_dim = 128
    config.model.mlp_ratio = 3
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 200
    config.train.num_steps = 4000
    config.train.save_every = 1000
  else:
    config.checkpoint = str(assets / 'letters_base')
    config.judge = str(assets / 'letters_judge')
    # A seventh of the base's own training, at half its length, where sampling for T = L
    # steps is affordable; `whole` takes twice that.
    config.data.length = 32
    config.train.num_steps = 1000
    config.train.warmup_steps = 50
    config.train.save_every = 1000
    config.train.learning_rate = 1e-3
    config.train.injection_rate_factor = 3.0
    config.sample.num_samples = 512
    config.sample.num_steps = 32
    config.evaluate.num_examples = 256
    config.evaluate.repeats = 2
    config.evaluate.carried_steps = (8, 32)
    config.evaluate.ngram_order = 8
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.compare.rates = (1.0,)
    config.compare.recipes = (
      'unrolled:passes=3,rate=0.9',
      'same_t:injection=table',
      'earlier_t:rate=0.9',
    )
    config.compare.equal_steps = False
    config.compare.step_counts = (8, 32, 64)
    config.compare.temperatures = (0.9, 1.0)
    config.compare.benchmark_pairs = 0
    if stage != 'compare':
      config.data.length = int(length or 64)
      config.train.learning_rate = 3e-4
      config.train.injection_rate_factor = 10.0
      config.sample.num_samples = 1024
      config.sample.num_steps = config.data.length
      config.compare.recipes = ()
    if stage == 'whole':
      config.train.evaluate_every = 250
      config.evaluate.carried_steps = (64, 128)
      config.compare.step_counts = (64, 128)
    elif stage == 'rows_128':
      config.checkpoint = str(assets / 'letters_base_128')
      config.judge = str(assets / 'letters_judge_128')
      config.train.num_steps = 1500
      config.evaluate.carried_steps = (128,)
      config.compare.step_counts = (128,)
  return config
