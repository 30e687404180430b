r"""Self-conditioning on prose by letters, 21 M parameters, L = 256: for one H100.

  run() { launch/local.sh python -m scmdm_jax.main "$@"; }
  run --config=configs/letters_h100.py:base --workdir=runs/letters_h100_base
  run --config=configs/letters_h100.py:judge --workdir=runs/letters_h100_judge
  run --config=configs/letters_h100.py --workdir=runs/letters_h100
  launch/local.sh python -m scmdm_jax.runs.evidence docs letters_h100=runs/letters_h100

The study of letters_small.py where there is a GPU; no accelerator has run it. Sized for
ten minutes: at an MFU of 0.2 the base takes two of them, the judge a quarter of one,
the adaptation (a tenth of the base's FLOPs) and its control half of one, 1024 texts of
each arm after each number of steps and bounds five. A further seed takes as long as
those last: --config.compare.seeds=(0,1). docs/text_data.md says how to make the file
of letters. The last command leaves docs/evidence/letters_h100.json, which wants a
section with these commands in docs/evidence/page.md.
"""

from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'base', 'judge'] = 'compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'text'
  config.data.source = 'runs/prose/letters.jsonl'
  config.data.tokenizer = 'text8'
  config.data.frame = False
  config.data.length = 256
  config.train.batch_size = 128
  config.train.dtype = 'bfloat16'
  config.sample.dtype = 'bfloat16'
  if stage == 'base':
    config.method.rate = 0.0
    config.model.architecture = 'dream'
    config.model.hidden_dim = 448
    config.model.num_blocks = 8
    config.model.num_heads = 7
    config.model.mlp_ratio = 3
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 300
    config.train.num_steps = 6000
    config.train.save_every = 2000
    config.train.ema_decay = 0.999
  elif stage == 'judge':
    config.method.rate = 0.0
    config.method.objective = 'causal'
    config.model.architecture = 'llama'
    config.model.hidden_dim = 256
    config.model.num_blocks = 4
    config.model.num_heads = 4
    config.model.mlp_ratio = 3
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 200
    config.train.num_steps = 4000
    config.train.save_every = 2000
  else:
    config.checkpoint = 'runs/letters_h100_base'
    config.judge = 'runs/letters_h100_judge'
    config.train.learning_rate = 3e-4
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 450
    config.train.warmup_steps = 50
    config.sample.num_samples = 1024
    config.sample.batch_size = 512
    config.sample.num_steps = 512
    config.evaluate.num_examples = 256
    config.evaluate.batch_size = 128
    config.evaluate.repeats = 2
    config.evaluate.carried_steps = (256, 512)
    config.evaluate.ngram_order = 8
    config.compare.rates = (1.0,)
    config.compare.equal_steps = False
    config.compare.seeds = (0,)
    config.compare.step_counts = (64, 128, 256, 512)
    config.compare.temperatures = (0.9, 1.0)
    config.compare.benchmark_pairs = 0
  return config
