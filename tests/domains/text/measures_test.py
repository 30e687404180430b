import math

import numpy as np
import pytest

from scmdm_jax.domains.text import measures


def test_repetition_by_hand():
  # abababab: of its five 4-grams abab, baba, abab, baba, abab two are different.
  assert measures.repetition(np.array([[1, 2] * 4])) == pytest.approx(3 / 5)
  assert measures.repetition(np.arange(8)[None]) == 0
  # Averaged over samples; those too short have nothing to repeat.
  both = np.array([[1, 2] * 4, [0, 0, 0, 0, 0, 1, 2, 3]])
  assert measures.repetition(both, 4, ignored=(0,)) == pytest.approx(3 / 5 / 2)
  assert measures.repetition(np.zeros((0, 8), int)) == 0
  found = measures.judge_text(np.array([[1, 2] * 4]), ())
  assert found == {'distinct_2': pytest.approx(2 / 7), 'repetition_4': 0.6}


def test_perplexities_keep_their_names():
  likelihood = {'nelbo_null': math.log(27), 'carried_nelbo': {'8': 0.0, '32': 1.0}}
  assert measures.perplexities(likelihood) == {
    'nelbo_null': pytest.approx(27),
    'carried_nelbo': {'8': 1.0, '32': pytest.approx(math.e)},
  }
