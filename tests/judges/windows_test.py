import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scmdm_jax.judges.windows import score, windows
from scmdm_jax.training.losses import causal_nll
from tests.training.losses_test import TOKENS, VOCAB, Toy, make_toy


@pytest.mark.parametrize('count', [0, 1, 2, 5, 6, 7, 8, 11, 30])
@pytest.mark.parametrize(('length', 'stride'), [(5, 5), (5, 2), (5, 1), (1, 1)])
def test_windows_score_every_token_but_the_first_once(count, length, stride):
  text = np.arange(count, dtype=np.int32)
  seen = []
  for window in windows(text, length, stride):
    assert 2 <= len(window.tokens) <= length + 1
    assert len(window.scored) == len(window.tokens) - 1
    np.testing.assert_array_equal(np.diff(window.tokens), 1)  # A stretch.
    for place, target in enumerate(window.tokens[1:], 1):
      if window.scored[place - 1]:
        seen.append(int(target))
        # All of the text before it, or what the overlap guarantees.
        assert place >= min(target, length + 1 - stride)
  assert seen == list(range(1, count))


@pytest.mark.parametrize('stride', [0, 6])
def test_a_stride_that_skips_or_stands_still_is_refused(stride):
  with pytest.raises(ValueError, match=f'stride is {stride}'):
    next(windows(np.arange(9), 5, stride))


@pytest.mark.parametrize(('length', 'stride', 'batch_size'), [(4, 2, 3), (4, 4, 1)])
def test_score_of_long_and_short_texts_token_by_token(length, stride, batch_size):
  toy = make_toy()
  table, head = np.asarray(toy.table, np.float64), np.asarray(toy.head, np.float64)
  rng = np.random.default_rng(2)
  texts = [rng.integers(0, VOCAB, n).astype(np.int32) for n in (13, 2, 1, 5, 0, 6)]
  nll, count = 0.0, 0
  for text in texts:
    for target in range(1, len(text)):
      # The window that reaches the target first, counting from the text's start.
      start = 0
      while target > start + length:
        start += stride
      scores = table[text[start:target]].sum(0) @ head
      nll -= scores[text[target]] - np.log(np.exp(scores).sum())
      count += 1
  found = score(
    jax.jit(lambda tokens: causal_nll(toy, tokens)),
    texts,
    length=length,
    stride=stride,
    batch_size=batch_size,
  )
  assert found.tokens == count == 12 + 1 + 4 + 5
  assert found.nll == pytest.approx(nll, rel=1e-5)  # Float32 log-probabilities.
  assert found.perplexity == pytest.approx(np.exp(nll / count), rel=1e-5)


def test_texts_weigh_by_their_tokens():
  # The uniform model of a vocabulary: log V for every token, whatever the texts.
  toy = Toy(jnp.zeros((VOCAB, 4)), jnp.zeros((4, VOCAB)))
  texts = [TOKENS[0], TOKENS[1, :2]]
  found = score(
    lambda tokens: causal_nll(toy, tokens), texts, length=3, stride=2, batch_size=2
  )
  assert found.tokens == 6
  assert found.perplexity == pytest.approx(VOCAB, rel=1e-6)


def test_nothing_to_score_has_no_perplexity():
  found = score(pytest.fail, [], length=3, stride=2, batch_size=2)
  assert found.tokens == 0
  assert np.isnan(found.perplexity)
