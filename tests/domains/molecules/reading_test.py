import math

import jax
import numpy as np
import pytest

from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.domains.molecules import reading
from scmdm_jax.domains.registry import get_tokenizer
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import judges
from tests.compiling import quick_jit
from tests.data.tokenizers import tiny as tiny_tokenizers
from tests.models.parameters import random_params

TOKENIZER = get_tokenizer('smiles_qm9')
TEXTS = ['CCO', 'c1ccoc1', 'C#N', 'CC(C)=O', 'OCC1CC1']
JUDGE = ModelDescription(DecoderConfig(35, 12, 16, 1, 2, 2, 16), None, 'smiles_qm9')


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    judges._compiled_nll.cache_clear()
    yield
    judges._compiled_nll.cache_clear()


def uniform(description):
  """A causal model of `description` that finds every token equally likely."""
  params = random_params(description)
  kernel = params['backbone']['lm_head']['kernel']
  params['backbone']['lm_head']['kernel'] = np.zeros_like(kernel)
  return params, description


def test_perplexity_of_the_uniform_judge_is_the_vocabulary():
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in TEXTS])
  judge = judges.causal_judge(*uniform(JUDGE), TOKENIZER, 2)
  found = reading.generative_perplexity(judge, tokens, TOKENIZER)
  assert found == pytest.approx(35, rel=1e-5)


def test_the_judge_reads_start_visible_tokens_and_end():
  carbon = TOKENIZER.tokens.index('C')
  bos, eos, pad = TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id
  ragged = np.array(
    [[bos, carbon, pad, carbon, eos], [pad] * 5, [carbon] * 5, [TOKENIZER.unk_id] * 5]
  )
  expected = [
    [bos, carbon, carbon, eos],
    [bos, eos],
    [bos] + [carbon] * 5 + [eos],
    [bos] + [TOKENIZER.unk_id] * 5 + [eos],
  ]
  assert reading._framed(ragged, TOKENIZER) == expected


def test_tokens_up_to_the_end_count(monkeypatch):
  texts = ['CCO', '', 'c1ccoc1']
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in texts])
  monkeypatch.setattr(
    judges, '_compiled_nll', lambda _: lambda params, tokens: tokens[:, 1:] / 100
  )
  pieces = [TOKENIZER.tokens.index(piece) for text in texts for piece in text]
  costs = [token / 100 for token in (*pieces, *[TOKENIZER.eos_id] * 3)]
  judge = judges.causal_judge(None, JUDGE, TOKENIZER, 2)
  found = reading.generative_perplexity(judge, tokens, TOKENIZER)
  assert found == pytest.approx(math.exp(sum(costs) / len(costs)), rel=1e-12)


def test_a_judge_with_another_tokenizer_reads_the_text(monkeypatch):
  text8 = get_tokenizer('text8')
  definition = tiny_tokenizers.word_level()
  files = tiny_tokenizers.files(definition)
  words = from_files(files, mask_id=None, vocab_size=30, where='here')
  description = ModelDescription(
    DecoderConfig(30, 12, 16, 1, 2, 2, 16), None, 'tokenizer.json'
  )
  judge = judges.causal_judge(*uniform(description), words, 2)
  samples = np.stack([text8.encode(text, 14) for text in ('low lower', 'wide', '')])
  low, lower, wide = (words.encode_text(x).tolist() for x in ('low', 'lower', 'wide'))
  start, end = words.bos_id, words.eos_id
  # Characters have no end token, so that no end is asked for but an empty text's.
  expected = [[start, *low, *lower], [start, *wide], [start, end]]
  assert reading._reread(samples, text8, judge) == expected
  found = reading.generative_perplexity(judge, samples, text8)
  assert found == pytest.approx(30, rel=1e-5)
  # A judge to whom every token costs a hundredth of its id shows which ones count.
  monkeypatch.setattr(
    judges, '_compiled_nll', lambda _: lambda params, tokens: tokens[:, 1:] / 100
  )
  costs = [token / 100 for row in expected for token in row[1:]]
  found = reading.generative_perplexity(judge, samples, text8)
  assert found == pytest.approx(math.exp(sum(costs) / len(costs)), rel=1e-12)


def test_documents_that_end_are_ended_for_the_judge():
  definition = tiny_tokenizers.bpe()
  files = tiny_tokenizers.files(definition)
  mask = definition['added_tokens'][3]['id']
  pieces = from_files(files, mask_id=mask, vocab_size=300, where='here')
  text8 = get_tokenizer('text8')
  description = ModelDescription(DecoderConfig(300, 12, 16, 1, 2, 2, 16), None, '')
  low, new = (pieces.encode_text(x).tolist() for x in ('low', 'new'))
  end, pad = pieces.eos_id, pieces.pad_id
  samples = np.full((3, 16), pad)
  samples[0, : len(low) + 1 + len(new)] = [*low, end, *new]
  samples[1, : len(low) + 2] = [end, *low, end]
  samples[2] = (low * 16)[:16]
  causal = from_files(files, mask_id=None, vocab_size=300, where='here')
  judge = judges.causal_judge(None, description, causal, 2)
  start = causal.bos_id
  rows = reading._reread(samples, pieces, judge)
  assert rows[0] == [start, *low, end, *new]
  assert rows[1] == [start, *low, end]
  assert len(rows[2]) == 12 and rows[2][0] == start
  # A judge of characters has neither start nor end.
  judge = judges.causal_judge(None, description, text8, 2)
  rows = reading._reread(samples, pieces, judge)
  assert rows[0] == text8.encode_text('lownew').tolist()
