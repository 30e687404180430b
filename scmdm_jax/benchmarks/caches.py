r"""What kept keys save when an answer is written in blocks behind a prompt.

python -m scmdm_jax.benchmarks.caches [LAYERS WIDTH VOCABULARY STEPS ROUNDS]

Samplers with and without a cache in turn, on random weights of a decoder with
self-conditioning: 256 tokens of prompt, 256 of answer, blocks of 32. Prints JSON: what
is evaluated, FLOPs as XLA counts them, ratios of interleaved times, the same against
the same among them, and the share of tokens that a cache left as they are without it.
On random weights that share says whether a cache is exact, and nothing about quality.
"""

import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scmdm_jax.benchmarks.contenders import random_params
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


def evaluated(cache: str, num_steps: int) -> dict[int, int]:
  """Evaluations of a sample by how many positions each has; see `caching`."""
  later = num_steps - _BLOCKS  # Steps that are not the first of a block.
  if cache == 'none':
    return {_LENGTH: num_steps}
  if cache == 'exact':
    return {_LENGTH: 1, 2 * _BLOCK: _BLOCKS, _BLOCK: later}
  found = {_LENGTH: _BLOCKS}
  for left in range(1, _BLOCKS + 1):
    size = _BLOCK * (1 << (left - 1).bit_length() if cache == 'prefix' else 1)
    found[size] = found.get(size, 0) + later // _BLOCKS
  return found


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


def measure(
  layers: int, width: int, vocabulary: int, num_steps: int, rounds: int
) -> dict[str, Any]:
  """Runs all of it; see the module."""
  whole = described(layers, width, vocabulary)
  params = random_params(whole, 0)
  rng = np.random.default_rng(0)
  start = np.full((1, _LENGTH), vocabulary - 1, np.int32)
  start[:, :_PROMPT] = rng.integers(0, vocabulary - 1, _PROMPT)
  keys = jax.random.split(jax.random.key(0), 1)

  def sampler(cache: str, block_length: int):
    options = Sampler(num_steps, Confidence(), block_length=_BLOCK, cache=cache)
    run = compiled_sampler(whole.in_blocks(block_length), options, False, one_device())
    return functools.partial(run, params, keys, start, jnp.float32(1))

  contenders = {'blocks, none': sampler('none', _BLOCK), 'none': sampler('none', 0)}
  contenders |= {name: sampler(name, block) for name, block in _CACHES.items()}
  results = {name: run() for name, run in contenders.items()}
  contenders['none, again'] = contenders['none']
  times = timing.interleaved(contenders, rounds)
  per_size = functools.cache(lambda size: flops(whole, params, size))

  def work(cache: str) -> float:
    return sum(n * per_size(size) for size, n in evaluated(cache, num_steps).items())

  rows = {}
  for name, block in _CACHES.items():
    plain = 'blocks, none' if block else 'none'
    found, wanted = results[name], results[plain]
    sizes = evaluated(name, num_steps)
    assert int(found.positions) == sum(size * n for size, n in sizes.items())
    rows[name] = {
      'evaluations': int(found.evaluations),
      'positions': int(found.positions),
      'positions_over_none': int(found.positions) / int(wanted.positions),
      'encoder_flops_over_none': work(name) / work('none'),
      'seconds_over_none': timing.ratio_of(times[name], times[plain]),
      'agreement': float(
        np.mean(np.asarray(found.tokens == wanted.tokens)[:, _PROMPT:])
      ),
    }
  return {
    'architecture': whole.to_dict()['architecture'],
    'steps': num_steps,
    'none': {
      'positions': int(results['none'].positions),
      'encoder_flops': work('none'),
      'seconds': times['none'],
      'again_over_none': timing.ratio_of(times['none, again'], times['none']),
    },
    **rows,
  }


if __name__ == '__main__':
  numbers = [int(x) for x in sys.argv[1:]] or [12, 768, 50258, 64, 3]
  print(json.dumps(measure(*numbers), indent=2))
