r"""The paper's OpenWebText row at its own scale: generative perplexity 42.89 -> 23.72.

  python -m scmdm_jax.main --config=configs/owt_paper.py --workdir=DIR \
      --config.checkpoint=MDLM --config.data.source=OWT --config.data.tokenizer=GPT2 \
      --config.judge=GPT2_LARGE

Directories as they are downloaded from Hugging Face: MDLM kuleshov-group/mdlm-owt, OWT
the parquet files of Skylion007/openwebtext, GPT2 and GPT2_LARGE openai-community/gpt2
(its tokenizer) and gpt2-large (with its tokenizer).

Data and wrapping are MDLM's, the adaptation's 3.25B tokens and 1000 steps the paper's;
its optimizer is not published, so that these settings are ours (as in mdlm_owt.py,
which plans it). Zero-shot perplexities of an adapted model: --mode=evaluate with
--config.checkpoint, --config.data.name=ptb and --config.data.source=..., and so on for
lambada, wikitext, lm1b, ag_news, pubmed, arxiv. Not run at this scale by us.
"""

from scmdm_jax.settings import default_config


def get_config():
  config = default_config()
  config.mode = 'compare'
  config.data.name = 'openwebtext'
  config.data.length = 1024
  # MDLM's checkpoint brings none along: --config.data.tokenizer gives GPT-2's.
  config.data.tokenizer = 'checkpoint'
  config.train.batch_size = 512
  config.train.num_steps = 6200
  config.train.warmup_steps = 250
  config.train.learning_rate = 3e-4
  config.train.injection_rate_factor = 10.0  # As in qm9_compare.py.
  config.train.ema_decay = 0.9999
  config.train.save_every = 1000
  config.sample.num_samples = 1024
  config.sample.batch_size = 16
  config.sample.num_steps = 1000
  config.evaluate.num_examples = 1024
  config.evaluate.batch_size = 16
  config.evaluate.carried_steps = (128,)
  config.compare.rates = (0.5, 1.0)
  config.compare.seeds = (0, 1, 2)
  config.compare.step_counts = (128, 256, 512, 1000)
  config.compare.temperatures = (0.9, 0.95, 1.0)
  return config
