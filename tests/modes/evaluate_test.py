import dataclasses
import math

import jax
import numpy as np
import pytest

from scmdm_jax.data.pipeline import Encoded
from scmdm_jax.data.tokenizers import from_files, get_tokenizer
from scmdm_jax.diffusion.schedules import LogLinear
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import DecoderConfig, DiTConfig, ModelDescription
from scmdm_jax.modes import evaluate, sample
from scmdm_jax.modes.models import Judge
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.settings import EvaluateSettings
from tests.compiling import quick_jit
from tests.data.tokenizers import tiny as tiny_tokenizers

TOKENIZER = get_tokenizer('smiles_qm9')
TEXTS = ['CCO', 'c1ccoc1', 'C#N', 'CC(C)=O', 'OCC1CC1']
MODEL = ModelDescription(
  DiTConfig(35, 12, 16, 1, 2, 8), TOKENIZER.mask_id, 'smiles_qm9', 'embedding'
)
JUDGE = ModelDescription(DecoderConfig(35, 12, 16, 1, 2, 2, 16), None, 'smiles_qm9')
OPTIONS = EvaluateSettings(
  num_examples=5, batch_size=2, repeats=200, carried_steps=(1, 3)
)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  compiled = (
    evaluate._compiled_nelbo,
    evaluate._compiled_carried,
    evaluate.compiled_nll,
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    for cached in compiled:
      cached.cache_clear()
    yield
    for cached in compiled:
      cached.cache_clear()


def uniform(description):
  """A model of `description` that finds every token equally likely."""
  params = denoiser.init_params(jax.random.key(0), description)
  if description.mask_id is None:
    kernel = params['backbone']['lm_head']['kernel']
    params['backbone']['lm_head']['kernel'] = np.zeros_like(kernel)
  return description, params


def likelihood(model, options=OPTIONS):
  key = jax.random.key(1)
  rows = Encoded(TEXTS, TOKENIZER, 12)
  return evaluate.likelihood(model, LogLinear(), rows, options, key, one_device())


def test_likelihood_of_the_uniform_model():
  found = likelihood(uniform(MODEL))
  # 34 clean tokens. In one step everything is masked and revealed: no randomness.
  assert found['carried_elbo']['1'] == pytest.approx(math.log(34), rel=1e-5)
  # With weight 1/t the count of masked positions over t has mean 1 - eps per token and
  # standard deviation sqrt(E[(1-t)/t] / 12) <= sqrt(ln(1000) / 12) = 0.76; 1000 draws.
  tolerance = 4 * 0.76 / math.sqrt(1000) * math.log(34)
  assert found['nelbo_null'] == pytest.approx(0.999 * math.log(34), abs=tolerance)
  # The fresh injection is the identity and the signal changes nothing.
  assert found['nelbo_two_pass'] == pytest.approx(found['nelbo_null'], rel=1e-6)


def test_padding_rows_of_the_last_batch_do_not_count():
  options = dataclasses.replace(OPTIONS, repeats=1, carried_steps=(1,))
  params = jax.tree.map(
    lambda x: (0.3 * np.random.default_rng(x.size).standard_normal(x.shape)).astype(
      np.float32
    ),
    denoiser.abstract_params(MODEL),
  )
  # T = 1 has no randomness, so the mean over five texts has one value.
  values = [
    likelihood((MODEL, params), dataclasses.replace(options, batch_size=size))
    for size in (1, 2, 5)
  ]
  carried = [v['carried_elbo']['1'] for v in values]
  np.testing.assert_allclose(carried, carried[0], rtol=1e-5)


def test_perplexity_of_the_uniform_judge_is_the_vocabulary():
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in TEXTS])
  judge = Judge(*uniform(JUDGE), TOKENIZER)
  found = evaluate.generative_perplexity(judge, tokens, TOKENIZER, 2)
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
  assert evaluate._framed(ragged, TOKENIZER) == expected


def test_tokens_up_to_the_end_count(monkeypatch):
  texts = ['CCO', '', 'c1ccoc1']
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in texts])
  monkeypatch.setattr(
    evaluate, 'compiled_nll', lambda _: lambda params, tokens: tokens[:, 1:] / 100
  )
  pieces = [TOKENIZER.tokens.index(piece) for text in texts for piece in text]
  costs = [token / 100 for token in (*pieces, *[TOKENIZER.eos_id] * 3)]
  judge = Judge(JUDGE, None, TOKENIZER)
  found = evaluate.generative_perplexity(judge, tokens, TOKENIZER, 2)
  assert found == pytest.approx(math.exp(sum(costs) / len(costs)), rel=1e-12)


def test_measures_of_known_samples():
  texts = ['CCO', 'CCO', 'C1CC', 'OCC']
  tokens = np.stack([TOKENIZER.encode(text, 12) for text in texts])
  drawn = sample.Drawn(tokens, None, 7, 0.0)
  judge = Judge(*uniform(JUDGE), TOKENIZER)
  found = evaluate.judge_samples('molecules', drawn, TOKENIZER, {'CCO'}, judge, 2)
  assert (found['count'], found['valid'], found['evaluations']) == (4, 3, 7)
  assert found['valid_rate'] == 0.75
  assert found['unique_rate'] == pytest.approx(2 / 3)
  assert found['novel_rate'] == pytest.approx(1 / 3)  # OCC, by its string alone.
  assert found['canonical_novel_rate'] == 0
  assert found['valid_canonical_unique_rate'] == 0.25
  assert found['generative_perplexity'] == pytest.approx(35, rel=1e-5)
  without = evaluate.judge_samples('molecules', drawn, TOKENIZER, {'CCO'}, None, 2)
  assert without['generative_perplexity'] is None


def test_a_judge_with_another_tokenizer_reads_the_text(monkeypatch):
  text8 = get_tokenizer('text8')
  definition = tiny_tokenizers.word_level()
  files = tiny_tokenizers.files(definition)
  words = from_files(files, mask_id=None, vocab_size=30, where='here')
  description = ModelDescription(
    DecoderConfig(30, 12, 16, 1, 2, 2, 16), None, 'tokenizer.json'
  )
  judge = Judge(*uniform(description), words)
  samples = np.stack([text8.encode(text, 14) for text in ('low lower', 'wide', '')])
  low, lower, wide = (words.encode_text(x).tolist() for x in ('low', 'lower', 'wide'))
  start, end = words.bos_id, words.eos_id
  # Characters have no end token, so that no end is asked for but an empty text's.
  expected = [[start, *low, *lower], [start, *wide], [start, end]]
  assert evaluate._reread(samples, text8, judge) == expected
  found = evaluate.generative_perplexity(judge, samples, text8, 2)
  assert found == pytest.approx(30, rel=1e-5)
  # A judge to whom every token costs a hundredth of its id shows which ones count.
  monkeypatch.setattr(
    evaluate, 'compiled_nll', lambda _: lambda params, tokens: tokens[:, 1:] / 100
  )
  costs = [token / 100 for row in expected for token in row[1:]]
  found = evaluate.generative_perplexity(judge, samples, text8, 2)
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
  judge = Judge(description, None, causal)
  start = causal.bos_id
  rows = evaluate._reread(samples, pieces, judge)
  assert rows[0] == [start, *low, end, *new]
  assert rows[1] == [start, *low, end]
  assert len(rows[2]) == 12 and rows[2][0] == start
  # A judge of characters has neither start nor end.
  judge = Judge(description, None, text8)
  rows = evaluate._reread(samples, pieces, judge)
  assert rows[0] == text8.encode_text('lownew').tolist()
