r"""What kept keys save when an answer is written in blocks behind a prompt.

python -m scmdm_jax.benchmarks.caches LAYERS WIDTH VOCABULARY STEPS ROUNDS CACHE...

Samplers with and without a cache in turn, on random weights of a decoder with
self-conditioning: 256 tokens of prompt, 256 of answer, blocks of 32. Prints JSON: what
is evaluated, FLOPs as XLA counts them, ratios of interleaved times (of the clock and of
the processors), the same against the same among them, and the share of tokens that a
cache left as they are without it. On random weights that share says whether a cache is
exact, and nothing about quality. docs/caches.md is made of such files.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.benchmarks.contenders import random_params
from scmdm_jax.diffusion.caching import evaluated
from scmdm_jax.diffusion.sampling import Sampler
from scmdm_jax.diffusion.strategies import Confidence
from scmdm_jax.models import denoiser
from scmdm_jax.models.description import ModelDescription
from scmdm_jax.models.families.llama import DecoderConfig
from scmdm_jax.parallel.mesh import one_device
from scmdm_jax.runs import timing
from scmdm_jax.runs.drawing import compiled_sampler

_PROMPT, _ANSWER, _BLOCK = 256, 256, 32
_LENGTH = _PROMPT + _ANSWER
_BLOCKS = _ANSWER // _BLOCK
# Each beside the sampler without a cache on the same kind of model.
_CACHES = {'exact': _BLOCK, 'prefix': 0, 'dual': 0}


def described(layers: int, width: int, vocabulary: int) -> ModelDescription:
  """A decoder that sees both ways; its last token is the mask."""
  sizes = DecoderConfig(
    vocab_size=vocabulary,
    length=_LENGTH,
    hidden_dim=width,
    num_blocks=layers,
    num_heads=width // 64,
    num_kv_heads=width // 64,
    mlp_dim=4 * width,
    causal=False,
  )
  return ModelDescription(sizes, vocabulary - 1, '', 'embedding', 'llada')


class _Contender:
  """A compiled sampler on its arguments, which notes its seconds of processors."""

  def __init__(self, compiled: Any, arguments: tuple[Any, ...]):
    self._compiled, self._arguments = compiled.lower(*arguments).compile(), arguments
    self.cpu: list[float] = []
    self.found: Any = None

  def __call__(self) -> Any:
    """Runs and returns `Samples`."""
    started = time.process_time()
    self.found = jax.block_until_ready(self._compiled(*self._arguments))
    self.cpu.append(time.process_time() - started)
    return self.found


def flops(description: ModelDescription, params: Any, size: int) -> float:
  """FLOPs of one evaluation of `size` positions, by kept keys if it is not all."""
  network = denoiser.bind(params, description)
  assert network.cached is not None
  x = jnp.zeros((1, size), jnp.int32)
  inputs = (x, jnp.zeros((1, size, network.signal_dim)), jnp.zeros(1))
  if size == _LENGTH:
    compiled: Any = jax.jit(network.encode).lower(*inputs).compile()
  else:
    cache, at = network.cached.start(1, _LENGTH), jnp.int32(_PROMPT)
    lowered = jax.jit(network.cached.encode).lower(*inputs, cache, at, at)
    compiled = lowered.compile()
  return float(compiled.cost_analysis()['flops'])


def _contenders(
  whole: ModelDescription, params: Any, num_steps: int, vocabulary: int
) -> Callable[[str, int], _Contender]:
  """Returns what compiles a sampler with a cache, of a model with such blocks."""
  rng = np.random.default_rng(0)
  start = np.full((1, _LENGTH), vocabulary - 1, np.int32)
  start[:, :_PROMPT] = rng.integers(0, vocabulary - 1, _PROMPT)
  keys = jax.random.split(jax.random.key(0), 1)

  def contender(cache: str, block_length: int) -> _Contender:
    options = Sampler(num_steps, Confidence(), block_length=_BLOCK, cache=cache)
    blocks = whole.in_blocks(block_length)
    run = compiled_sampler(blocks, options, False, one_device())
    return _Contender(run, (params, keys, start, jnp.float32(1)))

  return contender


def measure(
  sizes: tuple[int, int, int], num_steps: int, rounds: int, caches: list[str]
) -> dict[str, Any]:
  """Runs all of it; see the module. `sizes` are layers, width and vocabulary."""
  whole, vocabulary = described(*sizes), sizes[2]
  params = random_params(whole, 0)
  contender = _contenders(whole, params, num_steps, vocabulary)
  plain = {block: contender('none', block) for block in {_CACHES[c] for c in caches}}
  runs = {f'none, blocks of {block}': plain[block] for block in plain}
  runs['again'] = contender('none', _CACHES[caches[0]])
  runs |= {cache: contender(cache, _CACHES[cache]) for cache in caches}
  times = timing.interleaved(runs, rounds, warm=1)
  per_size = functools.cache(lambda size: flops(whole, params, size))

  def sizes_of(cache: str) -> dict[int, int]:
    return evaluated(cache, _LENGTH, _BLOCK, num_steps, _PROMPT)

  def work(cache: str) -> float:
    return sum(n * per_size(size) for size, n in sizes_of(cache).items())

  def against(name: str, block: int) -> dict[str, Any]:
    other = f'none, blocks of {block}'
    return {
      'seconds': times[name],
      'seconds_per_token': float(np.median(times[name])) / _ANSWER,
      'seconds_over_none': timing.ratio_of(times[name], times[other]),
      'processor_seconds_over_none': timing.ratio_of(
        runs[name].cpu[-rounds:], runs[other].cpu[-rounds:]
      ),
    }

  rows = {}
  for name in caches:
    found, wanted = runs[name].found, plain[_CACHES[name]].found
    counts = sizes_of(name)
    assert int(found.positions) == sum(size * n for size, n in counts.items())
    same = np.asarray(found.tokens == wanted.tokens)[:, _PROMPT:]
    rows[name] = {
      'evaluations': int(found.evaluations),
      'positions': int(found.positions),
      'none_over_positions': int(wanted.positions) / int(found.positions),
      'none_over_encoder_flops': work('none') / work(name),
      'agreement': float(np.mean(same)),
      **against(name, _CACHES[name]),
    }
  return {
    'command': ' '.join(['python -m scmdm_jax.benchmarks.caches', *sys.argv[1:]]),
    'layers': sizes[0],
    'width': sizes[1],
    'vocabulary': vocabulary,
    'steps': num_steps,
    'rounds': rounds,
    'none': {
      'positions': num_steps * _LENGTH,
      'encoder_flops': work('none'),
      'seconds': {name: times[name] for name in runs if name.startswith('none')},
    },
    'again': against('again', _CACHES[caches[0]]),
    **rows,
  }


if __name__ == '__main__':
  layers, width, vocabulary, steps, rounds = map(int, sys.argv[1:6])
  found = measure((layers, width, vocabulary), steps, rounds, sys.argv[6:])
  print(json.dumps(found, indent=2))
