r"""Ten species at the published scale: a base, a classifier, the comparison.

Not run by us. The recipe is UDLM's (kuleshov-group/discrete-diffusion-guidance):
stretches of 32,768 bases, batch 32, 30,000 steps, peak rate 2e-3 after 3,000 steps of
warm-up and a cosine to 2e-6; 64 samples per species in 128 steps. What differs:

* the backbone is a transformer that sees 256 bases either way and the class token,
  instead of DiMamba (8 bidirectional blocks, width 256): a state space model has no
  cheap kernel in JAX, whereas blocks of attention are matrix products, which is what a
  TPU is made for; width and number of blocks are DiMamba's. Eight windows reach 2,048
  bases either way; what lies further apart meets in the class token;
* the species is a token in front of the bases rather than a vector in every block, and
  is masked like any other, as a base is, instead of dropped for one example in ten;
* the classifier and the discriminator are convolutional, not HyenaDNA;
* what the SCMDM paper adapted, and how, is not published: 3,000 steps at 3e-4 are ours.

  run() { launch/tpu_vm.sh run python -m scmdm_jax.main "$@"; }
  run --config=configs/ten_species_paper.py:base --workdir=runs/ten_species_base
  run --config=configs/ten_species_paper.py:classifier --workdir=runs/ten_species_judge
  run --config=configs/ten_species_paper.py --workdir=runs/ten_species_compare

The base takes 3.61 of 14.9 GiB on v5e:4x4, by --mode=plan. docs/genome_data.md says
where the data come from.
"""

from typing import Literal

from scmdm_jax.settings import default_config


def get_config(stage: Literal['compare', 'base', 'classifier'] = 'compare'):
  config = default_config()
  config.mode = 'compare' if stage == 'compare' else 'train'
  config.data.name = 'ten_species'
  config.data.source = 'ten_species.parquet'
  config.data.tokenizer = 'species:10'
  config.data.length = 32769
  config.model.hidden_dim = 256
  config.model.num_blocks = 8
  config.model.num_heads = 4
  config.model.cond_dim = 128
  config.model.window = 256
  config.train.batch_size = 32
  config.train.learning_rate = 2e-3
  config.train.final_learning_rate = 2e-6
  config.train.num_steps = 30_000
  config.train.warmup_steps = 3_000
  config.train.ema_decay = 0.9999
  config.train.dtype = 'bfloat16'
  config.train.remat = 'full'
  config.sample.num_samples = 640
  config.sample.batch_size = 32
  config.sample.num_steps = 128
  config.evaluate.batch_size = 32
  config.plan.topology = 'v5e:4x4'
  if stage == 'base':
    config.method.rate = 0.0
  elif stage == 'classifier':
    config.method.rate = 0.0
    config.method.objective = 'classify'
    config.model.architecture = 'conv'
    config.model.num_blocks = 8
    config.model.kernel_size = 9
    config.train.learning_rate = 1e-3
    config.train.final_learning_rate = 0.0
  else:
    config.checkpoint = 'runs/ten_species_base'
    config.judge = 'runs/ten_species_judge'
    config.train.learning_rate = 3e-4
    config.train.final_learning_rate = 0.0
    config.train.injection_rate_factor = 10.0
    config.train.num_steps = 3_000
    config.train.warmup_steps = 300
    config.evaluate.carried_steps = (32, 128)
    config.compare.rates = (0.5, 1.0)
    config.compare.seeds = (0, 1, 2)
    config.compare.step_counts = (32, 128)
    config.compare.benchmark_pairs = 0
  return config
