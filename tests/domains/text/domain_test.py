import jax
import numpy as np
import pytest

from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.domains.text import domain
from scmdm_jax.judges.reading import text_features
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import judges
from tests.compiling import quick_jit
from tests.data.tokenizers import tiny
from tests.models.parameters import random_params

FILES = tiny.files(tiny.bpe())
PIECES = from_files(FILES, mask_id=None, vocab_size=300, where='here')
WORDS = from_files(
  tiny.files(tiny.word_level()), mask_id=None, vocab_size=30, where='here'
)
TEXTS = ('low lower', 'wide', 'newest low low', 'lower')


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  compiled = (judges._compiled_nll, judges._compiled_features)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    for cached in compiled:
      cached.cache_clear()
    yield
    for cached in compiled:
      cached.cache_clear()


@pytest.fixture(scope='module')
def model():
  """A causal model of words, its weights random."""
  description = ModelDescription(DecoderConfig(30, 12, 16, 2, 2, 2, 16), None, '')
  return random_params(description), description


@pytest.fixture(scope='module')
def judge(model):
  return judges.causal_judge(*model, WORDS, 64)


def framed(texts, length=24):
  """Texts as rows of pieces: start, text, ends."""
  rows = np.full((len(texts), length), PIECES.eos_id)
  for row, written in zip(rows, texts, strict=True):
    ids = PIECES.encode_text(written)
    row[: 1 + len(ids)] = [PIECES.bos_id, *ids]
  return rows


def test_features_are_of_the_last_word(model):
  judge = judges.causal_judge(*model, WORDS, 3)
  found = text_features(judge, framed(TEXTS), PIECES)
  params, description = model

  @quick_jit  # Operation by operation, each would be compiled alone.
  def hidden(params, rows, ends):
    return judges.last_hidden(denoiser.bind(params, description), rows, ends)

  for written, vector in zip(TEXTS, found, strict=True):
    # The judge reads its own start token where the sample begins; the ends behind the
    # text change nothing.
    alone = np.array([[WORDS.bos_id, *WORDS.encode_text(written)]], np.int32)
    last = np.array([alone.shape[1] - 1])
    expected = hidden(params, alone, last)[0]
    # Sums of another length are rounded otherwise.
    np.testing.assert_allclose(vector, expected, atol=1e-5)
  judge = judges.causal_judge(*model, WORDS, 1)
  one_by_one = text_features(judge, framed(TEXTS), PIECES)
  np.testing.assert_allclose(one_by_one, found, atol=1e-5)


def test_a_sample_of_ends_has_features(judge):
  rows = np.full((2, 24), PIECES.eos_id)
  assert np.isfinite(text_features(judge, rows, PIECES)).all()


def test_mauve_stands_among_the_measures_when_asked(judge):
  rng = np.random.default_rng(0)
  words = tiny.TEXT.split()

  def draw(vocabulary):
    return framed([' '.join(rng.choice(vocabulary, 3)) for _ in range(60)])

  real = text_features(judge, draw(words), PIECES)

  def measured(samples):
    return domain.measures(samples, PIECES, judge, real, range(2))

  like, unlike = measured(draw(words)), measured(draw(words[:2]))
  assert 0 < unlike['mauve'] < 0.5 < like['mauve'] <= 1
  assert like['mauve_spread'] >= 0
  assert like['generative_perplexity'] > 1
  without = domain.measures(draw(words), PIECES, judge)
  assert 'mauve' not in without and without['generative_perplexity'] > 1
  nobody = domain.measures(draw(words), PIECES, None)
  assert nobody['generative_perplexity'] is None
