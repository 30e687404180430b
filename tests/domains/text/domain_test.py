import jax
import numpy as np
import pytest

from scmdm_jax.data.tokenizers import from_files
from scmdm_jax.domains.text import domain
from scmdm_jax.domains.text.mauve import last_hidden
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.runs import perplexity
from scmdm_jax.runs.opening import Model
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
  compiled = (perplexity.compiled_nll, perplexity.compiled_features)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'jit', quick_jit)
    for cached in compiled:
      cached.cache_clear()
    yield
    for cached in compiled:
      cached.cache_clear()


@pytest.fixture(scope='module')
def judge():
  """A causal model of words, its weights random."""
  description = ModelDescription(DecoderConfig(30, 12, 16, 2, 2, 2, 16), None, '')
  return Model(description, random_params(description), WORDS)


def framed(texts, length=24):
  """Texts as rows of pieces: start, domain, ends."""
  rows = np.full((len(texts), length), PIECES.eos_id)
  for row, written in zip(rows, texts, strict=True):
    ids = PIECES.encode_text(written)
    row[: 1 + len(ids)] = [PIECES.bos_id, *ids]
  return rows


def test_features_are_of_the_last_word(judge):
  found = perplexity.text_features(judge, framed(TEXTS), PIECES, 3)
  network = denoiser.bind(judge.params, judge.description)
  for written, vector in zip(TEXTS, found, strict=True):
    # The judge reads its own start token where the sample begins; the ends behind the
    # text change nothing.
    alone = np.array([[WORDS.bos_id, *WORDS.encode_text(written)]], np.int32)
    last = np.array([alone.shape[1] - 1])
    expected = last_hidden(network, alone, last)[0]
    # Sums of another length are rounded otherwise.
    np.testing.assert_allclose(vector, expected, atol=1e-5)
  one_by_one = perplexity.text_features(judge, framed(TEXTS), PIECES, 1)
  np.testing.assert_allclose(one_by_one, found, atol=1e-5)


def test_a_sample_of_ends_has_features(judge):
  rows = np.full((2, 24), PIECES.eos_id)
  assert np.isfinite(perplexity.text_features(judge, rows, PIECES, 2)).all()


def test_mauve_stands_among_the_measures_when_asked(judge):
  rng = np.random.default_rng(0)
  words = tiny.TEXT.split()

  def draw(vocabulary):
    return framed([' '.join(rng.choice(vocabulary, 3)) for _ in range(60)])

  real = perplexity.text_features(judge, draw(words), PIECES, 64)

  def measured(samples):
    return domain.measures(samples, PIECES, judge, 64, real, range(2))

  like, unlike = measured(draw(words)), measured(draw(words[:2]))
  assert 0 < unlike['mauve'] < 0.5 < like['mauve'] <= 1
  assert like['mauve_spread'] >= 0
  assert like['generative_perplexity'] > 1
  without = domain.measures(draw(words), PIECES, judge, 64)
  assert 'mauve' not in without and without['generative_perplexity'] > 1
  nobody = domain.measures(draw(words), PIECES, None, 64)
  assert nobody['generative_perplexity'] is None
