"""What a benchmark refuses to measure, in one line."""

import pytest

from scmdm_jax.benchmarks import contenders
from scmdm_jax.errors import BadInput
from scmdm_jax.settings.resolve import resolve


@pytest.mark.parametrize(
  ('options', 'length', 'words'),
  [
    ({'cache': 'exact'}, 32, r"sample\.cache: found 'exact'; wanted one of auto, none"),
    (
      {'cache': 'dual', 'block_length': 8},
      20,
      r'sample\.block_length: found 8; wanted a divisor of the length, 20',
    ),
  ],
)
def test_samplers_that_the_model_cannot_have(options, length, words):
  sizes = {'hidden_dim': 8, 'num_blocks': 1, 'num_heads': 2, 'cond_dim': 4}
  settings = resolve({'mode': 'benchmark', 'model': sizes, 'sample': options})
  bench = contenders.bench_of(settings, None, vocab_size=10, length=length)
  with pytest.raises(BadInput, match=words):
    contenders.ours(bench)
